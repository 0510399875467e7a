"""From data to a result, and from a results file to tables and text."""
