"""The log-probs that a run has at hand, and how it comes by them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from alignzoo.batch import Example, collate
from alignzoo.files import cache_home, write_bytes
from alignzoo.ledger import Cost
from alignzoo.policy import Policy
from alignzoo.policy.known import KEY_BYTES, ReferenceCache, Values, completion_key, completion_keys
from alignzoo.record import hash_sources
from alignzoo.run import Run


def cache_reference(run: Run) -> None:
    """Give the run the log-probs of its rows: those on disk are read, the others computed.

    What was computed is charged to the ledger; a run that is resumed is charged as it was.
    """
    parts = split_into_parts(e for e in [*run.data.train, *run.data.test] if e.completions)
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
    run.forwards.known = ReferenceCache(known).find
    facts = {
        "folder": str(folder),
        "completions_read": len(known) - len(computed),
        "completions_computed": len(computed),
        "flops": cost.flops,
        "tokens": cost.tokens,
    }
    # All processes charge what the main one knows: it alone has the record of a resumed run.
    facts = run.gather([run.record.facts.setdefault("reference_cache", facts)])[0]
    run.ledger.charge("reference", Cost(facts["flops"], facts["tokens"]))
    run.record.set_status("running", run.ledger)
    run.ui.note(
        f"the reference's log-probs: {len(known) - len(computed):,} completions read, "
        f"{len(computed):,} computed, kept in {folder}"
    )


def compute_parts(run: Run, parts: dict[str, list[Example]], folder: Path) -> tuple[Values, Cost]:
    """The log-probs of whole parts, each computed by one process, which also writes it."""
    own: list[tuple[Values, Cost]] = []
    with run.ui.items(sum(map(len, parts.values())), "the reference's log-probs") as advance:
        for name in run.shard(list(parts)):
            values, cost = compute_part(run, parts[name])
            write_part(run, folder / f"{name}.safetensors", values)
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
        total = total.plus(run.model.cost(micro))
        logprobs = run.model.reference(micro.to(run.device)).logprobs.float().cpu()
        for key, row, n in zip(
            completion_keys(micro), logprobs, micro.lengths.tolist(), strict=True
        ):
            values[key] = row[:n].clone()
    return values, total


def write_part(run: Run, path: Path, values: Values) -> None:
    """Write a part; a disk that takes nothing is no reason to stop."""
    tensors = {
        "keys": torch.frombuffer(bytearray(b"".join(values)), dtype=torch.uint8).view(
            -1, KEY_BYTES
        ),
        "lengths": torch.tensor([len(row) for row in values.values()]),
        "logprobs": torch.cat(list(values.values())),
    }
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(path, save(tensors, metadata={"sha256": hash_tensors(tensors)}))
    except OSError as error:
        run.ui.note(f"the reference's log-probs cannot be kept: {error}")


def read_part(run: Run, path: Path) -> Values | None:
    """What `write_part` wrote; None where there is nothing, or nothing that can be trusted."""
    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in ("keys", "lengths", "logprobs")}
            sound = (file.metadata() or {}).get("sha256") == hash_tensors(tensors)
    except (SafetensorError, OSError):
        sound = False
    if not sound:
        run.ui.note(f"{path} is damaged, and is computed anew")
        return None
    keys = [bytes(key) for key in tensors["keys"].numpy()]
    return dict(zip(keys, tensors["logprobs"].split(tensors["lengths"].tolist()), strict=True))


def hash_tensors(tensors: dict[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(tensors[name].numpy().tobytes())
    return digest.hexdigest()


GROUPS_PER_PART = 256  # groups in a part, on average at most


NUMERIC_PACKAGES = ("torch", "transformers", "bitsandbytes")  # whose versions may change the values


def group_key(example: Example) -> bytes:
    prompt, *rest = (np.array(ids, np.int64) for ids in [example.prompt, *example.completions])
    keys = [completion_key(prompt, completion) for completion in rest]
    return hashlib.blake2b(b"".join(keys), digest_size=KEY_BYTES).digest()


def split_into_parts(examples: Iterable[Example]) -> dict[str, list[Example]]:
    """Different groups in parts, by name, in an order that is theirs.

    A group's part is given by the first bits of its key, so that a row that is changed, added or
    taken away changes no part but its own (as long as the number of groups is much the same).
    """
    groups = {group_key(example): example for example in examples}
    bits = (len(groups) // GROUPS_PER_PART).bit_length()
    parts: dict[int, list[bytes]] = {}
    for key in sorted(groups):
        parts.setdefault(int.from_bytes(key[:4], "big") >> (32 - bits), []).append(key)
    return {
        hashlib.sha256(b"".join(keys)).hexdigest()[:32]: [groups[key] for key in keys]
        for keys in parts.values()
    }


def model_key(model: Policy) -> str:
    """A digest of all that the reference's values depend on: weights, precision, code, machine."""
    facts = {
        **model.reference_facts(),
        "code": hash_sources(Path(__file__).parents[1] / "policy"),
        "packages": {name: installed_version(name) for name in NUMERIC_PACKAGES},
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:32]


def installed_version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
