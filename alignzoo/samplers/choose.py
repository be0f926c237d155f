"""From what `--sampler` names to the object that draws."""

from __future__ import annotations

from alignzoo import plugins
from alignzoo.errors import BadInput
from alignzoo.options import build, split_options
from alignzoo.recipe import Recipe
from alignzoo.samplers.default import DefaultSampler
from alignzoo.samplers.sampler import Sampler


def sampler_of(recipe: Recipe) -> Sampler:
    """The sampler of a run: a plugin by its name, or the model itself where none is named."""
    found = named(recipe.sampler) if recipe.sampler is not None else DefaultSampler()
    if recipe.importance_cap != Recipe.importance_cap and not found.foreign:
        raise BadInput(
            "option --importance-cap: the sampler has the trainer's log-probs, so that all tokens "
            "weigh the same",
            hint="it is for a --sampler that computes them otherwise",
        )
    return found


def named(text: str) -> Sampler:
    """From `NAME[,OPTION=VALUE...]`."""
    name, options = split_options(text, "--sampler")
    found = build(plugins.load("samplers", name), options, f"sampler {name!r}")
    if not isinstance(found, Sampler):
        raise BadInput(
            f"sampler {name!r} is no alignzoo.samplers.Sampler",
            hint="derive its class from that, and give it the method `complete`",
        )
    return found
