"""`alignzoo check`: whether plugins do what the loop relies on."""
