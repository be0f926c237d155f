"""alignzoo run grpo --task style --reward ./examples/hooks/reward.py"""

import torch

from alignzoo import hookimpl


class Exclaims:
    """1 for a completion that ends with an exclamation mark, 0 for any other"""

    @hookimpl
    def alignzoo_reward(self, run, batch):
        return torch.tensor([float(text.endswith("!")) for text in run.texts(batch)])
