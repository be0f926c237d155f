"""The traits that an algorithm declares beside its options and its hooks.

They are plain class attributes, and all but `data` have a default, so that a file of ten lines is
enough:

    data             the view of the data it learns from (alignzoo.data.views)
    needs            what the core must keep in memory (`Needs`)
    rounds           how many rows a round has, and how often it passes over them (`Rounds`)
    defaults         recipe settings whose default differs for this algorithm
    learning_rate    peak learning rate for a LoRA adapter on a model of width 2048; it is scaled
    group_size       completions per prompt, for algorithms that generate
    progress_metric  the metric that the progress bar shows beside the loss
    couples_rows     True if the loss compares all rows of a batch (sorts them, for example): a step
                     is then one forward pass whatever --micro-tokens says, in one process
    generates        False if the trained model answers no prompts (a reward model)
    trains           False for a baseline that changes no weight: no loss, no step, no model saved
    learner          another algorithm, which learns from the rewards that this one gives; this one
                     is then registered as a reward, and all other traits are the learner's
    advantages_are_weights
                     False if advantages only tell winners from losers, so that importance weights
                     must not multiply them
    same_as          a method, `same_as(recipe) -> str | None`: see `canonical_name`
    api_version      the version of the plugin API that it was written for, of any kind of plugin
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import InitVar, dataclass, field, fields
from typing import Any, ClassVar, Literal, Protocol, runtime_checkable

from alignzoo.errors import warn_renamed
from alignzoo.named import build_plugin
from alignzoo.options import build, join_options, split_options


@dataclass(frozen=True)
class Needs:
    """The models and heads that the core must provide for an algorithm.

    Args:
        reference: log-probs under the model as it was before training.
        mixed_reference: a reference that moves a part of the way to the policy, which new virtual
            tokens do not allow.
        teacher: another model to learn from, which the user names by `--teacher`.
        score_head: a trained linear layer on the backbone that gives each completion a number.
        values: a value head, which gives a number for the state before each token: on the policy's
            own backbone ("shared"), or on the base with a second adapter ("own").
        adapter: False if it must train all weights (pretraining).
    """

    reference: bool = False
    mixed_reference: bool = False
    teacher: bool = False
    score_head: bool = False
    values: Literal["shared", "own"] | None = None
    adapter: bool = True


@dataclass(frozen=True)
class Rounds:
    """How the data is cut into rounds.

    Args:
        rows: new rows per round; None: one batch, `batch_size`; "all": the whole data.
        iterations: passes over the rows of a round.
        replay_rounds: number of earlier rounds whose rows a round learns from again.

    A round of one step and one iteration is ordinary mini-batch training. PPO passes over a round
    several times; self-play takes the whole data as a round.
    """

    rows: int | Literal["all"] | None = None
    iterations: int = 1
    replay_rounds: int = 0
    epochs: InitVar[int | None] = None  # deprecated: `iterations`
    carried: InitVar[int | None] = None  # deprecated: `replay_rounds`

    def __post_init__(self, epochs: int | None, carried: int | None) -> None:
        """Take the arguments by their old names, with a warning."""
        old = {"iterations": ("epochs", epochs), "replay_rounds": ("carried", carried)}
        for new, (name, value) in old.items():
            if value is not None:
                warn_renamed(f"Rounds({name}=)", f"Rounds({new}=)")
                object.__setattr__(self, new, value)
        if self.rows == -1:
            warn_renamed("Rounds(rows=-1)", 'Rounds(rows="all")')
            object.__setattr__(self, "rows", "all")

    def rounds_in(self, index: int) -> int:
        """Return how many rounds' rows a round learns from, its own included."""
        return 1 + min(index, self.replay_rounds)


@runtime_checkable
class Algorithm(Protocol):
    """The minimum of an algorithm: its view of the data. `alignzoo.hooks` lists its methods."""

    data: ClassVar[Any]


def algorithm_of(text: str, flag: str, own: Mapping[str, type] | None = None) -> Any:
    """Build the algorithm that `NAME[,OPTION=VALUE...]` names.

    Args:
        flag: the option that `text` was given to, for messages.
        own: classes by name, looked up before the installed algorithms.

    Raises:
        BadInput: there is no such algorithm, or it has no such option.
    """
    name, options = split_options(text, flag)
    if own and name in own:
        return build(own[name], options, f"{flag} {name}")
    return build_plugin("algorithms", name, options)


def canonical_name(name: str, algorithm: Any, recipe: Any) -> str:
    """Return a text that is equal for algorithms that take the same steps under a recipe.

    It is `NAME[,OPTION=VALUE...]`: the algorithm's name and the options that differ from their
    defaults, unless its method `same_as(recipe)` returns the text of another one, or of other
    options, with which the same recipe gives the same updates. `same_as` uses the recipe alone (no
    model, no run), and returns None if it knows of none. It has to be the class's own: a subclass
    may change what its base class knows.
    """
    found = algorithm.same_as(recipe) if "same_as" in vars(type(algorithm)) else None
    return found if found is not None else join_options(name, algorithm)


@dataclass(frozen=True)
class Traits:
    """The traits of an algorithm, with the defaults of those that it does not declare."""

    needs: Needs = Needs()
    rounds: Rounds = Rounds()
    defaults: Mapping[str, Any] = field(default_factory=dict)
    learning_rate: float = 1e-4
    group_size: int = 1
    progress_metric: str | None = None
    couples_rows: bool = False
    generates: bool = True
    trains: bool = True
    advantages_are_weights: bool = True

    @classmethod
    def of(cls, algorithm: Any) -> Traits:
        """Return the traits of an algorithm, or of its class before its options are known."""
        stated = {
            f.name: getattr(algorithm, f.name) for f in fields(cls) if hasattr(algorithm, f.name)
        }
        for old, (new, convert) in OLD_TRAITS.items():
            if hasattr(algorithm, old):
                warn_renamed(f"{old!r} of an algorithm", repr(new))
                stated[new] = convert(getattr(algorithm, old))
        return cls(**stated)


# Deprecated names of traits: the present name, and the conversion of the value.
OLD_TRAITS: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "headline": ("progress_metric", lambda name: name),
    "splits": ("couples_rows", lambda splits: not splits),
    "credits": ("advantages_are_weights", bool),
}
