"""Cards by name: facts of NVIDIA's data sheets and of the white papers on its architectures.

Rates are dense, without sparsity, and those of bf16 accumulate in float32; of a data center card
with several forms, they are those of the SXM form. Turing and Volta have no bf16.
"""

from __future__ import annotations

from typing import NamedTuple


class Card(NamedTuple):
    """A card: memory in GB, rates in TFLOP/s (`bf16` is None if it has none), bandwidth in GB/s."""

    memory: float
    bf16: float | None
    fp32: float
    bandwidth: float


CARDS = {
    # Turing and Volta
    "t4": Card(16, None, 8.1, 320),
    "rtx-2080-ti": Card(11, None, 13.4, 616),
    "v100-16gb": Card(16, None, 15.7, 900),
    "v100-32gb": Card(32, None, 15.7, 900),
    # Ampere
    "rtx-3060-12gb": Card(12, 25.5, 12.7, 360),
    "rtx-3070": Card(8, 40.6, 20.3, 448),
    "rtx-3080-10gb": Card(10, 59.5, 29.8, 760),
    "rtx-3090": Card(24, 71, 35.6, 936),
    "a10": Card(24, 125, 31.2, 600),
    "a100-40gb": Card(40, 312, 19.5, 1555),
    "a100-80gb": Card(80, 312, 19.5, 2039),
    # Ada
    "rtx-4060-8gb": Card(8, 30.2, 15.1, 272),
    "rtx-4060-ti-16gb": Card(16, 44.1, 22.1, 288),
    "rtx-4070": Card(12, 58.3, 29.1, 504),
    "rtx-4080": Card(16, 97.5, 48.7, 717),
    "rtx-4090": Card(24, 165.2, 82.6, 1008),
    "l4": Card(24, 121, 30.3, 300),
    "l40s": Card(48, 362, 91.6, 864),
    # Hopper
    "h100": Card(80, 989, 67, 3350),
    "h200": Card(141, 989, 67, 4800),
    # Blackwell
    "rtx-5090": Card(32, 209.5, 104.8, 1792),
}
