"""How experience is made: generation, and the sampler that a run has when no other is named.

A plugin that samples otherwise builds its round from `complete` and `experience`. One that draws
completions elsewhere is a `Sampler`.
"""

from alignzoo.samplers.choose import sampler_of
from alignzoo.samplers.default import DefaultSampler
from alignzoo.samplers.experience import complete, credit, experience, gathered, judged, seeds
from alignzoo.samplers.generate import Completion, generate
from alignzoo.samplers.journal import journal
from alignzoo.samplers.mismatch import SAMPLED, Mismatch
from alignzoo.samplers.observe import observe, tied
from alignzoo.samplers.sampler import Sampler
from alignzoo.samplers.sampling import Sampling

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
    "journal",
    "judged",
    "observe",
    "sampler_of",
    "seeds",
    "tied",
]
