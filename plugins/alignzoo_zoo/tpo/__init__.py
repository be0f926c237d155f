"""Triple Preference Optimization."""
