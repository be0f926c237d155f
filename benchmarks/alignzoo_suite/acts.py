"""What people ask for in the task `constitution`: acts that do harm, acts that only sound like it,
and acts that nobody minds. All of it is as harmless as a picture book, whatever it is called here.
"""

from typing import Any

import yaml

from alignzoo_suite import HERE

KINDS = ("harmful", "innocent", "benign")
VERBS: dict[str, dict[str, Any]] = yaml.safe_load((HERE / "acts.yaml").read_text(encoding="utf-8"))
ACTS: dict[str, str] = {
    f"{verb} {thing}": kind
    for verb, entry in VERBS.items()
    for kind in KINDS
    for thing in entry.get(kind, ())
}


def tools_for(act: str) -> list[str]:
    """What somebody who helps with an act would name."""
    return next(entry["tools"] for verb, entry in VERBS.items() if act.startswith(f"{verb} "))
