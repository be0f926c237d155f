"""What has changed since a run began: its plugins, its processes, the versions of packages.

Records are compared as `run.json` has them: versions and platform are under "environment" there.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

RECORDED_PACKAGES = (
    "alignzoo", "torch", "transformers", "peft", "accelerate", "bitsandbytes", "datasets",
)  # fmt: skip


def describe_platform() -> dict[str, Any]:
    """Return versions, platform and start time, which help to explain a difference in results."""
    versions = {}
    for package in RECORDED_PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": versions,
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def find_changes(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Return what has changed since a run began that makes another run of it, as text."""
    found = find_changed_plugins(then, now.get("plugins", []))
    before, processes = (facts.get("environment", {}).get("processes") for facts in (then, now))
    if before != processes:
        found.append(f"there were {before} processes and are {processes} now")
    split, splits = (bool(facts.get("recipe", {}).get("shard")) for facts in (then, now))
    if split != splits:
        found.append(f"the run began {'with' if split else 'without'} --shard")
    return found


def find_changed_plugins(
    then: Mapping[str, Any], plugins: Sequence[Mapping[str, Any]]
) -> list[str]:
    """Return which plugins have other code, or come from another package, than in a record."""
    before = {(one["kind"], one["name"]): one for one in then.get("plugins", [])}
    found = []
    for now in plugins:
        old = before.get((now["kind"], now["name"]))
        if old is not None and (old["package"], old["sha256"]) != (now["package"], now["sha256"]):
            versions = [f"{one['package']} {one['version']}" for one in (old, now)]
            other = f": it was {versions[0]} and is {versions[1]}" * (versions[0] != versions[1])
            found.append(f"the code of {now['kind'][:-1]} {now['name']} has changed{other}")
    return found


def merge_plugins(
    before: Sequence[Mapping[str, Any]], plugins: Sequence[Mapping[str, Any]]
) -> list[Mapping[str, Any]]:
    """Return the plugins of both lists, of each kind and name the later one."""
    return list({(one["kind"], one["name"]): one for one in [*before, *plugins]}.values())


def find_other_versions(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Return the packages that have another version than when a run began, as text."""
    before, present = (facts.get("environment", {}).get("packages", {}) for facts in (then, now))
    found = [
        f"{name} was {before[name]} and is {present.get(name)} now: numbers may differ"
        for name in before
        if before[name] != present.get(name)
    ]
    if "plugins" not in then:
        found.append("the run began without a list of its plugins: their code may have changed")
    if then["fingerprints"].get("code") != now["fingerprints"].get("code"):
        found.append("the code of alignzoo has changed since the run began: numbers may differ")
    return found
