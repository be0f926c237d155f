"""alignzoo run dpo --with ./examples/hooks/learning_rate.py"""

from alignzoo import hookimpl


class InverseRoot:
    """Warm the learning rate up for ten steps, then let it fall as 1 / sqrt(step)"""

    @hookimpl
    def alignzoo_learning_rate(self, run, step):
        return run.learning_rate * min(step / 10, (10 / step) ** 0.5)
