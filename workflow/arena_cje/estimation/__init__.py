"""The statistics of one data set, from arrays to estimates: folds, calibration, weights, inference.

Imports numpy and scipy, and statsmodels for corrected p-values.
"""
