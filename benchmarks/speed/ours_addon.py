"""An add-on that measures a run of alignzoo: `--with benchmarks/speed/ours_addon.py`."""

from __future__ import annotations

from collections.abc import Generator

from meter import METER
from model import fill_trained

from alignzoo import Batch, Run, hookimpl


class MeterAddon:
    """Fill the trained weights before the first step, and report each step to the meter."""

    @hookimpl
    def alignzoo_start(self, run: Run) -> None:
        count, total = fill_trained(run.model.named_parameters())
        METER.facts.update(trainable=count, trained_sum=total)
        METER.begin()

    @hookimpl(wrapper=True)
    def alignzoo_sample(self) -> Generator[None, Batch, Batch]:
        with METER.time_sampling():
            return (yield)

    @hookimpl
    def alignzoo_step(self, run: Run, step: int, metrics: dict[str, float]) -> None:
        METER.step(metrics["loss"], metrics["grad_norm"], run.ledger.total_flops)
