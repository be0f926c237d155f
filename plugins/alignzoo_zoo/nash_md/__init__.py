"""Nash learning against a mixture of policy and reference."""
