"""REINFORCE Leave-One-Out."""
