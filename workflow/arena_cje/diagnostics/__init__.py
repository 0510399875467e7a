"""Diagnostics of an estimate (overlap, support, calibration, transport) and the verdict that follows from them.

Imports numpy and scipy alone.
"""
