"""Ablations: estimators over a grid of settings, on data whose truth is known.

A cell is one setting (an estimator with its options, and how it reads the judge) that estimates all policies from one sample
of n prompts with labels on a share of them. `grid` has the cells and their division into jobs, `populations`
draws their samples, `run` estimates them, `metrics` has the measures and `summary` the tables.
"""
