"""An add-on that wraps the loss of any algorithm and logs the length of its completions.

alignzoo run dpo --with ./examples/log_lengths.py
"""

from alignzoo import hookimpl


class LogLengths:
    """Log the mean length of the completions of each step"""

    @hookimpl(wrapper=True)
    def alignzoo_loss(self, run, batch):
        loss = yield
        lengths = batch.lengths
        loss.metrics["log_lengths/mean"] = (lengths.sum(), lengths.new_tensor(len(lengths)))
        return loss
