"""One HTML page of a run's completions. It has no scripts and loads nothing."""

from __future__ import annotations

import importlib.resources
from dataclasses import dataclass
from typing import Any

import jinja2
from markupsafe import Markup

from alignzoo.cli.render import clean
from alignzoo.data import MODEL
from alignzoo_view import show
from alignzoo_view.read import DrawnCompletion
from alignzoo_view.select import Selection

POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"


@dataclass
class Token:
    """A token with its credit as a color: its share of the largest of its completion, in [0, 1]."""

    text: str
    kind: str  # "up", "down" or "others"
    share: float
    title: str


def render_page(facts: dict[str, str], found: Selection) -> str:
    """Return the page: facts of the run, answers to held-out prompts, means, completions."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("alignzoo_view", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=make_visible,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    style = (importlib.resources.files(__package__) / "page.css").read_text(encoding="utf-8")
    return environment.get_template("page.html.j2").render(
        policy=POLICY,
        style=Markup(style),
        facts=facts,
        found=found,
        number=show.number,
        describe_drawn=show.describe_drawn,
        describe_answer=show.describe_answer,
        label_turn=show.label_turn,
        model=MODEL,
        color_tokens=color_tokens,
    )


def make_visible(value: Any) -> Any:
    """Return a value as the template writes it, with control characters made visible."""
    return clean(value) if type(value) is str else value


def color_tokens(row: DrawnCompletion) -> list[Token]:
    """Return the tokens of a completion with their credit, none if it does not vary."""
    credit = row.credit or []
    largest = max((abs(value) for _, value in credit if value is not None), default=0.0) or 1.0
    tokens = []
    for piece, value in credit:
        if value is None:
            tokens.append(Token(piece, "others", 0.0, "not written by the model"))
        else:
            kind = "up" if value >= 0 else "down"
            tokens.append(Token(piece, kind, abs(value) / largest, show.number(value, "+")))
    return tokens
