"""An add-on around whatever loss the algorithm has: it logs how long the completions are.

alignzoo run dpo --with ./examples/log_lengths.py
"""

from alignzoo import hookimpl


class LogLengths:
    """Logs the mean length of the completions of each step"""

    @hookimpl(wrapper=True)
    def alignzoo_loss(self, run, batch):
        loss = yield
        lengths = batch.lengths
        loss.metrics["completions/mean_length"] = (lengths.sum(), lengths.new_tensor(len(lengths)))
        return loss
