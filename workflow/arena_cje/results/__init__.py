"""Results: made from a data set, written to a file, loaded again, shown as tables, text and figures."""
