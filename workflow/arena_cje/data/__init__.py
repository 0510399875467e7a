"""Data sets in the CJE format: the declared tables, their rows checked and read into arrays, and the masking of labels."""
