"""The configuration: its records, their checks, and the policies, targets and documents that follow from them."""
