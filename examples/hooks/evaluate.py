"""alignzoo run dpo --with ./examples/hooks/evaluate.py"""

from alignzoo import hookimpl


class HeldOutEntropy:
    """Report the entropy of held-out completions, in nats per token"""

    @hookimpl
    def alignzoo_evaluate(self, run):
        entropies = []
        for batch in run.held_out():
            entropies += batch.mean(run.policy(batch, entropy=True).entropy).tolist()
        return {"held-out/entropy": entropies}
