"""Show completions on the terminal. Text of a model is escaped and never markup."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.text import Text

from alignzoo.cli.render import beside, clean, shorten, start_table
from alignzoo.data import MODEL
from alignzoo_view.read import DrawnCompletion, EvaluatedCompletion
from alignzoo_view.select import AnswerPair, Selection, StepSummary, spread

MOST_STEPS = 12  # rows of the table


def show(found: Selection, console: Console) -> None:
    """Print the means of the steps, the completions, and the answers to held-out prompts."""
    if found.steps:
        show_steps(found.steps, console)
    for rows in found.drawn.values():
        show_drawn(rows, console)
    show_pairs(found.pairs, console)


def show_steps(steps: Sequence[StepSummary], console: Console) -> None:
    """Print a row of means for each step, evenly spaced if there are many."""
    table = start_table(["completions", "reward", "tokens", "ended"])
    for one in spread(steps, MOST_STEPS):
        cells = [f"{one.completions}", number(one.reward), f"{one.length:.1f}", f"{one.ended:.0%}"]
        table.add_row(f"step {one.step}", *cells)
    console.print(table)


def show_drawn(rows: Sequence[DrawnCompletion], console: Console) -> None:
    """Print completions of training, each under its prompt and its numbers."""
    for row in rows:
        print_prompt(f"step {row.step}, prompt", row.prompt, console)
        console.print(Text(clean(describe_drawn(row)), style="dim"))
        console.print(show_turns(row) or color_credit(row) or as_text(row.completion))
        console.print()


def show_pairs(pairs: Sequence[AnswerPair], console: Console) -> None:
    """Print the answers to held-out prompts before and after, side by side."""
    for pair in pairs:
        print_prompt("held-out prompt", pair.prompt, console)
        columns = {
            describe_answer(answer): write_turns(answer) or shorten(answer.completion)
            for answer in (pair.before, pair.after)
        }
        console.print(beside(columns, console.width, narrow=0))
        console.print()


def as_text(completion: str) -> Text:
    """Return a completion as it is shown."""
    return Text(clean(shorten(completion)) or "(empty)")


def show_turns(row: DrawnCompletion) -> Text | None:
    """Return the turns of an episode, those of the environment dim; None without turns."""
    if row.turns is None:
        return None
    lines = [
        Text(clean(f"{label_turn(who, reward)}: {shorten(said)}"), "" if who == MODEL else "dim")
        for who, said, reward in row.turns
    ]
    return Text("\n").join(lines)


def write_turns(row: EvaluatedCompletion) -> str:
    """Return the turns of an episode, each with who wrote it; "" without turns."""
    return "\n".join(f"{who}: {shorten(said)}" for who, said in row.turns or ())


def label_turn(who: str, reward: float | None) -> str:
    """Return who wrote a turn, with its reward if it has one."""
    return f"{who} ({number(reward, '+')})" if reward else who


def print_prompt(label: str, prompt: str, console: Console) -> None:
    """Print a prompt on a bold line."""
    console.print(Text(f"{label}: {clean(shorten(prompt))}", style="bold"))


def describe_drawn(row: DrawnCompletion) -> str:
    """Return the numbers of a completion: `reward 0.5 (task 1, length -0.5), credit +0.3, ...`."""
    named = ", ".join(f"{name} {number(score)}" for name, score in row.rewards.items())
    parts = [
        f"reward {number(row.reward)}" + (f" ({named})" if named else ""),
        f"credit {number(row.advantage, '+')}",
        describe_length(row),
    ]
    if row.credit is not None:
        parts.append(describe_credit(row.credit))
    return ", ".join(parts)


def describe_credit(credit: Sequence[tuple[str, float | None]]) -> str:
    """Return the tokens with the lowest and the highest credit."""
    known = [(value, piece) for piece, value in credit if value is not None]
    if not known:
        return "no credit per token"
    (low, first), (high, last) = (f(known, key=lambda one: one[0]) for f in (min, max))
    return f"per token from {number(low, '+')} at {first!r} to {number(high, '+')} at {last!r}"


def describe_answer(row: EvaluatedCompletion) -> str:
    """Return the evaluation, the score and the length of an answer."""
    score = [] if row.score is None else [f"score {number(row.score)}"]
    return clean(", ".join([row.phase, *score, describe_length(row)]))


def describe_length(row: DrawnCompletion | EvaluatedCompletion) -> str:
    """Return the length, and whether the completion ended by itself."""
    tokens = "1 token" if row.length == 1 else f"{row.length} tokens"
    return f"{tokens}, {'ended' if row.ended else 'cut off'}"


def color_credit(row: DrawnCompletion) -> Text | None:
    """Return the tokens in green or red by their credit, None if it does not vary."""
    if row.credit is None:
        return None
    text = Text()
    for piece, value in row.credit:
        style = "dim" if value is None else "green" if value > 0 else "red" if value < 0 else ""
        text.append(clean(piece), style=style)
    return text


def number(value: float | None, sign: str = "") -> str:
    """Return a number with three digits, and a dash for none."""
    return "-" if value is None else format(value, f"{sign}.3g")
