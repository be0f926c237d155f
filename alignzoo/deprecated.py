"""Former names of modules and of what they export: they warn, and lead to the present ones.

They stay for one release. `import alignzoo` installs a finder for the modules of `MODULES`, so that
`from alignzoo.samplers import experience` still works, and says what to write instead. A module
that stayed and whose names changed ends with `__getattr__ = deprecated.names_of(__name__)`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

from alignzoo.errors import warn_renamed

# A former module, and the one that has its names now.
MODULES: Mapping[str, str] = {
    "alignzoo.hookspecs": "alignzoo.discovery",
    "alignzoo.judges": "alignzoo_judges",
    "alignzoo.on_policy": "alignzoo.training.on_policy",
    "alignzoo.plugins": "alignzoo.discovery",
    "alignzoo.policy_gradient": "alignzoo.functional",
    "alignzoo.preference": "alignzoo.functional",
    "alignzoo.samplers": "alignzoo.rollout",
}
# Former names, and what they are called now.
NAMES: Mapping[str, str] = {
    "alignzoo.joined": "alignzoo.concat",
    "alignzoo.data.Order": "alignzoo.data.EpochOrder",
    "alignzoo.data.Share": "alignzoo.data.SourceSize",
    "alignzoo.data.Source": "alignzoo.data.DataSpec",
    "alignzoo.data.rows_of": "alignzoo.data.load_rows",
    "alignzoo.data.sources_of": "alignzoo.data.parse_data",
    "alignzoo.data.steps_in": "alignzoo.data.split_steps",
    "alignzoo.evaluation.estimate": "alignzoo.evaluation.mean_with_interval",
    "alignzoo.judges.judge_of": "alignzoo_judges.resolve_judge",
    "alignzoo.plugins.KINDS": "alignzoo.discovery.GROUPS",
    "alignzoo.plugins.find": "alignzoo.discovery.find_plugin",
    "alignzoo.plugins.load": "alignzoo.discovery.load_plugin",
    "alignzoo.plugins.load_file": "alignzoo.discovery.load_plugin_file",
    "alignzoo.plugins.manager": "alignzoo.hooks.make_manager",
    "alignzoo.plugins.source_of": "alignzoo.discovery.plugin_source",
    "alignzoo.record.core_hash": "alignzoo.fingerprints.core_hash",
    "alignzoo.record.hash_sources": "alignzoo.fingerprints.hash_sources",
    "alignzoo.policy.States": "alignzoo.policy.HiddenState",
    "alignzoo.policy.find": "alignzoo.policy.locate_model",
    "alignzoo.policy_gradient.REWARD": "alignzoo.functional.REWARD_PREFIX",
    "alignzoo.policy_gradient.spread": "alignzoo.functional.nanstd",
    "alignzoo.rewards.Named": "alignzoo.rewards.RewardSpec",
    "alignzoo.rewards.PREFIX": "alignzoo.rewards.PLUGIN_PREFIX",
    "alignzoo.rewards.judge": "alignzoo.rewards.score_completions",
    "alignzoo.rewards.rewards_of": "alignzoo.rewards.resolve_rewards",
    "alignzoo.samplers.Mismatch": "alignzoo.rollout.LogprobGap",
    "alignzoo.samplers.SAMPLED": "alignzoo.rollout.INFERENCE",
    "alignzoo.samplers.credit": "alignzoo.rollout.add_advantages",
    "alignzoo.samplers.experience": "alignzoo.rollout.rollout",
    "alignzoo.samplers.gathered": "alignzoo.rollout.batch_completions",
    "alignzoo.samplers.journal": "alignzoo_judges.keep_journal",
    "alignzoo.samplers.judged": "alignzoo.rollout.with_rewards",
    "alignzoo.samplers.observe": "alignzoo.rollout.log_completions",
    "alignzoo.samplers.sampler_of": "alignzoo.rollout.load_sampler",
    "alignzoo.samplers.tied": "alignzoo.rollout.is_tied",
}

# Former attributes of a `Run`, and where they are now.
RUN_ATTRIBUTES: Mapping[str, str] = {
    "learn_reward": "train_reward",
    "observe": "log_mean",
    "observed": "round_metrics.numbers",
    "rows_per_round": "schedule.rows_per_round",
    "share": "shard",
    "tokens": "gather_masked",
    "uncharged": "free_of_charge",
}


def names_of(module: str) -> Callable[[str], Any]:
    """Return a `__getattr__` for a module, which finds its former names and warns of them."""

    def find(name: str) -> Any:
        former = f"{module}.{name}"
        present = NAMES.get(former)
        if present is None and module in MODULES and not name.startswith("__"):
            present = f"{MODULES[module]}.{name}"
        if present is None:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        home, _, attribute = present.rpartition(".")
        value = getattr(import_module(home), attribute)
        warn_renamed(former, present)
        return value

    return find


class FormerModules(MetaPathFinder, Loader):
    """Finds the modules of `MODULES`: empty ones, whose names are looked up where they are now."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return a spec for a former module, None for any other."""
        return ModuleSpec(fullname, self, is_package=True) if fullname in MODULES else None

    def exec_module(self, module: ModuleType) -> None:
        """Give the module a `__getattr__` that looks a name up in its present home."""
        module.__getattr__ = names_of(module.__name__)  # type: ignore[method-assign]


def install() -> None:
    """Let former modules be imported, once."""
    if not any(isinstance(finder, FormerModules) for finder in sys.meta_path):
        sys.meta_path.append(FormerModules())
