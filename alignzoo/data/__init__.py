"""From files, hub and tasks to token ids: reading, the six views, one codec, one report.

files, formats, hub   where rows come from, each error with its line or row
names                 what `--data` names, and the weights of several data sets
columns, views        what a row means: text, demonstrations, preferences, feedback, steps, prompts
derive                a view that is missing but can be had from another
dialogue, codec       the one path from text to tokens, for training and for evaluation
steps                 where the steps of a solution end, in its text and its tokens
source, holdout       `load_data`, which puts these together, and what it holds out
mixture, dataset      several sources as one, and what comes of it all
order                 which rows make up the batch of a step
"""

from alignzoo.data.codec import Codec
from alignzoo.data.dataset import Data, Share, labels_in
from alignzoo.data.load import load_data, rows_of
from alignzoo.data.names import Source, sources_of
from alignzoo.data.order import Order
from alignzoo.data.report import Report
from alignzoo.data.steps import step_ends, steps_in
from alignzoo.data.views import (
    VIEWS,
    Demonstrations,
    Dialogues,
    Encoded,
    Feedback,
    Preferences,
    Prompts,
    Steps,
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
    "Share",
    "Source",
    "Steps",
    "Text",
    "View",
    "WholeDemonstrations",
    "labels_in",
    "load_data",
    "rows_of",
    "sources_of",
    "step_ends",
    "steps_in",
]
