"""Account for every weight of a model after loading: none random, none left over, none NaN.

transformers and PEFT initialise at random what they do not find, and skip what they do not know.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any

import torch
from torch import nn

from alignzoo.errors import BadInput, count

# Tensors of older files that models compute by themselves now: masks, frequencies, positions.
COMPUTED = re.compile(r"\b(attn|attention)\.(masked_)?bias$|inv_freq$|position_ids$|num_batches")
WRAPPERS = {
    "_orig_mod.": "torch.compile",
    "module.": "DistributedDataParallel",
    "pretrained_model.": "TRL's value-head wrapper",
    "base_model.model.": "PEFT",
    "_fsdp_wrapped_module.": "FSDP",
}


def check_accounted(
    model: nn.Module, report: Mapping[str, Any], where: str, optional: Collection[str] = ()
) -> str | None:
    """Raise BadInput unless all weights were read, and all that was stored is the model's.

    `report` is the loading info of transformers, and `optional` names weights that may be missing.
    Stored tensors of other heads and towers may be left over, and a note on them is returned; those
    of the model's own layers may not.
    """
    mismatched = sorted(report["mismatched_keys"])
    if mismatched:
        name, stored, expected = mismatched[0]
        raise BadInput(
            f"{name} is {list(stored)} in the file and {list(expected)} by config.json"
            + _more(len(mismatched) - 1),
            where=where,
            hint="use the config.json that the weights were saved with",
        )
    missing = sorted(set(report["missing_keys"]) - set(optional))
    unexpected = sorted(report["unexpected_keys"])
    if missing:
        total = len(model.state_dict())
        rest = f"; the file has {len(unexpected):,} others, as {min(unexpected, default='')}"
        raise BadInput(
            f"{len(missing):,} of {total:,} weights are not in the file, as {missing[0]}"
            + rest * bool(unexpected),
            where=where,
            hint=_wrapper_hint(unexpected)
            or "an incomplete copy, or a config.json of another model; "
            "random weights are used with --random-init alone",
        )
    modules = {name for name, _ in model.named_modules()}
    modules -= {"", getattr(model, "base_model_prefix", "")}
    foreign = [n for n in unexpected if _is_inside(n, modules) and not COMPUTED.search(n)]
    if foreign:
        raise BadInput(
            f"the file has {len(foreign):,} weights that the model does not use, as {foreign[0]}",
            where=where,
            hint="config.json describes another model: fewer layers, or other parts of a layer",
        )
    left = [name for name in unexpected if not COMPUTED.search(name)]
    if not left:
        return None
    return f"{count(len(left), 'tensor')} of the file left out, of no part of the model: {left[0]}"


def _is_inside(name: str, modules: Collection[str]) -> bool:
    """Return True if a module of the model, not the whole, contains this name."""
    parts = name.split(".")
    return any(".".join(parts[:n]) in modules for n in range(1, len(parts)))


def _wrapper_hint(names: Iterable[str]) -> str | None:
    for name in names:
        for prefix, tool in WRAPPERS.items():
            if prefix in name:
                return f"saved from inside {tool}: take {prefix!r} out of the names of the tensors"
    return None


def check_adapter_keys(
    missing: Collection[str], unexpected: Collection[str], stored: int, where: str
) -> None:
    """Raise BadInput unless an adapter's tensors, `stored` many, and its layers correspond."""
    if unexpected:
        all_of_them = "none" if len(unexpected) >= stored else f"{len(unexpected)} not one"
        first = min(unexpected)
        raise BadInput(
            f"{all_of_them} of the adapter's {stored:,} tensors belongs to a layer of the base: "
            f"{first}",
            where=where,
            hint=_wrapper_hint([first.removeprefix("base_model.model.")])
            or "use the base that it was trained on",
        )
    if missing:
        raise BadInput(
            f"the adapter lacks {len(missing):,} tensors, as {min(missing)}",
            where=where,
            hint="an incomplete copy, or an adapter_config.json of another adapter",
        )


@torch.no_grad()
def check_finite(weights: Iterable[tuple[str, nn.Parameter]], where: str) -> None:
    """Raise BadInput, with the name, if a weight is NaN or infinite."""
    broken = [
        name
        for name, p in weights
        # A sum takes no memory; it may overflow where no weight is infinite.
        if p.is_floating_point()
        and p.element_size() > 1
        and not p.sum(dtype=torch.float32).isfinite()
        and not p.isfinite().all()
    ]
    if broken:
        raise BadInput(
            f"weights are not finite: {broken[0]} holds NaN or infinity" + _more(len(broken) - 1),
            where=where,
            hint="the training that saved them had diverged; use an earlier checkpoint",
        )


def _more(n: int) -> str:
    return f" (and {n:,} more)" if n > 0 else ""
