"""Print the name of the first GPU as a name of a file, such as `nvidia-h100-80gb-hbm3`."""

from __future__ import annotations

import re
import sys

import torch


def card_name() -> str:
    """Return the name of the GPU as its driver gives it."""
    if not torch.cuda.is_available():
        sys.exit("there is no GPU that torch can use: torch.cuda.is_available() is False")
    return torch.cuda.get_device_name(0)


if __name__ == "__main__":
    print(re.sub(r"[^a-z0-9]+", "-", card_name().lower()).strip("-"))
