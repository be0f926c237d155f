"""Checks of the machine: devices, precision, threads, memory, disk."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import torch
from huggingface_hub import constants

from alignzoo.files import cache_home
from alignzoo.policy import default_device
from alignzoo_doctor.finding import Finding

GB = 1e9
LITTLE_MEMORY, LITTLE_DISK = 4 * GB, 10 * GB  # a note; a quarter of it is a problem
CGROUP = Path("/sys/fs/cgroup")
HUGE = 2**60  # bytes; cgroups of version 1 write such a number for no limit


def check_devices() -> Iterator[Finding]:
    """Find what torch can compute on."""
    device = default_device()
    if device.type == "cpu":
        if shutil.which("nvidia-smi"):
            yield Finding(
                "problem",
                "devices",
                f"torch {torch.__version__} cannot use the NVIDIA card of this machine",
                "install the build of torch for its driver: https://pytorch.org/get-started",
            )
            return
        yield Finding(
            "note",
            "devices",
            f"torch {torch.__version__} has no accelerator, only the CPU",
            "models of some hundred million parameters train on it",
        )
        return
    for index in range(torch.accelerator.device_count()):
        text = f"torch {torch.__version__}: {device.type}:{index}"
        if device.type == "cuda":
            free, total = torch.cuda.mem_get_info(index)
            name = torch.cuda.get_device_name(index)
            text += f", {name}, {free / GB:.1f} of {total / GB:.1f} GB free"
        yield Finding("ok", "devices", text)


def check_precision() -> Iterator[Finding]:
    """Find whether the device has bfloat16."""
    device = default_device()
    if device.type != "cuda":
        yield Finding("ok", "bf16", f"{device.type} computes in float32 unless told otherwise")
    elif torch.cuda.is_bf16_supported(including_emulation=False):
        yield Finding("ok", "bf16", "the card has it, and runs use it")
    else:
        yield Finding("note", "bf16", "the card has none: runs are in float32, and slower")


def check_four_bit() -> Iterator[Finding]:
    """Try a product with a weight in 4 bits."""
    device = default_device()
    try:
        from bitsandbytes.functional import dequantize_4bit, quantize_4bit

        weight = torch.linspace(-1, 1, 64 * 64, device=device).reshape(64, 64)
        small, state = quantize_4bit(weight, quant_type="nf4")
        error = (dequantize_4bit(small, state) - weight).abs().max().item()
    except Exception as found:  # a missing library or kernel raises whatever it likes
        yield Finding(
            "problem",
            "4-bit weights",
            f"bitsandbytes does not work on {device.type}: {type(found).__name__}: {found}"[:200],
            "use --adapter lora; or install bitsandbytes again, after torch",
        )
        return
    if error > 0.2:  # the steps of NF4 are at most 0.31 apart
        yield Finding(
            "problem",
            "4-bit weights",
            f"weights come back wrong from 4 bits on {device.type}, by {error:.2g}",
            "use --adapter lora; or install another version of bitsandbytes",
        )
    else:
        yield Finding("ok", "4-bit weights", f"bitsandbytes works on {device.type}: --qlora")


def check_threads() -> Iterator[Finding]:
    """Compare the threads of torch with the cores that this process may use."""
    threads, cores = torch.get_num_threads(), usable_cores()
    text = f"{threads} of torch on {cores} of {os.cpu_count()} cores"
    if threads > cores:
        advice = f"more threads than cores are slow: export OMP_NUM_THREADS={cores}"
        yield Finding("note", "threads", text, advice)
    elif 2 * threads <= cores and "OMP_NUM_THREADS" in os.environ:
        set_to = os.environ["OMP_NUM_THREADS"]
        yield Finding("note", "threads", text, f"OMP_NUM_THREADS is {set_to}: raise it for speed")
    else:
        yield Finding("ok", "threads", text)


def usable_cores(cgroup: Path = CGROUP) -> int:
    """Return how many cores this process may use: its affinity, and the quota of its cgroup."""
    affinity = getattr(os, "sched_getaffinity", None)  # Linux has it
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    quota, period = (*read_words(cgroup / "cpu.max"), "max", "max")[:2]
    if quota == "max":
        quota = (*read_words(cgroup / "cpu/cpu.cfs_quota_us"), "-1")[0]
        period = (*read_words(cgroup / "cpu/cpu.cfs_period_us"), "100000")[0]
    if int(quota) > 0:
        cores = min(cores, max(1, int(quota) // int(period)))
    return cores


def check_memory() -> Iterator[Finding]:
    """Find how much memory is free, within the limit of the cgroup."""
    free, total = free_memory()
    yield amount("memory", free, f"{free / GB:.1f} of {total / GB:.1f} GB free", LITTLE_MEMORY)


def free_memory(cgroup: Path = CGROUP) -> tuple[int, int]:
    """Return the bytes of memory that are free, and the total that this process may use."""
    memory = psutil.virtual_memory()
    free, total = memory.available, memory.total
    for limit, used in (
        ("memory.max", "memory.current"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
    ):
        most = (*read_words(cgroup / limit), "max")[0]
        now = (*read_words(cgroup / used), "0")[0]
        if most != "max" and int(most) < min(total, HUGE):
            total = int(most)
            free = min(free, max(0, total - int(now)))
    return free, total


def check_disk() -> Iterator[Finding]:
    """Find how much is free where files are written, and whether they can be."""
    places = {
        "runs": Path("runs"),
        "models and data": Path(constants.HF_HUB_CACHE),
        "cache": cache_home(),
        "temporary files": Path(tempfile.gettempdir()),
    }
    for use, path in places.items():
        folder = next(one for one in (path.absolute(), *path.absolute().parents) if one.is_dir())
        if not os.access(folder, os.W_OK):
            yield Finding(
                "problem", "disk", f"{use}: {folder} cannot be written", "choose another folder"
            )
            continue
        free = shutil.disk_usage(folder).free
        yield amount("disk", free, f"{use}: {free / GB:.1f} GB free in {path}", LITTLE_DISK)


def amount(subject: str, free: float, text: str, little: float) -> Finding:
    """Return a finding on an amount that is free: a note if it is little, a problem below that."""
    if free < little / 4:
        return Finding("problem", subject, text, f"runs may end for want of {subject}")
    if free < little:
        return Finding("note", subject, text, "enough for small models")
    return Finding("ok", subject, text)


def read_words(path: Path) -> list[str]:
    """Return the words of a file; none if it cannot be read."""
    try:
        return path.read_text(encoding="ascii").split()
    except (OSError, ValueError):
        return []
