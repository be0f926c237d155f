"""How experience is made: generation, and the sampler that a run has when no other is named."""

from alignzoo.samplers.default import DefaultSampler
from alignzoo.samplers.generate import Completion, generate
from alignzoo.samplers.sampling import Sampling

__all__ = ["Completion", "DefaultSampler", "Sampling", "generate"]
