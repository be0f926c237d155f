"""The training loop and what moves with it: rounds, checkpoints, alarms, the reference cache."""
