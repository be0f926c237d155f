"""Load data: from files and the Hub to token ids.

formats, read            rows of files, folders and Hub data sets; errors name the line or row
names                    the value of `--data`: names and weights
values, dialogue         checks of a cell, and of messages
views                    the columns of a row: text, demonstrations, preferences, feedback, steps,
                         prompts
columns                  what other columns of a table mean, and which are not read
derive                   a missing view from another one
codec, reasoning_steps   from text to tokens, for training and for evaluation
turns                    what stands between two answers of a dialogue, as tokens
template                 from messages to text, by the chat template
token_cache              rows as token ids, kept on disk
load                     `load_data`, which puts these together
dataset, mixture, order  the result: held-out rows, several sources as one, the batches of a run
report                   counts and notes on the rows
"""

from alignzoo import deprecated
from alignzoo.data.codec import Codec
from alignzoo.data.columns import columns_of
from alignzoo.data.dataset import FEEDBACK_KINDS, Data, SourceSize, count_feedback
from alignzoo.data.dialogue import Content, Message, check_content, is_empty
from alignzoo.data.load import load_data, load_rows
from alignzoo.data.names import DataSpec, parse_data
from alignzoo.data.order import EpochOrder
from alignzoo.data.read import location, read_rows, read_table
from alignzoo.data.reasoning_steps import split_steps, step_ends
from alignzoo.data.report import Report
from alignzoo.data.task import (
    dev_split,
    name_of_task,
    place_in_task,
    read_task_rows,
    score_by_task,
)
from alignzoo.data.template import template_values
from alignzoo.data.turns import (
    MODEL,
    TURN_REWARDS,
    Turns,
    count_turns,
    episode_texts,
    join_turns,
    split_turns,
)
from alignzoo.data.values import BadValue, UnusableRow, is_missing
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
    "FEEDBACK_KINDS",
    "MODEL",
    "TURN_REWARDS",
    "VIEWS",
    "BadValue",
    "Codec",
    "Content",
    "Data",
    "DataSpec",
    "Demonstrations",
    "Dialogues",
    "Encoded",
    "EpochOrder",
    "Feedback",
    "Message",
    "Preferences",
    "Prompts",
    "Report",
    "SourceSize",
    "Steps",
    "Text",
    "Turns",
    "UnusableRow",
    "View",
    "WholeDemonstrations",
    "check_content",
    "columns_of",
    "count_feedback",
    "count_turns",
    "dev_split",
    "episode_texts",
    "is_empty",
    "is_missing",
    "join_turns",
    "load_data",
    "load_rows",
    "location",
    "name_of_task",
    "parse_data",
    "place_in_task",
    "read_rows",
    "read_table",
    "read_task_rows",
    "score_by_task",
    "split_steps",
    "split_turns",
    "step_ends",
    "template_values",
]

__getattr__ = deprecated.names_of(__name__)
