"""Rollouts: generation, samplers, and the batch of completions that a round learns from.

A plugin that samples in its own way builds its round from `complete` and `rollout`. One that draws
completions elsewhere is a `Sampler`.

sampling    how a token is drawn, and when a completion ends
decoder     a model with a key-value cache, one token at a time
generate    completions of prompts, in this process
episodes    completions of several turns, between which an environment answers
completions completions drawn in this process, and completions as a batch
mismatch    the sampler's log-probs against the trainer's
rollout     a batch of completions with rewards, metrics and advantages
sampler     samplers of a run, in this process or in another program
greedy      the most likely completion of each prompt
"""

from alignzoo.rollout.completions import batch_completions, complete_in_process, telling_notes
from alignzoo.rollout.episodes import EpisodeSettings, Start, play
from alignzoo.rollout.generate import Completion, generate
from alignzoo.rollout.greedy import complete_greedily, greedy_rewards
from alignzoo.rollout.mismatch import INFERENCE, LogprobGap
from alignzoo.rollout.rollout import (
    add_advantages,
    compute_column,
    is_tied,
    log_completions,
    rollout,
    with_rewards,
)
from alignzoo.rollout.sampler import DefaultSampler, Sampler, complete, load_sampler
from alignzoo.rollout.sampling import Sampling, seeds

__all__ = [
    "INFERENCE",
    "Completion",
    "DefaultSampler",
    "EpisodeSettings",
    "LogprobGap",
    "Sampler",
    "Sampling",
    "Start",
    "add_advantages",
    "batch_completions",
    "complete",
    "complete_greedily",
    "complete_in_process",
    "compute_column",
    "generate",
    "greedy_rewards",
    "is_tied",
    "load_sampler",
    "log_completions",
    "play",
    "rollout",
    "seeds",
    "telling_notes",
    "with_rewards",
]
