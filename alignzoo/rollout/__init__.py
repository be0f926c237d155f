"""How experience is made: generation, and the sampler that a run has when no other is named.

A plugin that samples otherwise builds its round from `complete` and `experience`. One that draws
completions elsewhere is a `Sampler`.
"""

from alignzoo.rollout.generate import Completion, generate
from alignzoo.rollout.rollout import (
    SAMPLED,
    Mismatch,
    credit,
    experience,
    gathered,
    judged,
    observe,
    tied,
)
from alignzoo.rollout.sampler import DefaultSampler, Sampler, complete, sampler_of, seeds
from alignzoo.rollout.sampling import Sampling

__all__ = [
    "SAMPLED",
    "Completion",
    "DefaultSampler",
    "Mismatch",
    "Sampler",
    "Sampling",
    "complete",
    "credit",
    "experience",
    "gathered",
    "generate",
    "judged",
    "observe",
    "sampler_of",
    "seeds",
    "tied",
]
