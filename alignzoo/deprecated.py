"""Old names of modules and of what they export, which warn and lead to the new ones.

They stay for one release. `import alignzoo` installs a finder for the modules of `MOVED`, so that
`from alignzoo.samplers import experience` still works and says what to write instead.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

from alignzoo.errors import warn_renamed

# An old module, and the one that has its names now.
MOVED: Mapping[str, str] = {
    "alignzoo.alarms": "alignzoo.training.alarms",
    "alignzoo.experience": "alignzoo.training.rounds",
    "alignzoo.hookspecs": "alignzoo.discovery",
    "alignzoo.judges": "alignzoo_judges",
    "alignzoo.kinds": "alignzoo.policy.kinds",
    "alignzoo.memory": "alignzoo.ledger",
    "alignzoo.on_policy": "alignzoo.training.on_policy",
    "alignzoo.pace": "alignzoo.remote",
    "alignzoo.plugins": "alignzoo.discovery",
    "alignzoo.policy_gradient": "alignzoo.functional",
    "alignzoo.preference": "alignzoo.functional",
    "alignzoo.samplers": "alignzoo.rollout",
    "alignzoo.samplers.sampler": "alignzoo.rollout",
    "alignzoo.samplers.sampling": "alignzoo.rollout",
}
# Old names in those modules, and in modules that stayed, by what they are called now.
RENAMED: Mapping[str, Mapping[str, str]] = {
    "alignzoo": {"joined": "alignzoo.batch:concat"},
    "alignzoo.functional": {
        "REWARD": "alignzoo.functional:REWARD_PREFIX",
        "spread": "alignzoo.functional:nanstd",
    },
    "alignzoo.policy_gradient": {
        "REWARD": "alignzoo.functional:REWARD_PREFIX",
        "spread": "alignzoo.functional:nanstd",
    },
    "alignzoo.plugins": {"manager": "alignzoo.hooks:manager"},
    "alignzoo.samplers": {
        "SAMPLED": "alignzoo.rollout:INFERENCE",
        "Mismatch": "alignzoo.rollout:LogprobGap",
        "credit": "alignzoo.rollout:add_advantages",
        "experience": "alignzoo.rollout:rollout",
        "gathered": "alignzoo.rollout:batch_completions",
        "journal": "alignzoo_judges:keep_journal",
        "judged": "alignzoo.rollout:with_rewards",
        "observe": "alignzoo.rollout:log_completions",
        "tied": "alignzoo.rollout:is_tied",
    },
}


def resolve_name(module: str, name: str) -> Any:
    """Return what an old name in an old module stands for, with a warning that names the new one.

    Raise `AttributeError` if the module never had it.
    """
    new = RENAMED.get(module, {}).get(name)
    if new is None:
        if module not in MOVED:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        new = f"{MOVED[module]}:{name}"
    home, _, attribute = new.partition(":")
    value = getattr(import_module(home), attribute)
    warn_renamed(f"{module}.{name}", f"{home}.{attribute}", stacklevel=4)
    return value


class MovedModules(MetaPathFinder, Loader):
    """Finds the modules of `MOVED`: empty ones, whose names are looked up where they are now."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return a spec for a module that has moved, None for any other."""
        return ModuleSpec(fullname, self, is_package=True) if fullname in MOVED else None

    def exec_module(self, module: ModuleType) -> None:
        """Give the module a `__getattr__` that looks a name up in its new home."""
        name = module.__name__

        def find(attribute: str) -> Any:
            if attribute.startswith("__"):
                raise AttributeError(attribute)
            return resolve_name(name, attribute)

        module.__getattr__ = find  # type: ignore[method-assign]


def install() -> None:
    """Let old modules be imported, once."""
    if not any(isinstance(finder, MovedModules) for finder in sys.meta_path):
        sys.meta_path.append(MovedModules())
