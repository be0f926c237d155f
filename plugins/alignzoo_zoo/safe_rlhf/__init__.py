"""Safe RLHF: a cost beside the reward, and a Lagrange multiplier."""
