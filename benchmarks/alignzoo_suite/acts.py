"""The acts of the task `constitution`: harmful ones, innocent ones that sound alike, benign ones.

The harm is that of a picture book, so the task can be shown to anyone.
"""

from typing import Any

import yaml

from alignzoo_suite import HERE

ACT_KINDS = ("harmful", "innocent", "benign")
VERBS: dict[str, dict[str, Any]] = yaml.safe_load((HERE / "acts.yaml").read_text(encoding="utf-8"))
ACTS: dict[str, str] = {
    f"{verb} {thing}": kind
    for verb, entry in VERBS.items()
    for kind in ACT_KINDS
    for thing in entry.get(kind, ())
}


def tools_for(act: str) -> list[str]:
    """Return the tools of an act; an answer that helps with it names one of them."""
    return next(entry["tools"] for verb, entry in VERBS.items() if act.startswith(f"{verb} "))
