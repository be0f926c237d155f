"""A cache on disk of the reference's log-probs for the rows of a run.

Rows are cached in parts, one safetensors file each, in a folder per model. A change of the data
changes only the parts of the rows that changed.
"""

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
from alignzoo.fingerprints import hash_sources
from alignzoo.ledger import Cost, sum_costs
from alignzoo.policy import Policy
from alignzoo.policy.known import KEY_BYTES, ReferenceCache, Values, completion_key, completion_keys
from alignzoo.run import Run

GROUPS_PER_PART = 256  # the mean is between a half and a whole of it
NUMERIC_PACKAGES = ("torch", "transformers", "bitsandbytes")  # their versions may change values


def cache_reference(run: Run) -> None:
    """Give the run the reference's log-probs of all its rows: read those on disk, compute the rest.

    All of it is charged to the ledger, so that what a run comes to does not depend on the cache;
    what was read is also counted as saved. All processes call it.
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
    # Another run may write meanwhile: what one process did not find, all treat as missing.
    lacking = sorted(set().union(*run.gather([lacking])))
    computed = compute_parts(run, {name: parts[name] for name in lacking}, folder)
    known = values | computed
    run.forwards.known = ReferenceCache(known).find
    costs = {name: cost_of(run, part) for name, part in parts.items()}
    total = sum_costs(costs.values())
    saved = sum_costs(cost for name, cost in costs.items() if name not in lacking)
    facts = {
        "folder": str(folder),
        "completions_read": len(known) - len(computed),
        "completions_computed": len(computed),
        "flops": total.flops,
        "tokens": total.tokens,
        "saved_flops": saved.flops,
        "saved_tokens": saved.tokens,
    }
    # A resumed run has saved what it had when it began; the main process has the record of that.
    facts = run.gather([run.record.set_fact_once("reference_cache", facts)])[0]
    run.ledger.charge("reference", total)
    run.ledger.save(Cost(facts["saved_flops"], facts["saved_tokens"]))
    run.record.set_status("running", run.ledger)
    run.ui.note(
        f"the reference's log-probs: {len(known) - len(computed):,} completions read, "
        f"{len(computed):,} computed, kept in {folder}"
    )


def compute_parts(run: Run, parts: dict[str, list[Example]], folder: Path) -> Values:
    """Return the log-probs of parts, each computed and written by one process."""
    own: list[Values] = []
    with run.ui.items(sum(map(len, parts.values())), "the reference's log-probs") as advance:
        for name in run.shard(list(parts)):
            values = compute_part(run, parts[name])
            write_part(run, folder / f"{name}.safetensors", values)
            own.append(values)
            advance(len(parts[name]))
    gathered: Values = {}
    for values in run.gather(own):
        gathered.update(values)
    return gathered


def compute_part(run: Run, examples: Sequence[Example]) -> Values:
    """Return the log-probs of the completions of a part by key, in float32."""
    values: Values = {}
    for micro in collate(examples).split(run.micro_tokens):
        with run.model.meter.covered():  # `cache_reference` charges all parts
            logprobs = run.model.reference(micro.to(run.device)).logprobs.float().cpu()  # (N, T)
        for key, row, n in zip(
            completion_keys(micro), logprobs, micro.lengths.tolist(), strict=True
        ):
            values[key] = row[:n].clone()
    return values


def cost_of(run: Run, examples: Sequence[Example]) -> Cost:
    """Return what it costs to compute a part, whether it was computed now or read."""
    micros = collate(examples).split(run.micro_tokens)
    return sum_costs(run.model.cost(micro, reference=True) for micro in micros)


def write_part(run: Run, path: Path, values: Values) -> None:
    """Write a part. If it cannot be written, say so and go on."""
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
        run.ui.note(f"the reference's log-probs could not be cached: {error}")


def read_part(run: Run, path: Path) -> Values | None:
    """Read what `write_part` wrote; return None if the file is missing or corrupt."""
    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in ("keys", "lengths", "logprobs")}
            intact = (file.metadata() or {}).get("sha256") == hash_tensors(tensors)
    except (SafetensorError, OSError):
        intact = False
    if not intact:
        run.ui.note(f"{path} is damaged; its log-probs are computed again")
        return None
    keys = [bytes(key) for key in tensors["keys"].numpy()]
    return dict(zip(keys, tensors["logprobs"].split(tensors["lengths"].tolist()), strict=True))


def hash_tensors(tensors: dict[str, Tensor]) -> str:
    """Return the SHA-256 of tensors, in the order of their names."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(tensors[name].numpy().tobytes())
    return digest.hexdigest()


def group_key(example: Example) -> bytes:
    """Return a hash of a prompt and its completions."""
    prompt, *rest = (np.array(ids, np.int64) for ids in [example.prompt, *example.completions])
    keys = [completion_key(prompt, completion) for completion in rest]
    return hashlib.blake2b(b"".join(keys), digest_size=KEY_BYTES).digest()


def split_into_parts(examples: Iterable[Example]) -> dict[str, list[Example]]:
    """Split the distinct groups into parts by name, whatever the order of the examples.

    The first bits of its key determine the part of a group, so that a row that is changed, added or
    removed changes only its own part (as long as the number of groups stays about the same).
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
    """Return a hash of all that the log-probs depend on: weights, precision, code, machine."""
    facts = {
        **model.reference_facts(),
        "code": hash_sources(Path(__file__).parents[1] / "policy"),
        "packages": {name: installed_version(name) for name in NUMERIC_PACKAGES},
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:32]


def installed_version(package: str) -> str | None:
    """Return the version of a package, None if it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None
