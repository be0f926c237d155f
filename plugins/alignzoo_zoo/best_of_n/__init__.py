"""The best of n completions."""
