"""DPO on completions that the policy rates itself."""
