"""Grades: scores of judges and labels of the oracle, and everything that determines them."""
