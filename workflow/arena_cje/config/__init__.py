"""The configuration: every key as a record, checked, and what follows from it."""
