"""alignzoo run dpo --with ./examples/hooks/step.py"""

from alignzoo import hookimpl


class StopWhenGood:
    """End the training when the loss, averaged over steps, is below 0.5"""

    @hookimpl
    def alignzoo_step(self, run, metrics):
        state = run.state_of(self)  # a part of every checkpoint
        state["mean"] = 0.9 * state.get("mean", metrics["loss"]) + 0.1 * metrics["loss"]
        metrics["loss/smooth"] = state["mean"]
        if state["mean"] < 0.5:
            run.stop("the loss is below 0.5")
