"""Costs of calls to APIs: prices, an estimate before the calls, and the account of what was spent."""
