"""Completions drawn by vLLM under the policy's present adapter."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Protocol

from annotated_types import Ge, Gt, Le

from alignzoo import BadInput, Example, Run, hookimpl
from alignzoo.rollout import Completion, Sampler, Sampling, seeds
from alignzoo_vllm.engine import Engine
from alignzoo_vllm.server import Server

ADAPTERS = ("lora", "rslora", "qlora")  # what vLLM can put on a base that it has loaded


class Backend(Protocol):
    """Where vLLM runs."""

    def load(self, name: str, folder: Path) -> None:
        """From now on completions are drawn under this adapter, in PEFT's layout."""

    def draw(
        self, prompts: Sequence[list[int]], seeds: Sequence[int], sampling: Sampling
    ) -> list[Completion]:
        """One completion per prompt and seed, under the last adapter that was loaded."""


@dataclass(eq=False)
class VLLM(Sampler):
    """vLLM, a server or an engine in this process, under the adapter as it is in each step"""

    url: Annotated[
        str | None, "address of a server, http://HOST:PORT/v1 [default: an engine in this process]"
    ] = None
    model: Annotated[str | None, "what vLLM calls the base [default: as --model does]"] = None
    folder: Annotated[
        str | None, "where adapters are handed over, seen by the server too [default: the run's]"
    ] = None
    timeout: Annotated[float, "seconds to wait for an answer of the server", Gt(0)] = 600.0
    retries: Annotated[int, "how often to ask again where the server fails", Ge(0)] = 4
    requests: Annotated[int, "requests to the server under way at once", Ge(1)] = 64
    memory: Annotated[float, "share of the device's memory for the engine", Gt(0), Le(1)] = 0.3

    backend: Backend | None = field(default=None, init=False)
    handed_over: int | None = field(default=None, init=False)  # the step whose adapter is there

    external_logprobs = True

    @hookimpl
    def alignzoo_check(self, recipe: Any) -> None:
        if recipe.adapter not in ADAPTERS:
            raise BadInput(
                f"sampler 'vllm': --adapter {recipe.adapter} cannot be handed over to vLLM",
                hint=f"it takes {', '.join(ADAPTERS)}",
            )
        if (Path(recipe.model).expanduser() / "adapter").is_dir() and self.model is None:
            raise BadInput(
                "sampler 'vllm': the model is an earlier run's base with its adapter added in, "
                "which vLLM does not know by that name",
                where=recipe.model,
                hint="let it serve the merged weights, and name them: --sampler vllm,model=NAME",
            )
        base = self.model or recipe.model
        if self.url is not None:
            self.backend = Server(self.url, base, self.timeout, self.retries, self.requests)
            self.backend.check()
        else:
            self.backend = Engine(base, recipe, self.memory)

    def complete(
        self, run: Run, rows: Sequence[Example], size: int, draw: str
    ) -> list[list[Completion]]:
        assert self.backend is not None  # alignzoo_check made it
        if self.handed_over != run.step:
            self.hand_over(run, self.backend)
        found = self.backend.draw(
            [row.prompt for row in rows for _ in range(size)],
            seeds(run, len(rows) * size, draw),
            Sampling.of(run.recipe, run.codec),
        )
        return [found[i : i + size] for i in range(0, len(found), size)]

    def hand_over(self, run: Run, backend: Backend) -> None:
        """Write the adapter as it is now and have it loaded. The folder of the one before goes."""
        name = f"alignzoo-{run.record.folder.name}-{run.step}"
        parent = Path(self.folder).expanduser() if self.folder else run.record.folder / "sampler"
        if run.world.is_main:
            run.model.save(parent / name)
        run.world.wait()
        if run.world.is_main or self.url is None:  # an engine is each process's own
            backend.load(name, (parent / name / "adapter").resolve())
        run.world.wait()
        if isinstance(backend, Server):
            backend.adapter = name
        if run.world.is_main and self.handed_over is not None:
            before = f"alignzoo-{run.record.folder.name}-{self.handed_over}"
            shutil.rmtree(parent / before, ignore_errors=True)
        self.handed_over = run.step
