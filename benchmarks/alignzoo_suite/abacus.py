"""The task that zoo-abacus is trained on."""

from dataclasses import dataclass
from random import Random
from typing import Annotated

from annotated_types import Ge

from alignzoo_suite.common import Row
from alignzoo_suite.totals import Totals


@dataclass(eq=False)
class Abacus(Totals):
    """Dialogues with the calculator by a writer with bad habits, to train zoo-abacus on."""

    demonstrations: Annotated[int, "dialogues", Ge(1)] = 80_000

    name = "abacus"
    counts = (3, 4)

    def write(self, row: Row, random: Random, *, base: bool) -> list[Row]:
        return super().write(row, random, base=True)
