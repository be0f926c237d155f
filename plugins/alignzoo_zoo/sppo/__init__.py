"""Self-play by win rates."""
