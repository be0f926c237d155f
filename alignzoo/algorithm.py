"""What an algorithm states about itself, beside its options and its hooks.

Plain class attributes, all but `data` with a default, so that ten lines in a file are enough:

    data           the view of the task it eats (alignzoo.data.views)
    needs          what the core must put in memory
    defaults       settings of the recipe that this algorithm wants otherwise
    learning_rate  the peak learning rate for a LoRA adapter on a model 2048 wide; scaled to others
    rounds         how much data a round takes, and how often it passes over it
    group_size     completions per prompt, for those that generate
    headline       the metric that the progress bar shows beside the loss
    splits         False where the loss couples the rows of a batch (it sorts them, say): a step is
                   then one forward pass whatever --micro-tokens says, in one process
    generates      whether what it trains answers prompts; False for a reward model
    trains         False for a baseline that answers otherwise and changes no weight: it gives no
                   loss, does no step and leaves no model
    learner        an algorithm that learns from the rewards which this one gives, where it does
                   not learn itself: it is then a reward, and all else is the learner's
    credits        whether its advantages are credit, factors of the gradient, and may be weighed;
                   False where they tell a winner from a loser
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Protocol, runtime_checkable

from alignzoo import discovery
from alignzoo.options import build, split_options


@dataclass(frozen=True)
class Needs:
    """What the core must provide for the algorithm.

    `reference`: log-probs under the model as it was before training; `mixed_reference`: one that
    moves a part of the way to the policy, which new virtual tokens do not allow. `score_head`: a
    trained linear layer on the trunk that gives each completion a number. `values`: one that gives
    a number for the state before each token, on the policy's own trunk ("shared") or on the base
    with a second adapter ("own"). `adapter=False`: training an adapter makes no sense
    (pretraining).
    """

    reference: bool = False
    mixed_reference: bool = False
    score_head: bool = False
    values: Literal["shared", "own"] | None = None
    adapter: bool = True


@dataclass(frozen=True)
class Rounds:
    """How the data is cut into rounds: `rows` per round (None: one batch), passed `epochs` times.

    A round of one batch and one epoch is ordinary mini-batch training. PPO passes over its
    experience several times; self-play takes the whole set as a round (`rows=-1`). A round that
    learns from those before it as well says how many it has `carried`: its steps are those of all
    their rows.
    """

    rows: int | None = None
    epochs: int = 1
    carried: int = 0

    def learnt(self, index: int) -> int:
        """How many rounds' rows the round of that number learns from, its own included."""
        return 1 + min(index, self.carried)


@runtime_checkable
class Algorithm(Protocol):
    """The least that an algorithm has; see `alignzoo.hookspecs` for its methods."""

    data: ClassVar[Any]


def algorithm_of(text: str, flag: str, own: Mapping[str, type] | None = None) -> Any:
    """The algorithm that `NAME[,OPTION=VALUE...]` names, of `own` or of those installed.

    `flag` is what `text` was given to, for messages.
    """
    name, options = split_options(text, flag)
    cls = (own or {}).get(name) or discovery.load("algorithms", name)
    return build(cls, options, f"{flag} {name}")


def needs_of(algorithm: Any) -> Needs:
    return getattr(algorithm, "needs", Needs())


def rounds_of(algorithm: Any) -> Rounds:
    return getattr(algorithm, "rounds", Rounds())


def defaults_of(algorithm: Any) -> Mapping[str, Any]:
    return getattr(algorithm, "defaults", {})


def learning_rate_of(algorithm: Any) -> float:
    return getattr(algorithm, "learning_rate", 1e-4)


def splits_of(algorithm: Any) -> bool:
    return getattr(algorithm, "splits", True)


def headline_of(algorithm: Any) -> str | None:
    return getattr(algorithm, "headline", None)


def generates_of(algorithm: Any) -> bool:
    return getattr(algorithm, "generates", True)


def trains_of(algorithm: Any) -> bool:
    return getattr(algorithm, "trains", True)


def credits_of(algorithm: Any) -> bool:
    return getattr(algorithm, "credits", True)
