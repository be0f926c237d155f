from .adapters import adapter_parameters
from .divergence import generalized_jsd, top_k_jsd
from .flops import FlopsProfile
from .forward import DivergenceFrom, Outputs, Perturb
from .kept_bases import keep_bases
from .layout import HiddenState
from .load import ModelSpec, default_device, load_policy
from .locate import locate_model, quiet_libraries
from .logprobs import chunked_logprobs
from .merged import MergedModel, load_merged
from .model import LanguageModel
from .policy import Policy

__all__ = [
    "DivergenceFrom",
    "FlopsProfile",
    "HiddenState",
    "LanguageModel",
    "MergedModel",
    "ModelSpec",
    "Outputs",
    "Perturb",
    "Policy",
    "adapter_parameters",
    "chunked_logprobs",
    "default_device",
    "generalized_jsd",
    "keep_bases",
    "load_merged",
    "load_policy",
    "locate_model",
    "quiet_libraries",
    "top_k_jsd",
]
