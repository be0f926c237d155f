"""Binary Classifier Optimization."""
