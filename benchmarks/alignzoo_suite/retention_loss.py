"""An add-on that measures what a model forgets: its loss on text that its base knew."""

from pathlib import Path
from typing import Any

from alignzoo import BadInput, Batch, Run, Text, collate, hookimpl
from alignzoo.discovery import load_plugin
from alignzoo.record import read_run
from alignzoo_suite import MODELS

# The task and the view that each embedded model was trained on.
KNOWN_TEXTS = {
    "zoo-tiny": ("zoo", "text"),
    "zoo-scout": ("scout", "text"),
    "zoo-critic": ("critic", "demonstrations"),
    "zoo-abacus": ("abacus", "demonstrations"),
}
MOST_TEXTS = 200


def find_embedded(model: str) -> str | None:
    """Return the embedded model that a model is, or was trained from; None if there is none."""
    while (Path(model) / "run.json").is_file():
        model = read_run(Path(model))["recipe"]["model"]
    folders = {name: folder.resolve() for name, folder in MODELS.items()}
    return next(
        (name for name in folders if model == name or Path(model).resolve() == folders[name]), None
    )


class RetentionLoss:
    """Measure the loss on held-out text of the kind that the embedded base was trained on."""

    @hookimpl
    def alignzoo_check(self, recipe: Any) -> None:
        if find_embedded(recipe.model) is None:
            raise BadInput(
                f"add-on retention: no text is known that {recipe.model!r} was trained on",
                hint=f"use it with an embedded model: {', '.join(KNOWN_TEXTS)}",
            )

    @hookimpl
    def alignzoo_start(self, run: Run) -> None:
        task, view = KNOWN_TEXTS[str(find_embedded(run.recipe.model))]
        rows = load_plugin("tasks", task)().rows(view, "dev")[:MOST_TEXTS]
        found = [
            Text.encode(Text.canonical(row), run.codec, run.recipe.max_length)[0] for row in rows
        ]
        self._texts: Batch = collate([example for example in found if example is not None])

    @hookimpl
    def alignzoo_evaluate(self, run: Run) -> dict[str, list[float]]:
        """Return each text's loss in nats per token."""
        losses: list[float] = []
        for micro in run.micro_batches(self._texts):
            losses += (-micro.mean(run.policy(micro).logprobs)).tolist()
        return {"retention/loss": losses}
