"""`alignzoo leaderboard`: the boards of several machines as one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar

from alignzoo import BadInput
from alignzoo.cli.quiet import quiet
from alignzoo.cli.render import lines
from alignzoo.cli.terminal import console_for
from alignzoo.files import write_text
from alignzoo_compare.board import Board, Row, read_board
from alignzoo_compare.cell import key_of

Facts = dict[str, Any]
# What a cell comes to, wherever and whenever it is run.
RESULTS = ("status", "trial", "items", "steps")


@dataclass
class LeaderboardCommand:
    """Merge boards of `alignzoo compare`, from one machine or several, into one report.

    Boards are comparable if they have the same budget, base, tasks, code and settings.
    """

    boards: Annotated[list[str], "folders of comparisons"]
    out: Annotated[str, "folder of the report"] = "leaderboard"
    apart: Annotated[bool, "show boards that are not comparable as separate sections"] = False
    markdown: Annotated[
        str | None, "Markdown file, such as a README, to write the tables into between two markers"
    ] = None

    positional: ClassVar[str] = "boards"

    def main(self) -> None:
        """Run the command."""
        with quiet() as log:
            console = console_for(log.out)
            boards = [read_board(Path(folder).expanduser()) for folder in self.boards]
            groups = group_boards(boards) if self.apart else [check_comparable(boards)]
            from alignzoo_compare.report import Section, summarise_board, write_sections
            from alignzoo_compare.report.readme import insert_tables

            out = Path(self.out).expanduser()
            out.mkdir(parents=True, exist_ok=True)
            merged = [merge_boards(group, out) for group in groups]
            titles = name_groups(groups) if len(groups) > 1 else [""]
            sections = [
                Section(title, board, summarise_board(board))
                for title, board in zip(titles, merged, strict=True)
            ]
            write_sections(out, sections, console)
            if self.markdown is not None:
                path = Path(self.markdown).expanduser()
                write_text(path, insert_tables(path, sections))
                lines(console, [f"tables: {path}"])


def name_groups(groups: Sequence[Sequence[Board]]) -> list[str]:
    """Return the title of each group: the names of its folders, or their paths if two are equal."""
    names = [board.folder.resolve().name for group in groups for board in group]
    unique = len(set(names)) == len(names)
    return [
        " + ".join(board.folder.resolve().name if unique else str(board.folder) for board in group)
        for group in groups
    ]


def list_facts(board: Board) -> Facts:
    """Return what must be equal in boards that are compared, as far as the board has it.

    Raise `BadInput` if the board itself has cells that are not comparable.
    """
    grid = board.grid
    unit = "FLOPs" if grid.track == "flops" else "labels, pairs or calls"
    facts: Facts = {"budget": f"{grid.budget_amount:g} {unit}"}
    for name in ("eval_size", "trials", "common"):
        facts[name] = getattr(grid, name)
    facts |= {f"settings of entry {name}": own for name, own in grid.entries.items()}
    for row in board.rows:
        for name, value in facts_of(row, grid.model is not None).items():
            if facts.setdefault(name, value) != value:
                raise BadInput(
                    f"cells of one board differ in {name}: {shorten(facts[name])} and "
                    f"{shorten(value)}",
                    where=str(board.folder),
                    hint="run one of them again in another folder",
                )
    return facts


def facts_of(row: Row, one_model: bool) -> Facts:
    """Return the conditions of a finished row's run; all tasks may have one model as their base."""
    if row["status"] != "finished":
        return {}
    marks, task = row["fingerprints"], row["task"]
    of_task = "" if one_model else f" of task {task}"
    facts = {
        "the version of alignzoo": marks["code"],
        f"the base{of_task}": marks.get("model"),
        f"the weights of the base{of_task}": marks.get("weights"),
        f"the code of entry {row['entry']}": marks.get("plugin"),
    }
    if row["kind"] == "final":
        facts[f"the version of task {task}"] = marks.get("task")
    return facts


def shorten(value: Any) -> str:
    """Return a fact as a message shows it."""
    text = str(value)
    return text if len(text) <= 60 else f"{text[:59]}…"


def find_difference(first: Board, second: Board) -> str | None:
    """Return in what two boards differ so that they cannot be compared, or None."""
    one, other = list_facts(first), list_facts(second)
    for name in one:
        if name in other and one[name] != other[name]:
            return f"{name}: {shorten(one[name])} and {shorten(other[name])}"
    rows = {key_of(row): row for row in first.rows}
    for row in second.rows:
        same = rows.get(key_of(row))
        if same is not None and any(same.get(name) != row.get(name) for name in RESULTS):
            kind, entry, task, number = key_of(row)
            return f"the results of the same cell: {entry} on {task}, {kind} {number}"
    return None


def check_comparable(boards: Sequence[Board]) -> list[Board]:
    """Return the boards; raise `BadInput` that names two which differ, and in what."""
    for place, board in enumerate(boards):
        for other in boards[:place]:
            difference = find_difference(other, board)
            if difference is not None:
                raise BadInput(
                    f"{other.folder} and {board.folder} are not comparable; they differ in "
                    f"{difference}",
                    hint="add --apart to show them as separate sections",
                )
    return list(boards)


def group_boards(boards: Sequence[Board]) -> list[list[Board]]:
    """Return groups of boards that are comparable with each other, in the order of the boards."""
    groups: list[list[Board]] = []
    for board in boards:
        for group in groups:
            if all(find_difference(other, board) is None for other in group):
                group.append(board)
                break
        else:
            groups.append([board])
    return groups


def merge_boards(boards: Sequence[Board], folder: Path) -> Board:
    """Return one board with all entries, tasks, seeds and rows; a cell that two have is one."""
    grid = replace(
        boards[0].grid,
        tasks=tuple(dict.fromkeys(task for board in boards for task in board.grid.tasks)),
        entries={name: own for board in boards for name, own in board.grid.entries.items()},
        seeds=max(board.grid.seeds for board in boards),
        curve=max(board.grid.curve for board in boards),
    )
    rows = {key_of(row): row for board in boards for row in board.rows}
    return Board(folder, grid, list(rows.values()))
