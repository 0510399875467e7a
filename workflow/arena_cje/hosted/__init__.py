"""Policies behind APIs: requests for responses, and log probabilities of given responses."""
