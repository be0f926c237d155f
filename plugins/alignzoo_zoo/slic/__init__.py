"""Sequence Likelihood Calibration with Human Feedback."""
