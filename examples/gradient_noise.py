"""An add-on that adds noise to the gradient of each step, the same in all processes.

alignzoo run dpo --with ./examples/gradient_noise.py
"""

import torch

from alignzoo import hookimpl


class GradientNoise:
    """Add noise to the gradient, less and less of it (https://arxiv.org/abs/1511.06807)"""

    known_exceptions = {
        "core metrics": "the noise is there to change the training",
        "overhead": "it draws a number for each weight that is trained",
    }

    @hookimpl
    def alignzoo_gradient(self, run, parameters):
        generator = torch.Generator().manual_seed(run.seed_for("gradient noise", run.step))
        deviation = 0.01 * (1 + run.step) ** -0.275
        for _, parameter in parameters:
            if parameter.grad is not None:
                noise = torch.randn(parameter.shape, generator=generator)
                parameter.grad += deviation * noise.to(parameter.grad)
