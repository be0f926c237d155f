"""Optimizers by name: AdamW, also with 8-bit states, Muon and Adafactor."""
