"""Load the rows of a task, a file or the Hub as training and held-out examples, with a report."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from alignzoo.batch import Example
from alignzoo.data.codec import Codec
from alignzoo.data.columns import MOST_NAMES, Columns, columns_of, message_keys, read_columns
from alignzoo.data.dataset import Data, drop_held_out_prompts, hold_out, unique_prompts
from alignzoo.data.derive import (
    Item,
    Plan,
    plan_for_columns,
    plan_for_views,
)
from alignzoo.data.formats import Row
from alignzoo.data.mixture import divide_holdout, mix, refuse_duplicates
from alignzoo.data.names import DataSpec, parse_data
from alignzoo.data.read import Part, Table, location, read_table
from alignzoo.data.report import Report
from alignzoo.data.task import dev_split, name_of_task, read_task_rows
from alignzoo.data.token_cache import Tokenized, cache_path, read_tokens, write_tokens
from alignzoo.data.values import BadValue, UnusableRow, is_missing, parse_label
from alignzoo.data.views import VIEWS, Prompts, View
from alignzoo.errors import BadInput, count

Where = Callable[[int], str]  # the location of a row, by its number


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
    """Load the examples of a view from `data`, or else from the splits of a task.

    Up to `holdout` rows of `data`, and at most a tenth (at least one of ten), are held out, and
    none with the same prompt is trained on; the test files of a folder take their place.
    `parse_data` says how several data sets are named, `mix` how they are mixed. With `strict`,
    raise `BadInput` for an unusable row instead of leaving it out.
    """
    loader = _Loader(view, codec, max_length, strict, seed)
    if data is not None:
        loaded = loader.from_names(parse_data(data), holdout)
    elif task is not None:
        loaded = loader.from_task(task, holdout)
    else:
        raise ValueError("load_data needs a task or data")
    loaded.report.notes += codec.notes
    return loaded


def load_rows(view: type[View], data: str) -> tuple[list[Row], Report]:
    """Load all rows of a file, a folder or a name on the Hub in a view's columns, as text.

    The report has those that were left out.
    """
    table = read_table(data)
    rows = _rows(table.train)
    columns = columns_of(rows)
    plan = plan_for_columns(view, columns, labelled=False)
    if plan is None or plan.derivations:
        raise _no_columns(view, columns, data)
    report = Report(source=data, read=len(rows))
    reading = _reading(plan, rows)
    report.notes += reading.notes(rewarded=False)
    items = _canonical(plan, reading, rows, partial(location, table.train), report)
    return [row for _, row in items], report


def fingerprint(rows: Iterable[Row]) -> str:
    """Compute the SHA-256 over the rows as JSON with sorted keys, a line each."""
    digest = hashlib.sha256()
    for row in rows:
        digest.update(json.dumps(row, sort_keys=True, separators=(",", ":"), default=str).encode())
        digest.update(b"\n")
    return digest.hexdigest()


@dataclass(frozen=True)
class _Loader:
    """The settings of `load_data`, with a method for each kind of source."""

    view: type[View]
    codec: Codec
    max_length: int
    strict: bool
    seed: int

    def from_names(self, sources: list[DataSpec], holdout: int) -> Data:
        """Load one data set, or mix several."""
        tables = [read_table(source.name) for source in sources]
        refuse_duplicates(sources, tables)
        wanted = divide_holdout(sources, tables, holdout)
        loaded = [
            self.from_table(source.name, table, n)
            for source, table, n in zip(sources, tables, wanted, strict=True)
        ]
        return loaded[0] if len(loaded) == 1 else mix(self.view, sources, loaded)

    def from_table(self, data: str, table: Table, holdout: int) -> Data:
        """Load the rows of one data set; its test files, if any, are what is held out."""
        rows, test_rows = _rows(table.train), _rows(table.test)
        columns = columns_of(rows)
        plan = plan_for_columns(self.view, columns, _has_boolean_labels(rows))
        if plan is None:
            raise _no_columns(self.view, columns, data)
        report = Report(source=data, max_length=self.max_length)
        reading = _reading(plan, [*rows, *test_rows])
        report.notes += reading.notes(rewarded=self.view is Prompts)
        keys = message_keys(rows, [plan.renamed.get(name, name) for name in plan.form])
        if keys:
            listing = ", ".join(f"{key!r:.60}" for key in keys[:MOST_NAMES])
            report.notes.append(f"keys of messages that only a chat template reads: {listing}")
        if table.unread:
            unread = ", ".join(table.unread)
            report.notes.append(f"not read, since other files are named train: {unread}")
        where = partial(location, table.train)
        train = self.examples(plan, reading, rows, where, report)
        if table.test:
            where_test = partial(location, table.test)
            test = self.held_out(plan, reading, test_rows, where_test, report, holdout)
            report.notes.append(f"held out: {', '.join(part.name for part in table.test)}")
            train = drop_held_out_prompts(self.view, train, test, report)
        else:
            train, test = hold_out(self.view, train, holdout, self.seed)
        prompts = unique_prompts(self.view, (example.row for example in test))
        self.finish(report, train, test, where)
        return Data(train, test, report, fingerprint([*rows, *test_rows]), prompts)

    def from_task(self, task: Any, holdout: int) -> Data:
        """Load the training split of a task, and `holdout` rows of its dev split."""
        name = name_of_task(task)
        plan = plan_for_views(self.view, task.views)
        if plan is None:
            raise BadInput(
                f"task {name!r} has no {self.view.name}, nor data to derive them from",
                hint=f"it has: {', '.join(task.views)}",
            )
        report = Report(source=f"task {name}", max_length=self.max_length)
        split = dev_split(task)
        rows = read_task_rows(task, plan.start.name, "train")
        test_rows = read_task_rows(task, plan.start.name, split) if holdout else []
        where = f"task {name}, {plan.start.name}"
        reading = Columns()
        train = self.examples(plan, reading, rows, _numbered(f"{where}, train"), report)
        where_test = _numbered(f"{where}, {split}")
        test = self.held_out(plan, reading, test_rows, where_test, report, holdout)
        prompts = self.prompts_of(task, f"task {name}")[:holdout] if holdout else []
        self.finish(report, train, test, _numbered(f"{where}, train"))
        return Data(train, test, report, fingerprint([*rows, *test_rows]), prompts)

    def prompts_of(self, task: Any, where: str) -> list[Row]:
        """Return the task's held-out prompts, from the view of it that has them."""
        plan = plan_for_views(Prompts, task.views)
        if plan is None:
            return []
        split = dev_split(task)
        rows = read_task_rows(task, plan.start.name, split)
        place = _numbered(f"{where}, {plan.start.name}, {split}")
        items = _canonical(plan, Columns(), rows, place, Report())
        derived, _ = plan.run(items, self.seed)
        return unique_prompts(Prompts, (row for _, row in derived))

    def examples(
        self, plan: Plan, reading: Columns, rows: list[Row], where: Where, report: Report
    ) -> list[Example]:
        """Return the usable rows as token ids; the others go into the report."""
        report.read += len(rows)
        items, sentences = plan.run(_canonical(plan, reading, rows, where, report), self.seed)
        report.derivations += sentences
        tokenized = self.tokenize(plan, items, where, report.notes)
        found = []
        for (number, _), one, remarks in zip(
            items, tokenized.encoded, tokenized.remarks, strict=True
        ):
            for remark in remarks:
                report.remark(remark, number)
            if one.example is None:
                report.leave_out(str(one.reason), number)
            else:
                report.truncated.update(one.truncated)
                found.append(one.example)
        return found

    def tokenize(self, plan: Plan, items: list[Item], where: Where, notes: list[str]) -> Tokenized:
        """Return rows as token ids, from the cache if it has them."""
        rows = [row for _, row in items]
        path = cache_path(self.view, self.codec, self.max_length, rows)
        # Rows that no derivation made are canonical already.
        canonical = self.view.canonical if plan.derivations else lambda row: row
        tokenized = read_tokens(path, rows, canonical, notes) if path else None
        if tokenized is None:
            tokenized = self.encode(plan, items, where)
            if path:
                write_tokens(path, tokenized)
        for note in tokenized.notes:
            self.codec.note(note)
        return tokenized

    def encode(self, plan: Plan, items: list[Item], where: Where) -> Tokenized:
        """Encode rows."""
        made = Tokenized([], [], [])
        self.codec.take_remarks()
        before, self.codec.notes = self.codec.notes, made.notes
        try:
            for number, row in items:
                encode = _located(self.view.encode, where, number, plan.renamed)
                made.encoded.append(encode(row, self.codec, self.max_length))
                made.remarks.append(self.codec.take_remarks())
        finally:
            self.codec.notes = before
        return made

    def held_out(
        self,
        plan: Plan,
        reading: Columns,
        rows: list[Row],
        where: Where,
        report: Report,
        holdout: int,
    ) -> list[Example]:
        """Return the first rows of a test set, noting those left out; none is trained on."""
        aside = Report(max_length=self.max_length)
        found = self.examples(plan, reading, rows[:holdout], where, aside)
        report.notes += [f"of the held-out rows, {reason}" for reason in aside.reasons()]
        return found[:holdout]

    def finish(
        self, report: Report, train: list[Example], test: list[Example], where: Where
    ) -> None:
        """Complete the report; raise `BadInput` if `strict` forbids to go on or no row is left."""
        report.train, report.test = len(train), len(test)
        if self.strict and report.left_out:
            reason, numbers = next(iter(report.left_out.items()))
            raise BadInput(
                f"unusable row: {reason}",
                where=where(numbers[0]),
                hint="without --fail-on-bad-rows it is skipped; in total: "
                + "; ".join(report.reasons()),
            )
        if not train:
            raise BadInput(
                f"no usable rows ({count(report.read, 'row')} read)",
                where=report.source,
                hint="; ".join([*report.derivations, *report.reasons()]) or None,
            )


def _reading(plan: Plan, rows: list[Row]) -> Columns:
    return read_columns(plan.form, plan.renamed, plan.start.optional, rows)


def _canonical(
    plan: Plan, reading: Columns, rows: list[Row], where: Where, report: Report
) -> list[Item]:
    """Normalise the rows to the view that the plan starts from."""

    def read(row: Row) -> Row:
        return plan.start.canonical(reading.apply(row))

    items = []
    for number, row in enumerate(rows, start=1):
        try:
            items.append((number, _located(read, where, number, plan.renamed)(row)))
        except UnusableRow as reason:
            report.leave_out(str(reason), number)
    return items


def _located(
    function: Callable[..., Any], where: Where, number: int, renamed: dict[str, str]
) -> Callable[..., Any]:
    """Wrap a function so that its `BadInput` has the location of the row."""

    def call(*args: Any) -> Any:
        try:
            return function(*args)
        except BadValue as error:
            column = renamed.get(error.column, error.column)
            cell = f"{where(number)}, column {column!r}"
            raise BadInput(error.problem, where=cell, hint=error.hint) from None
        except BadInput as error:
            raise BadInput(error.problem, where=where(number), hint=error.hint) from None

    return call


def _rows(parts: Iterable[Part]) -> list[Row]:
    return [row for part in parts for row in part.rows]


def _numbered(where: str) -> Where:
    return lambda number: f"{where}, row {number}"


def _has_boolean_labels(rows: Iterable[Row]) -> bool:
    """Return True if all values of the `label` column are true or false."""
    try:
        return all(
            isinstance(parse_label(row["label"]), bool)
            for row in rows
            if not is_missing(row.get("label"))
        )
    except BadValue:
        return False


def _no_columns(view: type[View], columns: list[str], data: str) -> BadInput:
    """Return the error for a table without the columns of a view, by the closest form."""
    form = min(view.forms, key=lambda form: len(set(form) - set(columns)))
    lacking = [column for column in form if column not in columns]
    forms = " or ".join(" + ".join(form) for form in view.forms)
    possible = [v.name for v in VIEWS.values() if plan_for_columns(v, columns)]
    use = f" As it is, the file can serve as: {', '.join(possible)}." if possible else ""
    noun = "column" if len(lacking) == 1 else "columns"
    return BadInput(
        f"{noun} {', '.join(map(repr, lacking))} missing; {view.name} need {forms}",
        where=data,
        hint=f"columns: {', '.join(columns) or 'none'}. Rename or add columns.{use}",
    )
