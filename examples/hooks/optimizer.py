"""alignzoo run dpo --with ./examples/hooks/optimizer.py"""

from torch.optim import SGD

from alignzoo import hookimpl


class Momentum:
    """Train with stochastic gradient descent and momentum"""

    @hookimpl
    def alignzoo_optimizer(self, run, parameters):
        return SGD([p for _, p in parameters], lr=run.learning_rate, momentum=0.9)
