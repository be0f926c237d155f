"""alignzoo run dpo --with ./examples/hooks/gradient.py"""

import torch

from alignzoo import hookimpl


class Noise:
    """Add a little noise to the gradient, the same in a resumed run"""

    @hookimpl
    def alignzoo_gradient(self, run, parameters):
        generator = torch.Generator().manual_seed(run.seed_for("noise", run.step))
        for _, p in parameters:
            if p.grad is not None:
                p.grad += 1e-4 * torch.randn(p.shape, generator=generator).to(p.grad)
