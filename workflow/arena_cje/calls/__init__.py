"""Requests to APIs: endpoints, clients, limits, retries, and the ledger of costs. `apis/` has one module for each API."""
