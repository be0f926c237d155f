"""The log-probs that a run has at hand, and how it comes by them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from alignzoo.batch import Batch, Example, collate
from alignzoo.files import cache_home
from alignzoo.reference_cache.keys import keys_of, model_key, parts_of
from alignzoo.reference_cache.parts import Values, keep_part, read_part

if TYPE_CHECKING:
    from alignzoo.run import Run


@dataclass(frozen=True)
class ReferenceCache:
    values: Values

    def find(self, batch: Batch) -> Tensor | None:
        """The log-probs of a batch, `[N, T]`; None where one of its completions is not known."""
        logprobs = torch.zeros(batch.tokens.shape)
        for row, key in zip(logprobs, keys_of(batch), strict=True):
            found = self.values.get(key)
            if found is None:
                return None
            row[: len(found)] = found
        return logprobs.to(batch.tokens.device)


class Cost(NamedTuple):
    """What the ledger counts."""

    flops: float = 0.0
    tokens: int = 0

    def plus(self, other: Cost) -> Cost:
        return Cost(self.flops + other.flops, self.tokens + other.tokens)


def cache_reference(run: Run) -> None:
    """Give the run the log-probs of its rows: those on disk are read, the others computed.

    What was computed is charged to the ledger; a run that is resumed is charged as it was.
    """
    parts = parts_of(e for e in [*run.data.train, *run.data.test] if e.completions)
    if not parts:
        return
    folder = cache_home() / "reference" / model_key(run.model)
    values: Values = {}
    lacking = []
    for name in parts:
        part = read_part(run, folder / f"{name}.safetensors")
        if part is None:
            lacking.append(name)
        else:
            values.update(part)
    # Others may write meanwhile: what one process has not found, all take as lacking.
    lacking = sorted(set().union(*run.gather([lacking])))
    computed, cost = compute_parts(run, {name: parts[name] for name in lacking}, folder)
    known = values | computed
    run.reference_cache = ReferenceCache(known)
    facts = {
        "folder": str(folder),
        "completions_read": len(known) - len(computed),
        "completions_computed": len(computed),
        "flops": cost.flops,
        "tokens": cost.tokens,
    }
    # All processes charge what the main one knows: it alone has the record of a resumed run.
    facts = run.gather([run.record.facts.setdefault("reference_cache", facts)])[0]
    run.ledger.spend("reference", flops=facts["flops"], tokens=facts["tokens"])
    run.record.set_status("running", run.ledger)
    run.ui.note(
        f"the reference's log-probs: {len(known) - len(computed):,} completions read, "
        f"{len(computed):,} computed, kept in {folder}"
    )


def compute_parts(run: Run, parts: dict[str, list[Example]], folder: Path) -> tuple[Values, Cost]:
    """The log-probs of whole parts, each computed by one process, which also writes it."""
    own: list[tuple[Values, Cost]] = []
    with run.ui.items(sum(map(len, parts.values())), "the reference's log-probs") as advance:
        for name in run.share(list(parts)):
            values, cost = compute_part(run, parts[name])
            keep_part(run, folder / f"{name}.safetensors", values)
            own.append((values, cost))
            advance(len(parts[name]))
    everyone: Values = {}
    total = Cost()
    for values, cost in run.gather(own):
        everyone.update(values)
        total = total.plus(cost)
    return everyone, total


def compute_part(run: Run, examples: Sequence[Example]) -> tuple[Values, Cost]:
    values: Values = {}
    total = Cost()
    for micro in collate(examples).split(run.micro_tokens):
        work = run.model.work(micro)
        total = total.plus(Cost(run.model.flops.forward(*work), work.tokens))
        logprobs = run.model.reference(micro.to(run.device)).logprobs.float().cpu()
        for key, row, n in zip(keys_of(micro), logprobs, micro.lengths.tolist(), strict=True):
            values[key] = row[:n].clone()
    return values, total
