"""Requests to APIs: what is asked, who is asked, how many at a time, what it costs. `providers/` say what an API can do."""
