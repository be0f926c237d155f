"""Keeps a weight in its state, as an average of weights would."""

from __future__ import annotations

from typing import Any

from alignzoo import hookimpl


class Average:
    @hookimpl
    def alignzoo_step(self, run: Any) -> None:
        name, weight = run.model.named_parameters()[0]
        run.state_of(self)["average"] = {name: weight.detach().clone()}
