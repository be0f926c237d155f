"""Online DPO that explores."""
