"""alignzoo run grpo --task sums --with ./examples/hooks/sample.py"""

from alignzoo import hookimpl


class OnlyFinished:
    """Learn only from completions that ended before --max-new-tokens"""

    @hookimpl(wrapper=True)
    def alignzoo_sample(self):
        batch = yield  # what the run would learn from
        return batch.keep(batch["ended"].bool())
