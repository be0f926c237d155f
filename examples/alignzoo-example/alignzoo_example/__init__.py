"""Plugins for alignzoo: an algorithm, a reward and an add-on."""
