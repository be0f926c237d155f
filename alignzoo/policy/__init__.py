"""Models: loading them, and log-probabilities of batches under them and under their reference."""

from alignzoo.policy.flops import FlopsProfile
from alignzoo.policy.layout import States, Work
from alignzoo.policy.load import default_device, load_policy
from alignzoo.policy.locate import find
from alignzoo.policy.logprobs import chunked_logprobs
from alignzoo.policy.policy import Policy
from alignzoo.policy.scoring import Outputs, Perturb

__all__ = [
    "FlopsProfile",
    "Outputs",
    "Perturb",
    "Policy",
    "States",
    "Work",
    "chunked_logprobs",
    "default_device",
    "find",
    "load_policy",
]
