"""alignzoo run dpo --with ./examples/hooks/check.py"""

from alignzoo import BadInput, hookimpl


class AtLeastHundred:
    """Refuse to train on fewer than a hundred examples"""

    @hookimpl
    def alignzoo_check(self, recipe, data):
        if len(data.train) < 100:
            raise BadInput(
                f"{len(data.train)} training examples are too few for {recipe.algorithm}",
                hint="give --data a longer file",
            )
