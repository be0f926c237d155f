"""Self-play against demonstrations."""
