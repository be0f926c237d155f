"""The sampler `vllm`: completions drawn by vLLM under the policy's current adapter."""

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
from alignzoo_vllm.servers import Servers

SUPPORTED_ADAPTERS = ("lora", "rslora", "qlora", "none")


class Backend(Protocol):
    """A vLLM, in this process or elsewhere."""

    def load(self, name: str, folder: Path) -> None:
        """Draw from these weights from now on.

        The folder has PEFT's layout, or transformers' when all weights are trained.
        """

    def draw(
        self, prompts: Sequence[list[int]], seeds: Sequence[int], sampling: Sampling
    ) -> list[Completion]:
        """Draw one completion per prompt and seed from the weights loaded last."""


@dataclass(eq=False)
class VLLM(Sampler):
    """vLLM, servers or an engine in this process, with the weights of each step"""

    url: Annotated[
        str | None,
        "URL of a server, http://HOST:PORT/v1, or of several, joined by + [default: an engine in "
        "this process]",
    ] = None
    model: Annotated[str | None, "vLLM's name of the base model [default: as in --model]"] = None
    folder: Annotated[
        str | None, "where to put weights, visible to the server too [default: the run's folder]"
    ] = None
    timeout: Annotated[float, "seconds to wait for the server's reply", Gt(0)] = 600.0
    retries: Annotated[int, "retries of a failed request", Ge(0)] = 4
    requests: Annotated[int, "concurrent requests to each server", Ge(1)] = 64
    memory: Annotated[float, "fraction of GPU memory for the engine", Gt(0), Le(1)] = 0.3

    backend: Backend | None = field(default=None, init=False)
    loaded_step: int | None = field(default=None, init=False)  # the step of the loaded weights

    external_logprobs = True

    @hookimpl
    def alignzoo_check(self, recipe: Any) -> None:
        """Refuse what vLLM cannot serve, and connect to it."""
        if recipe.adapter not in SUPPORTED_ADAPTERS:
            raise BadInput(
                f"sampler 'vllm': vLLM cannot load --adapter {recipe.adapter}",
                hint=f"it supports {', '.join(SUPPORTED_ADAPTERS)}",
            )
        if (Path(recipe.model).expanduser() / "adapter").is_dir() and self.model is None:
            raise BadInput(
                "sampler 'vllm': the model is an earlier run, a base with an adapter merged in, "
                "which vLLM does not know by that name",
                where=recipe.model,
                hint="serve the merged weights, and name them: --sampler vllm,model=NAME",
            )
        base = self.model or recipe.model
        if self.url is not None:
            whole = recipe.adapter == "none"
            servers = [
                Server(url, base, self.timeout, self.retries, whole) for url in self.url.split("+")
            ]
            self.backend = Servers(servers, self.requests)
            self.backend.check()
        else:
            self.backend = Engine(base, recipe, self.memory)

    def complete(
        self, run: Run, rows: Sequence[Example], size: int, stream: str
    ) -> list[list[Completion]]:
        """Draw `size` completions of each prompt, after loading this step's weights."""
        assert self.backend is not None  # set by alignzoo_check
        if isinstance(self.backend, Servers):
            self.backend.note, self.backend.first = run.ui.note, run.world.rank
        if self.loaded_step != run.step:
            self.load_weights(run, self.backend)
        completions = self.backend.draw(
            [row.prompt for row in rows for _ in range(size)],
            seeds(run, len(rows) * size, stream, size),
            Sampling.of(run.recipe, run.codec),
        )
        return [completions[i : i + size] for i in range(0, len(completions), size)]

    def load_weights(self, run: Run, backend: Backend) -> None:
        """Save the current weights, have them loaded, and delete the previous ones' folder."""
        name = f"alignzoo-{run.record.folder.name}-{run.step}"
        parent = Path(self.folder).expanduser() if self.folder else run.record.folder / "sampler"
        if run.world.is_main:
            run.model.save(parent / name)
        run.world.wait()
        folder = parent / name / ("model" if run.recipe.adapter == "none" else "adapter")
        if run.world.is_main or not isinstance(backend, Servers):  # each process has its own engine
            backend.load(name, folder.resolve())
        run.world.wait()
        if isinstance(backend, Servers) and not run.world.is_main:
            backend.adopt(name)
        if run.world.is_main and self.loaded_step is not None:
            previous = f"alignzoo-{run.record.folder.name}-{self.loaded_step}"
            shutil.rmtree(parent / previous, ignore_errors=True)
        self.loaded_step = run.step
