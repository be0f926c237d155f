"""From files, hub and tasks to token ids: reading, the five views, one codec, one report.

files, formats, hub   where rows come from, each error with its line or row
columns, views        what a row means: text, demonstrations, preferences, feedback, prompts
derive                a view that is missing but can be had from another
dialogue, codec       the one path from text to tokens, for training and for evaluation
source, holdout       `load_data`, which puts these together, and what it holds out
order                 which rows make up the batch of a step
"""

from alignzoo.data.codec import Codec
from alignzoo.data.order import Order
from alignzoo.data.report import Report
from alignzoo.data.source import Data, load_data
from alignzoo.data.views import (
    VIEWS,
    Demonstrations,
    Dialogues,
    Encoded,
    Feedback,
    Preferences,
    Prompts,
    Text,
    View,
    WholeDemonstrations,
)

__all__ = [
    "VIEWS",
    "Codec",
    "Data",
    "Demonstrations",
    "Dialogues",
    "Encoded",
    "Feedback",
    "Order",
    "Preferences",
    "Prompts",
    "Report",
    "Text",
    "View",
    "WholeDemonstrations",
    "load_data",
]
