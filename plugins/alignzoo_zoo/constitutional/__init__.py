"""Constitutional AI, the supervised stage."""
