"""Tables: what a column means, the rows of the CJE format, and data sets read into arrays."""
