"""An add-on that ends a run when the held-out loss has not fallen for three evaluations.

alignzoo run sft --task sums --eval-every 10 --with ./examples/early_stopping.py
"""

from alignzoo import BadInput, Prompts, hookimpl


class EarlyStopping:
    """End the run when the held-out loss no longer falls"""

    @hookimpl
    def alignzoo_start(self, run):
        if run.algorithm.data is Prompts:
            raise BadInput(f"{run.recipe.algorithm} has no held-out loss that could stop falling")

    @hookimpl
    def alignzoo_evaluated(self, run, phase, scores):
        loss = scores["held-out/loss"].mean
        state = run.state_of(self)  # in every checkpoint, so that a resumed run ends as well
        if loss < state.get("best", float("inf")):
            state["best"], state["worse"] = loss, 0
        else:
            state["worse"] += 1
        if state["worse"] == 3 and phase != "after":
            run.stop(f"the held-out loss has not fallen since it was {state['best']:.4g}")
