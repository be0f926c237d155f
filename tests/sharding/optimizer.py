"""Brings an optimizer that is not known to work on parts of weights."""

from __future__ import annotations

from typing import Any

import torch

from alignzoo import hookimpl


class Optimizer:
    @hookimpl
    def alignzoo_optimizer(self, run: Any, parameters: Any) -> torch.optim.Optimizer:
        return torch.optim.Adagrad([p for _, p in parameters], lr=run.learning_rate)
