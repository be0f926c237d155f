"""The built-in algorithms, one folder each.

`algorithm.py` has the options and hooks, `losses.py` the maths as pure functions on tensors, and
`README.md` documents both.
"""
