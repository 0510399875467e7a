"""Policies behind APIs: what is sent to be answered, and to be scored."""
