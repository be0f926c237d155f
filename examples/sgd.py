"""An add-on that trains by SGD with momentum, slower in the first layers, at a rate that restarts.

alignzoo run dpo --with ./examples/sgd.py
"""

import re

import torch

from alignzoo import hookimpl


class SGD:
    """SGD with momentum; the first layer learns at half the rate, which restarts every 50 steps"""

    known_exceptions = {"core metrics": "another optimizer trains other weights"}

    @hookimpl
    def alignzoo_optimizer(self, run, parameters):
        first = [p for name, p in parameters if re.search(r"layers\.0\.", name)]
        others = [p for name, p in parameters if not re.search(r"layers\.0\.", name)]
        groups = [{"params": first, "lr_scale": 0.5}, {"params": others}]
        return torch.optim.SGD(groups, lr=run.learning_rate, momentum=0.9)

    @hookimpl
    def alignzoo_learning_rate(self, run, step):
        return run.learning_rate * (1 - (step - 1) % 50 / 50)
