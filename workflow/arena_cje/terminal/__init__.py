"""What users see on a terminal: the lines of a run, its progress, its end, and files of results as tables."""
