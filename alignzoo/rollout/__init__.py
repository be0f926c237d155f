"""Rollouts: generation, samplers, and the batch of completions that a round learns from.

A plugin that samples in its own way builds its round from `complete` and `rollout`. One that draws
completions elsewhere is a `Sampler`.

sampling    how a token is drawn, and when a completion ends
decoder     a model with a key-value cache, one token at a time
generate    completions of prompts, in this process
mismatch    the sampler's log-probs against the trainer's
rollout     completions as a batch, with rewards, metrics and advantages
sampler     samplers of a run, in this process or in another program
greedy      the most likely completion of each prompt
"""

from alignzoo.rollout.generate import Completion, generate
from alignzoo.rollout.greedy import complete_greedily, greedy_rewards
from alignzoo.rollout.mismatch import INFERENCE, LogprobGap
from alignzoo.rollout.rollout import (
    add_advantages,
    batch_completions,
    compute_column,
    is_tied,
    log_completions,
    rollout,
    with_rewards,
)
from alignzoo.rollout.sampler import DefaultSampler, Sampler, complete, load_sampler, seeds
from alignzoo.rollout.sampling import Sampling

__all__ = [
    "INFERENCE",
    "Completion",
    "DefaultSampler",
    "LogprobGap",
    "Sampler",
    "Sampling",
    "add_advantages",
    "batch_completions",
    "complete",
    "complete_greedily",
    "compute_column",
    "generate",
    "greedy_rewards",
    "is_tied",
    "load_sampler",
    "log_completions",
    "rollout",
    "seeds",
    "with_rewards",
]
