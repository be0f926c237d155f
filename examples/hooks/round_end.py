"""alignzoo run dpo --with ./examples/hooks/round_end.py"""

from alignzoo import hookimpl


class MoveReference:
    """Let the reference be the policy of at most ten rounds ago"""

    @hookimpl
    def alignzoo_round_end(self, run, index):
        if (index + 1) % 10 == 0:
            run.move_reference()
