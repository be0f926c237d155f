"""Environments: episodes of several turns, in which a plugin answers what the model writes.

environment   the base class of environments, and what a step gives
tools         functions that the model may call: their calls in a text, checked and answered
episode       one episode of an environment, with every answer of the plugin checked
kept          steps of episodes in a file, for environments with a state outside of the program

`alignzoo.rollout.episodes` draws the turns of the model between those of the environment.
"""

from alignzoo.environments.environment import Environment, Step, load_environment
from alignzoo.environments.episode import Episode
from alignzoo.environments.kept import KeptEpisode, Transcripts
from alignzoo.environments.tools import Tool, ToolCall, ToolError, parse_tool_calls

__all__ = [
    "Environment",
    "Episode",
    "KeptEpisode",
    "Step",
    "Tool",
    "ToolCall",
    "ToolError",
    "Transcripts",
    "load_environment",
    "parse_tool_calls",
]
