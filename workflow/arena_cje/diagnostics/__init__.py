"""What an estimate rests on: overlap, support, calibration, and the verdict drawn from them.

Sees numpy and scipy alone.
"""
