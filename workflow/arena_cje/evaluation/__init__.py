"""Estimators run over policies and folds."""
