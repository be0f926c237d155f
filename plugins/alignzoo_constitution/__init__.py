"""Constitutional AI and AI feedback: alignment by principles that are written down."""
