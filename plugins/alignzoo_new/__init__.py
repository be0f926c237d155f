"""`alignzoo new`: a package with a plugin in it, to start from."""
