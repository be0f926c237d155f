"""How experience is made: generation, and the sampler that a run has when no other is named.

A plugin that samples otherwise builds its round from `complete` and `experience`.
"""

from alignzoo.samplers.default import DefaultSampler
from alignzoo.samplers.experience import complete, experience
from alignzoo.samplers.generate import Completion, generate
from alignzoo.samplers.mismatch import Mismatch
from alignzoo.samplers.sampling import Sampling

__all__ = [
    "Completion",
    "DefaultSampler",
    "Mismatch",
    "Sampling",
    "complete",
    "experience",
    "generate",
]
