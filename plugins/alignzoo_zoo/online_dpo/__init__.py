"""DPO on fresh pairs."""
