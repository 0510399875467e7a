"""From arrays to estimates: folds, calibration, weights, inference. Sees numpy and scipy alone."""
