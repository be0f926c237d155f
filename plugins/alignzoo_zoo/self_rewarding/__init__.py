"""DPO on one's own ratings."""
