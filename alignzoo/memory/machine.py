"""The machine that a run is estimated for: this one, measured, or a card of the table."""

from __future__ import annotations

import ctypes
import math
import platform
import resource
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch

from alignzoo.errors import BadInput, nearest
from alignzoo.memory.cards import CARDS
from alignzoo.policy import default_device

# Shares of what products and copies reach alone. On a CPU: measured, a DPO step on a model of 135M
# parameters; on a GPU: assumed, as common among training programs on one card.
CPU_SHARE = 0.65
GPU_SHARE = 0.35
COPY_SHARE = 0.7
CUDA_CONTEXT = 500_000_000  # bytes that CUDA, its kernels and the allocator's gaps take; assumed
GEMM, COPIED = 1024, 64_000_000  # size of the measured product; bytes of the measured copy
MEASURE_SECONDS = 0.3
M_MMAP_THRESHOLD, RETURNED_FROM = -3, 128 * 1024  # of glibc's mallopt; bytes
CGROUP_LIMITS = (
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
    (
        "/sys/fs/cgroup/memory/memory.limit_in_bytes",
        "/sys/fs/cgroup/memory/memory.usage_in_bytes",
    ),
)


@dataclass(frozen=True)
class Machine:
    """A device with its speed.

    Args:
        name: for the reader.
        device: of which only the type matters for a card.
        memory: bytes that a run can take, `base` included.
        base: bytes that Python and its libraries, or CUDA, take before the first tensor.
        bf16: True if bfloat16 products run at full speed.
        flops: operations per second in training.
        bandwidth: bytes per second that are read while completions are drawn.
        source: where the last two come from.
    """

    name: str
    device: torch.device
    memory: int
    base: int
    bf16: bool
    flops: float
    bandwidth: float
    source: str

    def half(self, precision: str) -> torch.dtype | None:
        """Return the dtype of products under a `--precision`; None: float32.

        Raise `BadInput` for bf16 on a card that has none.
        """
        if precision == "bf16" and self.device.type == "cuda" and not self.bf16:
            raise BadInput(
                f"option --precision: {self.name} has no bf16",
                hint="use --precision fp32, or a card that has: "
                + ", ".join(name for name, card in CARDS.items() if card.bf16 is not None),
            )
        wanted = precision == "bf16" or (precision == "auto" and self.device.type == "cuda")
        return torch.bfloat16 if wanted and (self.bf16 or precision == "bf16") else None


def machine_of(card: str | None, precision: str) -> Machine:
    """Return a card by its name, or this machine. Raise `BadInput` for an unknown card."""
    if card is None:
        return this_machine(precision)
    name = card.strip().lower().replace(" ", "-").replace("_", "-")
    if name not in CARDS:
        raise BadInput(f"option --card: unknown card {card!r}", hint=nearest(name, CARDS))
    facts = CARDS[name]
    half = facts.bf16 is not None and precision != "fp32"
    rate = facts.bf16 if half and facts.bf16 is not None else facts.fp32
    return Machine(
        name=name,
        device=torch.device("cuda"),
        memory=int(facts.memory * 1e9),
        base=CUDA_CONTEXT,
        bf16=facts.bf16 is not None,
        flops=rate * 1e12 * GPU_SHARE,
        bandwidth=facts.bandwidth * 1e9 * COPY_SHARE,
        source=f"{GPU_SHARE:.0%} of its {'bf16' if half else 'fp32'} peak of {rate:g} TFLOP/s "
        "(assumed)",
    )


def this_machine(precision: str) -> Machine:
    """Measure this machine: its device, the memory that is free, and its speed."""
    device = default_device()
    gpu = device.type == "cuda"
    bf16 = gpu and torch.cuda.is_bf16_supported(including_emulation=False)
    half = (bf16 and precision != "fp32") or precision == "bf16"
    rate = measure_products(device, torch.bfloat16 if half else torch.float32)
    share = GPU_SHARE if gpu else CPU_SHARE
    threads = f"{torch.get_num_threads()} thread" + "s" * (torch.get_num_threads() > 1)
    base = CUDA_CONTEXT if gpu else resident_memory()
    return Machine(
        name=torch.cuda.get_device_name(device) if gpu else f"this machine (CPU, {threads})",
        device=device,
        memory=free_memory(device) + base,
        base=base,
        bf16=bf16,
        flops=rate * share,
        bandwidth=measure_copies(device) * COPY_SHARE,
        source=f"{share:.0%} of {rate / 1e9:,.0f} GFLOP/s, measured now by a matrix product",
    )


def free_memory(device: torch.device) -> int:
    """Return the bytes that this process can still take on a device.

    On a CPU that is the memory that is available, or less under a limit of a container (cgroup) or
    of the process (`ulimit -v`).
    """
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    found = [psutil.virtual_memory().available]
    for limit, used in CGROUP_LIMITS:
        with suppress(OSError, ValueError):  # no such group, or no limit: "max"
            found.append(int(Path(limit).read_text()) - int(Path(used).read_text()))
    process = psutil.Process().memory_info()
    for name, taken in ((resource.RLIMIT_AS, process.vms), (resource.RLIMIT_DATA, process.rss)):
        most = resource.getrlimit(name)[0]
        if most != resource.RLIM_INFINITY:
            found.append(most - taken)
    return max(min(found), 0)


def return_freed_memory() -> bool:
    """Make the C library give larger blocks back to the system as soon as they are freed.

    By default glibc keeps them, in pieces that later tensors do not always fit into: measured, a
    process then takes up to twice what its tensors do. Given back, a step took two fifths more
    time. Return False if the C library is another one.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    return bool(ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, RETURNED_FROM))


def resident_memory() -> int:
    """Return the bytes of this process in memory."""
    return int(psutil.Process().memory_info().rss)


def measure_products(device: torch.device, dtype: torch.dtype) -> float:
    """Return the operations per second of a matrix product."""
    a = torch.ones(GEMM, GEMM, device=device, dtype=dtype)
    return 2.0 * GEMM**3 * _per_second(lambda: torch.mm(a, a), device)


def measure_copies(device: torch.device) -> float:
    """Return the bytes per second that a sum reads."""
    x = torch.ones(COPIED // 4, device=device)
    return COPIED * _per_second(lambda: x.sum(), device)


def _per_second(call: Callable[[], object], device: torch.device) -> float:
    """Return how often something can be called in a second, the fastest of several tries."""
    fastest, until = math.inf, time.perf_counter() + MEASURE_SECONDS
    while True:
        started = time.perf_counter()
        call()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        ended = time.perf_counter()
        fastest = min(fastest, ended - started)
        if ended > until:
            return 1.0 / fastest
