"""The training loop and its parts: rounds, checkpoints, alarms, the reference cache."""
