"""From the text of `--judge` or `judge=` to a judge."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

from alignzoo import Run, discovery
from alignzoo.data import Codec
from alignzoo.errors import BadInput
from alignzoo.ledger import Ledger
from alignzoo.named import build_plugin
from alignzoo.options import build, check_values, split_options
from alignzoo.policy import ModelSpec, load_policy
from alignzoo.remote import check_url, is_url, refuse_keys
from alignzoo_judges.cached import CachedJudge
from alignzoo_judges.judge import GoldJudge, Judge
from alignzoo_judges.local import LocalJudge
from alignzoo_judges.server import EXAMPLE_URL, KEY_VARIABLE, USER, ServerJudge, ServerOptions

SELF, GOLD, POLICY = "self", "gold", "policy"


@dataclass
class ModelOptions:
    """The options after a model's name: `Qwen/Qwen2.5-7B-Instruct,four_bit=true`."""

    four_bit: Annotated[bool, "load a model's weights in 4 bits"] = False


def resolve_judge(
    text: str,
    *,
    run: Run | None = None,
    task: Any = None,
    ledger: Ledger | None = None,
    trust_remote_code: bool = False,
    note: Callable[[str], None] = lambda text: None,
) -> Judge:
    """Return the judge that NAME[,OPTION=VALUE...] names; raise `BadInput` if there is none.

    - `self` is the base of the run, `policy` the model in training with its current weights.
    - `gold` is the score of the task.
    - Other names are the URL of a server, a plugin, or a model: a folder, a run, a name on the hub.

    Answers are cached, except those of the policy, which changes. `note` shows a line about the
    cache to the user; a run shows its own.
    """
    name, options = split_options(text, "--judge")
    judge = make_judge(name, options, run, task, trust_remote_code)
    judge.ledger = run.ledger if run is not None else ledger
    if judge.identity is None:
        return judge
    return CachedJudge(judge, run.ui.note if run is not None else note)


def check_judge(text: str) -> None:
    """Raise `BadInput` for a URL or options that cannot be right, without loading anything.

    Called before a run's settings, which could hold a key by mistake, are saved.
    """
    name, options = split_options(text, "--judge")
    if is_url(name):
        parse_server_options(check_url(name, USER, EXAMPLE_URL, KEY_VARIABLE), options)
    elif is_plugin(name):
        check_values(discovery.load_plugin("judges", name), options, f"judge {name!r}")
    else:
        parse_model_options(name, options)


def is_plugin(name: str) -> bool:
    """Return True if a judge's name is an entry point or a Python file."""
    return discovery.is_plugin("judges", name)


def parse_model_options(name: str, options: dict[str, str]) -> ModelOptions:
    """Return the options after a model's name; `self`, `policy` and `gold` take none."""
    if name in (SELF, GOLD, POLICY) and options:
        raise BadInput(f"judge {name!r} has no option {min(options)!r}")
    parsed: ModelOptions = build(ModelOptions, options, f"judge {name!r}")
    return parsed


def parse_server_options(url: str, options: dict[str, str]) -> ServerOptions:
    """Return the options after a URL; refuse an API key, which would be saved with the run."""
    refuse_keys(options, USER, KEY_VARIABLE)
    parsed: ServerOptions = build(ServerOptions, options, f"judge {url}")
    return parsed


def make_judge(
    name: str, options: dict[str, str], run: Run | None, task: Any, trust_remote_code: bool
) -> Judge:
    """Make the judge, without a cache or a ledger."""
    if is_url(name):
        return ServerJudge(name, parse_server_options(name, options))
    if is_plugin(name):
        judge: Judge = build_plugin("judges", name, options)
        return judge
    parsed = parse_model_options(name, options)
    if name == GOLD:
        if task is None:
            raise BadInput("judge 'gold' is the score of a --task, and there is none")
        return GoldJudge(task)
    if name == SELF:
        return make_base_judge(run)
    if name == POLICY:
        return make_policy_judge(run)
    if run is not None:
        policy = run.load_model(name, four_bit=parsed.four_bit)
    else:
        policy = load_policy(
            ModelSpec(name, four_bit=parsed.four_bit, trust_remote_code=trust_remote_code)
        )
    policy.require_generative()
    policy.eval()
    return LocalJudge(policy, Codec(policy.tokenizer), policy.evaluating)


def make_base_judge(run: Run | None) -> Judge:
    """Make a judge of the run's model with its adapter off."""
    if run is None:
        raise BadInput("judge 'self' is the base of a run, and there is none", hint="name a model")
    if not run.model.has_base:
        raise BadInput(
            "judge 'self' is the model before training, of which this run keeps no copy",
            hint="train an adapter, or name the model itself as the judge",
        )
    return LocalJudge(run.model, run.codec, run.model.base, base=True)


def make_policy_judge(run: Run | None) -> Judge:
    """Make a judge of the model in training; its answers are not cached."""
    if run is None:
        raise BadInput("judge 'policy' is the model that a run trains, and there is none")
    judge = LocalJudge(run.model, run.codec, run.model.evaluating)
    judge.identity = None
    return judge
