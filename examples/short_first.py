"""An add-on that trains on short rows first.

alignzoo run sft --task sums --with ./examples/short_first.py
"""

from alignzoo import hookimpl


class ShortFirst:
    """Take the rows in the order of their length"""

    known_exceptions = {"core metrics": "other rows train other weights"}

    @hookimpl
    def alignzoo_start(self, run):
        lengths = [
            len(row.prompt) + max(map(len, row.completions), default=0) for row in run.data.train
        ]
        self.order = sorted(range(len(lengths)), key=lambda i: lengths[i])

    @hookimpl
    def alignzoo_order(self, run, index):
        size = run.schedule.rows_per_round
        return [self.order[i % len(self.order)] for i in range(index * size, (index + 1) * size)]
