"""A*-PO: regression on optimal advantages."""
