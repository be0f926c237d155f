from .algorithm import Needs, Rounds, algorithm_of
from .batch import Batch, Example, collate, concat
from .data import (
    Demonstrations,
    Dialogues,
    Feedback,
    Preferences,
    Prompts,
    Steps,
    Text,
    View,
    WholeDemonstrations,
)
from .discovery import API_VERSION, hookimpl
from .errors import BadInput, RunFailed
from .loss import Loss
from .named import load_task
from .policy import ModelSpec, load_policy
from .rewards import RowReward
from .run import Run
from .training.on_policy import Iterations, OnPolicy, RoundPrompts
from .training.optimizer import decay_groups, decays

__all__ = [
    "API_VERSION",
    "BadInput",
    "Batch",
    "Demonstrations",
    "Dialogues",
    "Example",
    "Feedback",
    "Iterations",
    "Loss",
    "ModelSpec",
    "Needs",
    "OnPolicy",
    "Preferences",
    "Prompts",
    "RoundPrompts",
    "Rounds",
    "RowReward",
    "Run",
    "RunFailed",
    "Steps",
    "Text",
    "View",
    "WholeDemonstrations",
    "algorithm_of",
    "collate",
    "concat",
    "decay_groups",
    "decays",
    "hookimpl",
    "load_policy",
    "load_task",
]
