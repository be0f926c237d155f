"""The guard at the start of a run: before training, a model gives one log-prob to each token.

The one it was sampled with, the trainer's and the base's are the same number, computed in three
ways. What the probes at load let pass, such as a cache that is wrong after many tokens, shows here.
"""

from __future__ import annotations

from alignzoo.errors import BadInput
from alignzoo.policy.policy import Policy

# Nats per token, in float32 and below. Measured over 15 architectures on 32 completions of 40
# tokens: 1e-6 at most in float32, 0.009 in bfloat16, the highest for a mixture of experts.
FINE, COARSE = 0.01, 0.1


def check_untrained(policy: Policy, gap: float, temperature: float, sides: str) -> None:
    """Raise BadInput if log-probs that should be equal are not, but for rounding.

    Args:
        policy: the model, not trained in this run yet.
        gap: the difference of its log-probs, in nats per token.
        temperature: of the log-probs; one below 1 amplifies rounding.
        sides: what differs, for the message.
    """
    allowed = (COARSE if policy.rounds else FINE) / min(temperature or 1.0, 1.0)
    if not gap <= allowed:
        kind = policy.network.config.model_type
        raise BadInput(
            f"before training, {sides} differ by {gap:.2g} nats per token, and should be equal",
            where=policy.name,
            hint=f"this {kind} model gives other log-probs in generation than in training, so a "
            "run would learn from and report wrong numbers; --precision fp32 rules out rounding",
        )
