"""The statistics of a comparison: pure functions from arrays of scores to numbers."""
