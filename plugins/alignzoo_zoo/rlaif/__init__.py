"""Learning from a judge's preferences."""
