"""Group Relative Policy Optimization and its family."""
