"""alignzoo run sft --task sums --eval-every 10 --with ./examples/hooks/evaluated.py"""

from alignzoo import hookimpl


class StopAtGoal:
    """End the training at a score of 0.9"""

    @hookimpl
    def alignzoo_evaluated(self, run, phase, scores):
        if phase.startswith("step") and scores["score"].mean >= 0.9:
            run.stop("the score is 0.9")
