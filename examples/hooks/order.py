"""alignzoo run dpo --with ./examples/hooks/order.py"""

from alignzoo import hookimpl


class ShortFirst:
    """Give each round its rows from the shortest to the longest"""

    @hookimpl
    def alignzoo_order(self, run, index):
        rows = run.order.batch(index)  # the default: epochs in a random order
        return sorted(rows, key=lambda row: run.data.train[row].size)
