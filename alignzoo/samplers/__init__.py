"""How experience is made: generation, and the sampler that a run has when no other is named.

A plugin that samples otherwise builds its round from `complete` and `experience`.
"""

from alignzoo.samplers.default import DefaultSampler
from alignzoo.samplers.experience import complete, credit, experience, judged
from alignzoo.samplers.generate import Completion, generate
from alignzoo.samplers.observe import observe, widths
from alignzoo.samplers.sampling import Sampling

__all__ = [
    "Completion",
    "DefaultSampler",
    "Sampling",
    "complete",
    "credit",
    "experience",
    "generate",
    "judged",
    "observe",
    "widths",
]
