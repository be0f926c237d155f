"""The measurements of one process, by one code for both libraries: time, memory, losses, load."""

from __future__ import annotations

import ctypes
import gc
import json
import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch

SKIPPED = 2  # first steps, which touch memory and choose kernels
MIB = 1024.0


@dataclass
class Meter:
    """Call `begin` right before training, `step` at the end of each step, `save` at the end.

    A step is timed from the end of the previous one to its own end, so collation and logging count.
    """

    batch_size: int = 8
    times: list[float] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    norms: list[float] = field(default_factory=list)
    flops: list[float] = field(default_factory=list)
    facts: dict[str, float] = field(default_factory=dict)
    started: float = 0.0
    sampling: float = 0.0  # CPU seconds of this step in completions and rewards
    samplings: list[float] = field(default_factory=list)
    processor: list[float] = field(default_factory=list)
    _since: tuple[float, float, float] | None = None

    def restart(self, batch_size: int) -> None:
        """Forget everything, for another job in the same process."""
        vars(self).update(vars(Meter(batch_size)))
        gc.collect()
        torch.cuda.empty_cache()

    def begin(self) -> None:
        """Record the memory of model and libraries, and measure the peak from the first call on."""
        self.started = time.perf_counter()
        if "memory_before" in self.facts:
            return
        gc.collect()
        ctypes.CDLL("libc.so.6").malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")
        self.facts["memory_before"] = read_status("VmRSS")
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()

    @contextmanager
    def time_sampling(self) -> Iterator[None]:
        """Count the CPU time inside as sampling and rewards, not as update."""
        started = time.process_time()
        yield
        self.sampling += time.process_time() - started

    def step(self, loss: float | None, norm: float | None, flops: float = 0.0) -> None:
        """Record the end of a step: loss, gradient norm, and the FLOPs spent so far."""
        if torch.cuda.is_available():
            torch.cuda.synchronize()
            self.facts["gpu_peak"] = torch.cuda.max_memory_allocated() / 2**20
        self.times.append(time.perf_counter())
        self.processor.append(time.process_time())
        self.samplings.append(self.sampling)
        self.sampling = 0.0
        self.flops.append(flops)
        if loss is not None:
            self.losses.append(loss)
        if norm is not None:
            self.norms.append(norm)
        self.facts["memory_peak"] = read_status("VmHWM")
        usage = (time.perf_counter(), time.process_time(), busy_seconds())
        if len(self.times) == SKIPPED:
            self._since = usage
        elif self._since is not None:
            wall, mine, all_ = (now - then for now, then in zip(usage, self._since, strict=True))
            self.facts["own_cores"] = mine / wall
            self.facts["other_cores"] = max(all_ - mine, 0.0) / wall

    def save(self, path: Path, **more: float) -> None:
        """Write all measurements, and `more`, as JSON."""
        steady = len(self.times) - SKIPPED
        if steady > 0:
            seconds = self.times[-1] - self.times[SKIPPED - 1]
            self.facts["step_seconds"] = seconds / steady
            self.facts["rows_per_second"] = self.batch_size * steady / seconds
            core_seconds = (self.processor[-1] - self.processor[SKIPPED - 1]) / steady
            self.facts["drawing_core_seconds"] = sum(self.samplings[SKIPPED:]) / steady
            self.facts["update_core_seconds"] = core_seconds - self.facts["drawing_core_seconds"]
            self.facts["flops_per_step"] = (self.flops[-1] - self.flops[SKIPPED - 1]) / steady
        self.facts["all_seconds"] = self.times[-1] - self.started
        self.facts["memory_rise"] = self.facts["memory_peak"] - self.facts["memory_before"]
        self.facts["maxrss"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / MIB
        self.facts.update(more)
        path.write_text(json.dumps({**self.facts, "losses": self.losses, "norms": self.norms}))


def read_status(name: str) -> float:
    """Return a value of /proc/self/status in MiB."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1]) / MIB
    raise KeyError(name)


def busy_seconds() -> float:
    """Return the CPU seconds of all processes on all cores since the machine started."""
    user, nice, system, _idle, _wait, irq, soft, *_ = (
        int(x) for x in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
    )
    return (user + nice + system + irq + soft) / 100.0


METER = Meter()
