"""The task that zoo-critic is trained on."""

from dataclasses import dataclass, field
from typing import Annotated

from annotated_types import Ge

from alignzoo_suite.common import SEED_NAMES, Row, check_view, rng
from alignzoo_suite.constitution import Constitution


@dataclass(eq=False)
class Critic(Constitution):
    """Answers, critiques, revisions, verdicts and ratings, as training data for zoo-critic."""

    demonstrations: Annotated[int, "dialogues", Ge(1)] = 150_000
    text: int = field(default=0, init=False)  # no option: the task has no such view

    views = ("demonstrations", "prompts")
    check_options = {"demonstrations": 200, "held_out": 50}
    known_exceptions = {
        "best answers": "its demonstrations are dialogues about answers, which no score reads",
    }

    def rows(self, view: str, split: str) -> list[Row]:
        """Return dialogues as `demonstrations`; the prompts are those of `constitution`."""
        check_view(view, self.views, split)
        if view == "prompts":
            return super().rows(view, split)
        from alignzoo_suite.constitution_dialogues import write_dialogue  # imports torch

        count = self.demonstrations if split == "train" else self.held_out
        choices = self.prompts(split)
        rows = []
        for index in range(count):
            random = rng(self.seed, "critic", view, SEED_NAMES[split], index)
            rows.append({"messages": write_dialogue(random.choice(choices), random)})
        return rows
