"""Compare algorithms on the same base, tasks and budget, over several seeds."""
