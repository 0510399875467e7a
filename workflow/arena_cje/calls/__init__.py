"""Requests to APIs: endpoints, clients, limits, retries, and the ledger of what they cost. `apis/` has one file an API."""
