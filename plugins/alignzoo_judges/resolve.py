"""From what `--judge` or `judge=` names to a judge."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from alignzoo import discovery
from alignzoo.data import Codec
from alignzoo.errors import BadInput
from alignzoo.options import build, split_options
from alignzoo.policy import ModelSpec, load_policy
from alignzoo.remote import address
from alignzoo_judges.cached import Cached
from alignzoo_judges.gold import Gold
from alignzoo_judges.judge import Judge
from alignzoo_judges.local import Local
from alignzoo_judges.server import EXAMPLE, KEY, WHO, Server, ServerOptions

if TYPE_CHECKING:
    from alignzoo.ledger import Ledger
    from alignzoo.run.run import Run

SELF, GOLD, POLICY = "self", "gold", "policy"


@dataclass
class ModelOptions:
    """What can be said of a model behind its name: `Qwen/Qwen2.5-7B-Instruct,four_bit=true`."""

    four_bit: Annotated[bool, "the weights of a model in 4 bits"] = False


def judge_of(
    text: str,
    *,
    run: Run | None = None,
    task: Any = None,
    ledger: Ledger | None = None,
    trust_remote_code: bool = False,
) -> Judge:
    """`self`, `policy`, `gold`, an address, a plugin, or a model: a folder, an earlier run, a hub
    name.

    `self` is the base of the run, `policy` what it trains, as it is when it is asked; `gold` is the
    score of the task. What was answered once is kept, but of the policy, which changes.
    """
    name, options = split_options(text, "--judge")
    judge = named(name, options, run, task, trust_remote_code)
    judge.ledger = run.ledger if run is not None else ledger
    return judge if judge.identity is None else Cached(judge)


def check_judge(text: str) -> None:
    """`BadInput` for an address, or options, that cannot be right: before a run is begun, and what
    was typed, a key perhaps, is written down with it. Nobody is asked, and nothing is loaded."""
    name, options = split_options(text, "--judge")
    if is_address(name):
        address(name, WHO, EXAMPLE)
        server_options(name, options)
    elif not is_plugin(name):
        model_options(name, options)


def is_address(name: str) -> bool:
    return name.startswith(("http://", "https://"))


def is_plugin(name: str) -> bool:
    return name in discovery.discover("judges") or name.endswith(".py")


def model_options(name: str, options: dict[str, str]) -> ModelOptions:
    if name in (SELF, GOLD, POLICY) and options:
        raise BadInput(f"judge {name!r} has no option {min(options)!r}")
    found: ModelOptions = build(ModelOptions, options, f"judge {name!r}")
    return found


def server_options(url: str, options: dict[str, str]) -> ServerOptions:
    for name in options:
        if "key" in name.lower() or "token" in name.lower():
            raise BadInput(f"{WHO}: a key is taken from the environment variable {KEY} alone")
    found: ServerOptions = build(ServerOptions, options, f"judge {url}")
    return found


def named(
    name: str, options: dict[str, str], run: Run | None, task: Any, trust_remote_code: bool
) -> Judge:
    if is_address(name):
        return Server(name, server_options(name, options))
    if is_plugin(name):
        return build(discovery.load("judges", name), options, f"judge {name!r}")
    said = model_options(name, options)
    if name == GOLD:
        if task is None:
            raise BadInput("judge 'gold' is the score of a --task, and there is none")
        return Gold(task)
    if name == SELF:
        return own_base(run)
    if name == POLICY:
        return own_policy(run)
    if run is not None:
        policy = run.load_model(name, four_bit=said.four_bit)
    else:
        policy = load_policy(
            ModelSpec(name, four_bit=said.four_bit, trust_remote_code=trust_remote_code)
        )
    policy.require_generative()
    policy.eval()
    return Local(policy, Codec(policy.tokenizer), policy.evaluating)


def own_base(run: Run | None) -> Judge:
    if run is None:
        raise BadInput("judge 'self' is the base of a run, and there is none", hint="name a model")
    if not run.model.has_base:
        raise BadInput(
            "judge 'self' is the model before training, which is not kept beside this one",
            hint="train an adapter, or name the model itself as the judge",
        )
    return Local(run.model, run.codec, run.model.base, base=True)


def own_policy(run: Run | None) -> Judge:
    if run is None:
        raise BadInput("judge 'policy' is what a run trains, and there is none")
    judge = Local(run.model, run.codec, run.model.evaluating)
    judge.identity = None
    return judge
