"""Online DPO with an exploration bonus."""
