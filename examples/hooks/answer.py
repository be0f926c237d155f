"""alignzoo run sft --task sums --with ./examples/hooks/answer.py"""

from alignzoo import hookimpl
from alignzoo.rollout import complete


class MostSure:
    """Answer with the most likely of four completions"""

    @hookimpl
    def alignzoo_answer(self, run, rows):
        groups = complete(run, rows, 4, stream="answer")
        return [max(group, key=lambda completion: completion.logprob) for group in groups]
