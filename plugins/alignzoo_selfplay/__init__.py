"""Self-play fine-tuning: demonstrations preferred to what the model writes itself."""
