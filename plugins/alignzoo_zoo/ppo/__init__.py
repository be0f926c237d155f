"""Proximal Policy Optimization with a reward and a KL per token, as RLHF has it."""
