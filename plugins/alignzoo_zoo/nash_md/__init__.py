"""Nash learning from fresh pairs."""
