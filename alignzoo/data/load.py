"""`load_data`: the rows of a task, a file or the hub as examples to learn from, with an account."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from alignzoo.batch import Example
from alignzoo.data.codec import Codec
from alignzoo.data.dataset import Data
from alignzoo.data.derive import Item, Plan, columns_of, plan_for_columns, plan_for_views, rename
from alignzoo.data.dialogue import BadValue, missing
from alignzoo.data.formats import Row
from alignzoo.data.holdout import prompts_in, split, unasked
from alignzoo.data.mixture import holdouts, mixed, refuse_twice
from alignzoo.data.names import Source, sources_of
from alignzoo.data.read import Part, Table, place, read_table
from alignzoo.data.report import Report, count
from alignzoo.data.views import VIEWS, Prompts, TeachesNothing, View, label_of
from alignzoo.errors import BadInput

Where = Callable[[int], str]  # the place of a row, by its number


def load_data(
    view: type[View],
    codec: Codec,
    *,
    task: Any = None,
    data: str | Mapping[str, Any] | None = None,
    max_length: int,
    strict: bool,
    seed: int,
    holdout: int,
) -> Data:
    """The examples of a view.

    With `data`, nothing of the task is used. Up to `holdout` rows of it, and at most a tenth, are
    held out (at least one of ten), no prompt of theirs being learnt; a folder with test files
    gives those instead. Several data sets are mixed: `sources_of` says how they are named, `mixed`
    what becomes of them. Without, the rows are the task's, from its own splits.
    """
    loader = _Loader(view, codec, max_length, strict, seed)
    if data is not None:
        loaded = loader.from_names(sources_of(data), holdout)
    elif task is not None:
        loaded = loader.from_task(task, holdout)
    else:
        raise ValueError("load_data needs a task or data")
    loaded.report.notes += codec.notes
    return loaded


def rows_of(view: type[View], data: str) -> tuple[list[Row], Report]:
    """All rows of a file, a folder or a name on the hub in a view's own columns, untokenized, with
    an account of those that are left out."""
    table = read_table(data)
    rows = _rows(table.train)
    columns = columns_of(rows)
    plan = plan_for_columns(view, columns, labelled=False)
    if plan is None or plan.steps:
        raise _no_columns(view, columns, data)
    report = Report(source=data, read=len(rows))
    report.notes += [_alias_note(*pair, columns) for pair in plan.renamed.items()]
    items = _canonical(plan, rows, partial(place, table.train), report)
    return [row for _, row in items], report


def fingerprint(rows: Iterable[Row]) -> str:
    """SHA-256 over the rows as JSON with sorted keys, a line each."""
    digest = hashlib.sha256()
    for row in rows:
        digest.update(json.dumps(row, sort_keys=True, separators=(",", ":"), default=str).encode())
        digest.update(b"\n")
    return digest.hexdigest()


@dataclass(frozen=True)
class _Loader:
    """What is asked for, and the two places it is had from."""

    view: type[View]
    codec: Codec
    max_length: int
    strict: bool
    seed: int

    def from_names(self, sources: list[Source], holdout: int) -> Data:
        tables = [read_table(source.name) for source in sources]
        refuse_twice(sources, tables)
        wanted = holdouts(sources, tables, holdout)
        loaded = [
            self.from_table(source.name, table, n)
            for source, table, n in zip(sources, tables, wanted, strict=True)
        ]
        return loaded[0] if len(loaded) == 1 else mixed(self.view, sources, loaded)

    def from_table(self, data: str, table: Table, holdout: int) -> Data:
        rows, test_rows = _rows(table.train), _rows(table.test)
        columns = columns_of(rows)
        plan = plan_for_columns(self.view, columns, _truth_labels(rows))
        if plan is None:
            raise _no_columns(self.view, columns, data)
        report = Report(source=data, max_length=self.max_length)
        report.notes += [_alias_note(*pair, columns) for pair in plan.renamed.items()]
        if table.unread:
            unread = ", ".join(table.unread)
            report.notes.append(f"not read, because other files are named train: {unread}")
        where = partial(place, table.train)
        train = self.examples(plan, rows, where, report)
        if table.test:
            where_test = partial(place, table.test)
            test = self.held_out(plan, test_rows, where_test, report, holdout)
            report.notes.append(f"held out: {', '.join(part.name for part in table.test)}")
            train = unasked(self.view, train, test, report)
        else:
            train, test = split(self.view, train, holdout, self.seed)
        prompts = prompts_in(self.view, (example.row for example in test))
        self.finish(report, train, test, where)
        return Data(train, test, report, fingerprint([*rows, *test_rows]), prompts)

    def from_task(self, task: Any, holdout: int) -> Data:
        name = getattr(task, "name", None) or type(task).__name__.lower()
        plan = plan_for_views(self.view, task.views)
        if plan is None:
            raise BadInput(
                f"task {name!r} has no {self.view.name}, nor what they could be derived from",
                hint=f"it has: {', '.join(task.views)}",
            )
        report = Report(source=f"task {name}", max_length=self.max_length)
        rows = task.rows(plan.start.name, "train")
        test_rows = task.rows(plan.start.name, "test") if holdout else []
        where = f"task {name}, {plan.start.name}"
        train = self.examples(plan, rows, _numbered(f"{where}, train"), report)
        test = self.held_out(plan, test_rows, _numbered(f"{where}, test"), report, holdout)
        prompts = self.prompts_of(task, f"task {name}")[:holdout] if holdout else []
        self.finish(report, train, test, _numbered(f"{where}, train"))
        return Data(train, test, report, fingerprint([*rows, *test_rows]), prompts)

    def prompts_of(self, task: Any, where: str) -> list[Row]:
        """The task's held-out prompts, from whichever of its views has them."""
        plan = plan_for_views(Prompts, task.views)
        if plan is None:
            return []
        rows = task.rows(plan.start.name, "test")
        items = _canonical(plan, rows, _numbered(f"{where}, {plan.start.name}, test"), Report())
        derived, _ = plan.run(items, self.seed)
        return prompts_in(Prompts, (row for _, row in derived))

    def examples(self, plan: Plan, rows: list[Row], where: Where, report: Report) -> list[Example]:
        """The rows that can teach something, as token ids; the others go into the report."""
        report.read += len(rows)
        items, said = plan.run(_canonical(plan, rows, where, report), self.seed)
        report.derivations += said
        found = []
        for number, row in items:
            encode = _located(self.view.encode, where, number, plan.renamed)
            example, reason, truncated = encode(row, self.codec, self.max_length)
            if example is None:
                report.leave_out(reason, number)
            else:
                report.truncated.update(truncated)
                found.append(example)
        return found

    def held_out(
        self, plan: Plan, rows: list[Row], where: Where, report: Report, holdout: int
    ) -> list[Example]:
        """The first rows of a test set. What is left out of them is a note: none is learnt."""
        aside = Report(max_length=self.max_length)
        found = self.examples(plan, rows[:holdout], where, aside)
        report.notes += [f"of the held-out rows, {reason}" for reason in aside.reasons()]
        return found[:holdout]

    def finish(
        self, report: Report, train: list[Example], test: list[Example], where: Where
    ) -> None:
        """Complete the report, and refuse what is not to be trained on."""
        report.train, report.test = len(train), len(test)
        if self.strict and report.left_out:
            reason, numbers = next(iter(report.left_out.items()))
            raise BadInput(
                f"this row can teach nothing: {reason}",
                where=where(numbers[0]),
                hint=f"without --strict it is left out; in all: {'; '.join(report.reasons())}",
            )
        if not train:
            raise BadInput(
                f"none of the {count(report.read, 'row')} can be learnt from",
                where=report.source,
                hint="; ".join([*report.derivations, *report.reasons()]) or None,
            )


def _canonical(plan: Plan, rows: list[Row], where: Where, report: Report) -> list[Item]:
    """The rows in the spelling of the view that the plan starts from."""

    def read(row: Row) -> Row:
        row = rename(row, plan.renamed)
        for column in plan.form:
            if missing(row.get(column)):
                there = ", ".join(name for name in row if not missing(row[name]))
                raise BadValue(column, "missing in this row", hint=f"columns of this row: {there}")
        return plan.start.canonical(row)

    items = []
    for number, row in enumerate(rows, start=1):
        try:
            items.append((number, _located(read, where, number, plan.renamed)(row)))
        except TeachesNothing as reason:
            report.leave_out(str(reason), number)
    return items


def _located(
    function: Callable[..., Any], where: Where, number: int, renamed: dict[str, str]
) -> Callable[..., Any]:
    """The function, with the place of the row put into its `BadInput`."""

    def call(*args: Any) -> Any:
        try:
            return function(*args)
        except BadValue as error:
            column = renamed.get(error.column, error.column)
            place = f"{where(number)}, column {column!r}"
            raise BadInput(error.problem, where=place, hint=error.hint) from None
        except BadInput as error:
            raise BadInput(error.problem, where=where(number), hint=error.hint) from None

    return call


def _rows(parts: Iterable[Part]) -> list[Row]:
    return [row for part in parts for row in part.rows]


def _numbered(where: str) -> Where:
    return lambda number: f"{where}, row {number}"


def _truth_labels(rows: Iterable[Row]) -> bool:
    """Whether the `label` column, where it has a value, says true or false everywhere."""
    try:
        return all(
            isinstance(label_of(row["label"]), bool)
            for row in rows
            if not missing(row.get("label"))
        )
    except BadValue:
        return False


def _alias_note(name: str, alias: str, columns: list[str]) -> str:
    more = " (followed by 'input')" if alias == "instruction" and "input" in columns else ""
    return f"column {alias!r}{more} was read as {name!r}"


def _no_columns(view: type[View], columns: list[str], data: str) -> BadInput:
    """The error for a table without the columns of a view, by the form that is closest."""
    form = min(view.forms, key=lambda form: len(set(form) - set(columns)))
    lacking = [column for column in form if column not in columns]
    forms = " or ".join(" + ".join(form) for form in view.forms)
    possible = [v.name for v in VIEWS.values() if plan_for_columns(v, columns)]
    use = f" As it is, the file can serve as: {', '.join(possible)}." if possible else ""
    noun = "column" if len(lacking) == 1 else "columns"
    return BadInput(
        f"{noun} {', '.join(map(repr, lacking))} missing; {view.name} need {forms}",
        where=data,
        hint=f"columns there: {', '.join(columns) or 'none'}. Rename or add columns.{use}",
    )
