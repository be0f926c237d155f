"""The folder of a run: `run.json`, the logs beside it, and the names of folders."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock, Timeout

from alignzoo import deprecated
from alignzoo.changes import (
    find_changed_plugins,
    find_changes,
    find_other_versions,
    merge_plugins,
)
from alignzoo.errors import BadInput
from alignzoo.files import (
    append_lines,
    json_lines,
    read_lines,
    require_regular,
    sync_file,
    temporary_name,
    unused_name,
    without_non_finite,
    write_json,
    write_text,
)
from alignzoo.ledger import Ledger

UpdateRecipe = Callable[[Mapping[str, Any]], dict[str, Any]]
Status = Literal["running", "finished", "failed", "interrupted"]
RUN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
LOGS = ("metrics.jsonl", "evals.jsonl", "feedback.jsonl", "rollouts.jsonl", "log.txt")
LOCK = ".lock"
# What a crash leaves of a run of which no run.json was written, and a run that was refused.
NOT_BEGUN = {LOCK, temporary_name("run.json")}
REFUSED = {"run.json", "log.txt", *NOT_BEGUN}


@dataclass
class StoredEstimate:
    """A mean of an evaluation, as `run.json` has it."""

    mean: float
    low: float | None
    high: float | None
    n: int


@dataclass
class StoredRecipe:
    """The part of a run's recipe that is read before the recipe is checked."""

    algorithm: str
    options: dict[str, Any] | None = None
    task: str | None = None


@dataclass
class StoredPlatform:
    """The part of a run's versions and platform that is compared when it is resumed."""

    packages: dict[str, str] = field(default_factory=dict)
    processes: int | None = None


@dataclass
class StoredPlugin:
    """A plugin that a run has loaded, as `run.json` has it."""

    kind: str
    name: str
    package: str
    version: str
    sha256: str | None
    checked: int | None = None


@dataclass
class StoredFacts:
    """The keys of `run.json` that are read again, and their types. There are others."""

    recipe: StoredRecipe
    status: str
    plugins: list[StoredPlugin] = field(default_factory=list)
    fingerprints: dict[str, str | None] = field(default_factory=dict)
    environment: StoredPlatform = field(default_factory=StoredPlatform)
    results: dict[str, dict[str, StoredEstimate]] = field(default_factory=dict)
    ledger: Ledger = field(default_factory=Ledger)
    ledger_at_evaluation: Ledger = field(default_factory=Ledger)
    changes: list[str] = field(default_factory=list)


class Record:
    """The folder of one run. `run.json` is rewritten as a whole; `.jsonl` files are appended to.

    Args:
        folder: where the run is saved.
        facts: the contents of `run.json`. Write them by the methods `set_*`.
        is_writer: False for a process that writes nothing; of several, only the main one writes.
        lock: held until `close`, so that no second program writes to the folder.
    """

    def __init__(
        self,
        folder: Path,
        facts: dict[str, Any],
        is_writer: bool = True,
        lock: FileLock | None = None,
    ):
        self.folder, self.facts = folder, facts
        self.is_writer = is_writer
        self.lock = lock
        self.note: Callable[[str], None] = lambda text: None  # shows a line to the user
        self.told: set[tuple[str, str]] = set()  # numbers that were not finite, by file
        self.notes: list[str] = []  # what is different from when a resumed run began

    @property
    def checkpoints(self) -> Path:
        """Return the folder of the checkpoints, which may not exist."""
        return self.folder / "checkpoints"

    @property
    def results(self) -> Mapping[str, Any]:
        """Return the summaries of the evaluations by phase: "before", "step N", "after"."""
        return self.facts["results"]

    def set_fact(self, name: str, value: Any) -> None:
        """Set a key of `run.json`. It is written to disk by the next `set_status`."""
        self.facts[name] = value

    def set_fact_once(self, name: str, value: Any) -> Any:
        """Set a key of `run.json` unless a resumed run has it already, and return its value."""
        return self.facts.setdefault(name, value)

    def add_model(self, name: str, fingerprint: str) -> None:
        """Add another model that the run uses to `run.json`.

        Raise `BadInput` if a resumed run had other weights under this name.
        """
        if self.facts.setdefault("models", {}).setdefault(name, fingerprint) != fingerprint:
            raise BadInput(
                "the weights have changed since the run began",
                where=name,
                hint="restore them, or begin a new run",
            )

    def add_plugins(self, plugins: Sequence[Mapping[str, Any]], *, allow_changes: bool) -> None:
        """Add plugins that were loaded to `run.json`.

        Raise `BadInput` if a resumed run had other code under one of their names, unless
        `allow_changes`.
        """
        changes = find_changed_plugins(self.facts, plugins)
        self.accept_changes(changes, allow_changes=allow_changes)
        self.facts["plugins"] = merge_plugins(self.facts.get("plugins", []), plugins)

    def accept_changes(self, changes: Sequence[str], *, allow_changes: bool) -> None:
        """Write down what has changed since the run began; without permission, raise `BadInput`."""
        if changes and not allow_changes:
            raise BadInput(
                f"cannot be resumed: {'; '.join(changes)}",
                where=str(self.folder),
                hint="to go on with what there is now, add --allow-changes",
            )
        if changes:
            self.notes += changes
            for change in changes:
                self.note(change)
            self.set_fact("changes", [*self.facts.get("changes", []), *changes])

    def set_result(self, phase: str, summary: Mapping[str, Any], ledger: Ledger) -> None:
        """Set the summary of an evaluation, and what was spent when it was done.

        They are written to disk by the next `set_status`.
        """
        self.facts["results"][phase] = summary
        self.facts["ledger_at_evaluation"] = ledger.as_dict()

    def restore_evaluated(self, ledger: Ledger) -> None:
        """Set a ledger to what was spent when the last evaluation was done."""
        ledger.restore(self.facts["ledger_at_evaluation"])

    def set_status(self, status: Status, ledger: Ledger | None = None, **more: Any) -> None:
        """Set the status, the ledger and further keys of `run.json`, and write it to disk."""
        self.facts.update(status=status, **more)
        if ledger is not None:
            self.facts["ledger"] = ledger.as_dict()
        if self.is_writer:
            write_json(self.folder / "run.json", self.facts)

    def finish(self, ledger: Ledger, **more: Any) -> None:
        """Write that the run is finished, and drop what only a resumed run needs."""
        self.facts.pop("ledger_at_evaluation", None)
        self.set_status("finished", ledger, **more)

    def metrics(self, row: Mapping[str, Any]) -> None:
        """Append a row to metrics.jsonl, one per optimizer step."""
        if self.is_writer:
            self._append("metrics.jsonl", [row])

    def evals(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Append rows to evals.jsonl, one per evaluated item, and flush them to disk.

        They count once `run.json` has the result of their phase: a resumed run drops them before.
        """
        if self.is_writer:
            self._append("evals.jsonl", rows, sync=True)

    def feedback(self, step: int, rows: Iterable[Mapping[str, Any]]) -> None:
        """Append judges' answers to feedback.jsonl; `step` is the first that learns from them."""
        if self.is_writer:
            self._append("feedback.jsonl", ({"step": step, **row} for row in rows))

    def rollouts(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Append completions to rollouts.jsonl; their `step` is the first that learns from them."""
        if self.is_writer:
            self._append("rollouts.jsonl", rows)

    def _append(self, name: str, rows: Iterable[Mapping[str, Any]], *, sync: bool = False) -> None:
        """Append rows to a file, with null for a number that is not finite: JSON has none.

        That is said once for each number of a file.
        """
        lines = []
        for row in rows:
            line, paths = without_non_finite(row)
            lines.append(line)
            for path in paths:
                if (name, path) not in self.told:
                    self.told.add((name, path))
                    self.note(f"step {row['step']}: {path!r} is not finite; {name} has null for it")
        append_lines(self.folder / name, lines, sync=sync, allow_nan=False)

    def flush(self) -> None:
        """Flush the logs to disk, so that a power cut loses no row before a checkpoint."""
        for name in ("metrics.jsonl", "feedback.jsonl", "rollouts.jsonl"):
            if self.is_writer and (self.folder / name).exists():
                sync_file(self.folder / name)

    def write(self, name: str, rows: Iterable[Mapping[str, Any]]) -> Path:
        """Write a file of JSON lines as a whole, in this process, and return its path."""
        write_text(self.folder / name, json_lines(rows, allow_nan=False))
        return self.folder / name

    def close(self) -> None:
        """Let other programs open the folder."""
        if self.lock is not None:
            with suppress(OSError):
                (self.folder / LOCK).unlink()  # while it is held: it is still ours
            self.lock.release()

    def discard_if_empty(self) -> None:
        """Delete the folder if it holds only `run.json` and `log.txt`: the run was refused."""
        if self.is_writer and {path.name for path in self.folder.iterdir()} <= REFUSED:
            shutil.rmtree(self.folder, ignore_errors=True)

    def rewind(self, step: int) -> None:
        """Delete what was logged after `step`, so that a resumed run logs no step twice."""
        if not self.is_writer:
            return
        # `run.json` first: a crash in between leaves rows that the next resume deletes.
        if any(row["step"] > step for row in self._read("metrics.jsonl")):
            self.facts.pop("stopped", None)
            self.facts["results"].pop("after", None)
        for phase in list(self.results):
            number = phase.removeprefix("step ")
            if number.isdecimal() and int(number) > step:
                del self.facts["results"][phase]
        self.set_status("running")
        self._keep_rows("evals.jsonl", lambda row: row["step"] <= step)
        self._keep_rows("feedback.jsonl", lambda row: row["step"] <= step)
        self._keep_rows("rollouts.jsonl", lambda row: row["step"] <= step)
        self._keep_rows("metrics.jsonl", lambda row: row["step"] <= step)

    def discard_unfinished_evals(self) -> None:
        """Delete the rows of evaluations whose result is not in `run.json`: a crash cut them off.

        They would stand twice when the evaluation is repeated.
        """
        self._keep_rows("evals.jsonl", lambda row: row.get("phase") in self.results)

    def _keep_rows(self, name: str, keep: Callable[[Any], bool]) -> None:
        """Delete the other rows of a file of JSON lines, and a line that a crash cut short."""
        path = self.folder / name
        if path.exists():
            text = json_lines(filter(keep, self._read(name)), allow_nan=False)
            if text.encode() != path.read_bytes():
                write_text(path, text)

    def read_metrics(self, before: int) -> list[dict[str, Any]]:
        """Return the rows of metrics.jsonl for the steps before that one."""
        return [row for row in self._read("metrics.jsonl") if row["step"] < before]

    def read_evals(self, phase: str) -> list[dict[str, Any]]:
        """Return the rows of evals.jsonl for one evaluation."""
        return [row for row in self._read("evals.jsonl") if row.get("phase") == phase]

    def _read(self, name: str) -> list[dict[str, Any]]:
        """Return the rows of a log, up to the first that is damaged."""
        return list(takewhile(is_row, read_lines(self.folder / name)))


def resolve_run_folder(out: str, name: str) -> Path:
    """Return `out/name`. Raise `BadInput` for a name that is not a plain folder name."""
    if not RUN_NAME.fullmatch(name):
        raise BadInput(
            f"option --name: {name!r} is not a name for a run",
            hint="use letters, digits, '.', '_' and '-', beginning with a letter or digit",
        )
    return Path(out) / name


def find_free_name(out: str, stem: str) -> str:
    """Return `stem`, or the first of `stem-2`, `stem-3`, ... that is not taken in `out`."""
    stem = re.sub(r"[^A-Za-z0-9._-]+", "-", stem).strip("-._")[:90] or "run"
    return unused_name(stem, lambda name: (Path(out) / name).exists())


def find_newest_name(out: str, stem: str) -> str:
    """Return the name that `find_free_name` gave last, or raise `BadInput` if there is none."""
    free = find_free_name(out, stem)
    stem, _, number = free.rpartition("-") if not (Path(out) / free).exists() else (free, "", "")
    if not stem or not number.isdigit() or not (Path(out) / stem).exists():
        raise BadInput(
            f"there is no run named {free!r} to resume", where=out, hint="add its --name"
        )
    return stem if number == "2" else f"{stem}-{int(number) - 1}"


def read_run(folder: Path) -> dict[str, Any]:
    """Read the `run.json` of an earlier run. Raise `BadInput` if the folder is not a run's.

    It is checked against `StoredFacts`: the folder may be a stranger's, or damaged.
    """
    from pydantic import TypeAdapter, ValidationError

    path = folder / "run.json"
    try:
        require_regular(path)
        text = path.read_text(encoding="utf-8")
        facts: dict[str, Any] = json.loads(text, parse_constant=refuse_constant)
        TypeAdapter(StoredFacts).validate_json(text, strict=True)
    except FileNotFoundError:
        raise BadInput("not the folder of a run: it has no run.json", where=str(folder)) from None
    except (OSError, ValueError, RecursionError) as error:
        detail = ""
        if isinstance(error, ValidationError):
            found = error.errors()[0]
            detail = f": {'/'.join(map(str, found['loc']))}: {found['msg'].lower()}"
        problem = f"cannot be read as the record of a run{detail}"
        raise BadInput(problem, where=str(path)) from None
    return facts


def algorithm_hash(facts: Mapping[str, Any]) -> str | None:
    """Return the hash of the code of a run's algorithm, as its `run.json` has it."""
    first = facts["plugins"][0] if "plugins" in facts else facts["plugin"]  # of an older version
    found: str | None = first["sha256"]
    return found


def refuse_constant(name: str) -> None:
    """Raise `ValueError` for NaN or Infinity in a JSON text, which has neither."""
    raise ValueError(f"{name} is not JSON")


def is_row(row: Any) -> bool:
    """Return True if a value is a row of a run's log: an object of finite numbers, with a step."""
    return (
        isinstance(row, dict)
        and type(row.get("step")) is int
        and isinstance(row.get("phase", ""), str)
        and not without_non_finite(row)[1]
    )


def refuse_odd_logs(folder: Path) -> None:
    """Raise `BadInput` if a log of a run is a pipe, say, or a link to nothing."""
    for name in LOGS:
        path = folder / name
        if os.path.lexists(path) and not path.is_file():
            raise BadInput("not a regular file", where=str(path), hint="a run logs to it")


def open_record(
    folder: Path,
    facts: dict[str, Any],
    update: UpdateRecipe,
    *,
    resume: bool,
    is_writer: bool,
    allow_changes: bool = False,
) -> Record:
    """Create the folder of a new run, or with `resume` reopen that of an interrupted one.

    A process that is not the writer touches no file.
    """
    if not is_writer:
        return Record(folder, facts, is_writer=False)
    if not resume:
        return create_record(folder, facts)
    return reopen_record(folder, facts, update, allow_changes=allow_changes)


def create_record(folder: Path, facts: dict[str, Any]) -> Record:
    """Create the folder of a run. Raise `BadInput` if it already holds anything."""
    refuse_used_folder(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadInput(f"cannot be made: {error.strerror}", where=str(folder)) from None
    record = Record(folder, facts, lock=lock_folder(folder))
    refuse_used_folder(folder)  # another program may have made a run of it meanwhile
    record.set_status("running")
    return record


def refuse_used_folder(folder: Path) -> None:
    """Raise `BadInput` if a folder holds more than a crash before the first write leaves."""
    if not folder.exists():
        return
    if not folder.is_dir() or {path.name for path in folder.iterdir()} - NOT_BEGUN:
        held = "a run" if (folder / "run.json").exists() else "other files"
        raise BadInput(
            f"the folder already holds {held}",
            where=str(folder),
            hint="choose another --name, or add --resume to go on with an interrupted run",
        )


def lock_folder(folder: Path) -> FileLock:
    """Lock the folder of a run for this program; raise `BadInput` if another one has it.

    The system takes the lock away from a program that dies.
    """
    lock = FileLock(folder / LOCK, timeout=0, thread_local=False)
    try:
        lock.acquire()
    except Timeout:
        raise BadInput(
            "another program is working on this run", where=str(folder), hint="wait for it to end"
        ) from None
    return lock


def reopen_record(
    folder: Path,
    facts: dict[str, Any],
    update: UpdateRecipe = dict,
    *,
    allow_changes: bool = False,
) -> Record:
    """Reopen the folder of an interrupted run.

    `update` gives the stored recipe the current names of its options. Raise `BadInput` if the run
    is finished, if its recipe or its input was another, or, unless `allow_changes`, if the code of
    its plugins, the number of processes, or `--shard` was.
    """
    read_run(folder)  # only a run has something to lock
    refuse_odd_logs(folder)
    record = Record(folder, {}, lock=lock_folder(folder))
    try:
        record.facts = read_resumable(folder, facts, update)
        record.accept_changes(find_changes(record.facts, facts), allow_changes=allow_changes)
        record.notes += find_other_versions(record.facts, facts)
        record.facts["plugins"] = merge_plugins(
            record.facts.get("plugins", []), facts.get("plugins", [])
        )
        record.facts.pop("error", None)
        record.discard_unfinished_evals()
        record.set_status("running")
    except BaseException:
        record.close()
        raise
    return record


def read_resumable(folder: Path, facts: dict[str, Any], update: UpdateRecipe) -> dict[str, Any]:
    """Return the `run.json` of an interrupted run; raise `BadInput` if it cannot be resumed."""
    then = read_run(folder)
    # `update` imports the stored algorithm, which must be the one that was asked for.
    refuse_changed(folder, "recipe", "algorithm", then["recipe"], facts["recipe"])
    then["recipe"] = update(then["recipe"])
    if then["status"] == "finished":
        raise BadInput("the run is finished; there is nothing to resume", where=str(folder))
    for part in ("fingerprints", "results"):
        if part not in then:
            raise BadInput(f"cannot be resumed: no {part}", where=str(folder / "run.json"))
    for part in ("recipe", "fingerprints"):
        for key in then[part]:
            if key not in ("name", "output_dir", "code", "shard"):
                refuse_changed(folder, part, key, then[part], facts[part])
    return then


def refuse_changed(
    folder: Path, part: str, key: str, then: Mapping[str, Any], now: Mapping[str, Any]
) -> None:
    """Raise `BadInput` if a run to resume had another value of a key in a part of `run.json`."""
    if then[key] != now.get(key):
        raise BadInput(
            f"cannot be resumed: {part} {key} was {then[key]!r} and is {now.get(key)!r} now",
            where=str(folder),
            hint="repeat the command as it was, with --resume added",
        )


__getattr__ = deprecated.names_of(__name__)
