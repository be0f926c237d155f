"""The built-in algorithms, a folder each.

`algorithm.py` has the options and hooks; the maths is beside it, in pure functions.
"""
