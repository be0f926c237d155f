"""Measure the machine's fp32 rate of matrix products: `python gemm.py THREADS`.

Prints GFLOP per core-second of CPU time by shape, which other load hardly changes.
"""

from __future__ import annotations

import json
import statistics
import sys
import time

import torch

SHAPES = {"2048x2048x2048": (2048, 2048, 2048), "1024x256x768": (1024, 256, 768)}


def measure_rate(m: int, k: int, n: int, repeats: int = 7) -> float:
    """Return GFLOP per core-second of `[m, k] @ [k, n]`, the median over batches of about 0.2 s."""
    a, b = torch.randn(m, k), torch.randn(k, n)
    flops = 2.0 * m * k * n
    count = max(1, round(2e10 / flops))
    torch.mm(a, b)
    rates = []
    for _ in range(repeats):
        started = time.process_time()
        for _ in range(count):
            torch.mm(a, b)
        rates.append(flops * count / (time.process_time() - started) / 1e9)
    return statistics.median(rates)


if __name__ == "__main__":
    torch.set_num_threads(int(sys.argv[1]))
    print(json.dumps({name: measure_rate(*shape) for name, shape in SHAPES.items()}))
