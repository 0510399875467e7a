"""The estimators, run over policies and folds."""
