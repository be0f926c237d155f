"""Values that no example shows: texts, numbers, nested things and paths."""

from __future__ import annotations

import datetime
import os
import random
from pathlib import Path
from typing import Any

TEXTS = (
    "", " ", "\n", "\0", "\x1b[31mred", "\u202eabc", "e\u0301", "\ufffe\uffff", "\U0001f993",
    "\ufeffx", "\u2028", "a\rb", "null", "nan", "-inf", "1e400", "0x10", "-1", "true", "[]", "{}",
    "9" * 5000, "x" * 300, "word " * 2000, "../../..", "/", ".", "~", "~nobody/x", "a,b,,c",
    "a:b:c", "a=b", "--", "-", "%s %n {0} {x}", "{{ 7 * 7 }}",
    "{% for i in range(10**9) %}x{% endfor %}",
    "<|im_end|>", "</s><s>", "http://[::1", "file:///etc/passwd", "'; DROP TABLE x", "\\", '"',
    "C:\\x",
)  # fmt: skip
NUMBERS = (
    0, -1, 1, 2, 3, 7, 1000, 2**31, 2**31 - 1, 2**63, 2**63 - 1, 2**64, -(2**63), 10**18, 10**30,
    0.0, -0.0, 0.1, 0.5, 1.0, -0.5, 1e-300, 1e-12, 1e-3, 5.5, 1e6, 1e18, 1e38, 1e300, -1e300,
    float("inf"), float("-inf"), float("nan"),
)  # fmt: skip


def text(rng: random.Random) -> str:
    """Return a text, at times of random characters."""
    if rng.random() < 0.7:
        return rng.choice(TEXTS)
    ends = rng.choice([0x80, 0x800, 0xD7FF])
    return "".join(chr(rng.randrange(1, ends)) for _ in range(rng.choice([1, 3, 20, 200])))


def number(rng: random.Random) -> Any:
    """Return a number, mostly one at a border."""
    return rng.choice(NUMBERS) if rng.random() < 0.8 else rng.uniform(-10, 10)


def nested(rng: random.Random, depth: int = 3) -> Any:
    """Return lists and mappings of odd values."""
    if depth == 0:
        return value(rng, depth=0)
    size = rng.randrange(4)
    if rng.random() < 0.5:
        return [value(rng, depth - 1) for _ in range(size)]
    return {text(rng)[:40]: value(rng, depth - 1) for _ in range(size)}


def deep(rng: random.Random) -> Any:
    """Return a list in lists, of a depth that parsers and recursions stumble over."""
    found: Any = []
    for _ in range(rng.choice([20, 60, 200])):
        found = [found] if rng.random() < 0.5 else {"x": found}
    return found


def value(rng: random.Random, depth: int = 2) -> Any:
    """Return a value that JSON can hold, of any type."""
    kind = rng.randrange(9)
    if kind < 3:
        return text(rng)
    if kind < 5:
        return number(rng)
    if kind < 6:
        return rng.choice([None, True, False])
    if kind < 8 and depth:
        return nested(rng, depth)
    return rng.choice([[], {}, "", 0, None])


def yaml_value(rng: random.Random) -> Any:
    """Return a value that YAML can hold: dates and sets as well."""
    if rng.random() < 0.8:
        return value(rng)
    return rng.choice(
        [
            datetime.date(2024, 1, 1),
            datetime.datetime(2024, 1, 1, 12, 30, tzinfo=datetime.UTC),
            b"bytes",
            {"a", "b"},
            10 ** rng.choice([20, 100, 4000]),
        ]
    )


def path(rng: random.Random, folder: Path) -> str:
    """Return a path at which there is no usual file, and make it in `folder` if need be."""
    name = f"odd{rng.randrange(10**6)}"
    kind = rng.randrange(8)
    if kind == 0:
        return rng.choice(["/dev/zero", "/dev/null", "/dev/stdin", "/proc/self/mem", "/proc"])
    if kind == 1:
        os.mkfifo(folder / name)
    elif kind == 2:
        (folder / name).mkdir()
    elif kind == 3:
        (folder / name).write_bytes(rng.randbytes(rng.choice([0, 1, 100])))
    elif kind == 4:
        (folder / name).symlink_to(name)
    elif kind == 5:
        return rng.choice(["~nobody/x", "~", ".", "..", "/", "", "\0", "x" * 300, "a/" * 2000])
    elif kind == 6:
        return text(rng)
    suffix = rng.choice(["", ".jsonl", ".json", ".csv", ".parquet", ".yaml", ".py", ".gz"])
    if suffix and (folder / name).is_symlink() + (folder / name).exists():
        (folder / name).rename(folder / (name + suffix))
    return str(folder / (name + suffix)) if rng.random() < 0.7 else name + suffix


def damage(rng: random.Random, data: bytes) -> bytes:
    """Return a file as an interrupted download, a bad disk or a wrong editor leaves it."""
    kind = rng.randrange(8)
    at = rng.randrange(len(data) + 1)
    if kind == 0:
        return data[:at]
    if kind == 1:
        return data[:at] + rng.randbytes(rng.choice([1, 8])) + data[at + 1 :]
    if kind == 2:
        return data[at:] + data[:at]
    if kind == 3:
        return (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 9\n"
        )
    if kind == 4:
        return b"<!DOCTYPE html><html><body>404 not found</body></html>"
    if kind == 5:
        return data.decode("utf-8", "replace").encode("utf-16")
    if kind == 6:
        return b""
    return data + data[:at]


def change(rng: random.Random, value: Any) -> Any:
    """Return JSON with one of its values, at any depth, replaced, deleted or added."""
    if isinstance(value, dict) and value and rng.random() < 0.9:
        value = dict(value)
        key = rng.choice(sorted(value))
        kind = rng.random()
        if kind < 0.15:
            del value[key]
        elif kind < 0.25:
            value[text(rng)[:60]] = value[key]
        else:
            value[key] = change(rng, value[key])
        return value
    if isinstance(value, list) and value and rng.random() < 0.9:
        value = list(value)
        at = rng.randrange(len(value))
        value[at] = change(rng, value[at])
        return value
    return globals()["value"](rng)
