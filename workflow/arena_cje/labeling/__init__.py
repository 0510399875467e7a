"""Labels by people: blind tasks, their votes, how far raters agree, one label for each text."""
