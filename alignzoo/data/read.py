"""Read the rows of one data set: a file, a folder of files, or a data set on the Hub."""

from __future__ import annotations

import logging
import os
import re
from dataclasses import dataclass, field
from pathlib import Path

from alignzoo.data.formats import Row, format_of, read_file
from alignzoo.data.names import is_path, is_there
from alignzoo.errors import BadInput, NotAvailable, first_line
from alignzoo.files import nearest_path

TRAIN_FILE = re.compile(r"^train(?![a-z])", re.IGNORECASE)
HELD_OUT_FILE = re.compile(r"^(test|valid|validation|eval|dev)(?![a-z])", re.IGNORECASE)


@dataclass(frozen=True)
class Part:
    """The rows of one file."""

    name: str
    rows: list[Row]


@dataclass(frozen=True)
class Table:
    """Training rows and, if a folder has them, held-out rows, by file.

    `unread` names the data files of the folder that are neither.
    """

    train: list[Part]
    test: list[Part] = field(default_factory=list)
    unread: list[str] = field(default_factory=list)


def read_rows(path_or_hub: str) -> list[Row]:
    """Return all training rows, in the order of the files."""
    return [row for part in read_table(path_or_hub).train for row in part.rows]


def read_table(path_or_hub: str) -> Table:
    """Read the rows of a path or a name on the Hub; raise `BadInput` if that fails.

    It is `NotAvailable` if there is no such file, or if the Hub cannot provide it.
    """
    path = Path(os.path.expanduser(path_or_hub))
    if is_there(path_or_hub):
        folder = path.is_dir()
        table = _read_folder(path) if folder else Table([Part(path_or_hub, read_file(path))])
    elif is_path(path_or_hub):
        raise NotAvailable("no such file or folder", where=path_or_hub, hint=nearest_path(path))
    else:
        table = Table([Part(path_or_hub, read_hub(path_or_hub))])
    if not any(part.rows for part in table.train):
        raise BadInput("no rows", where=path_or_hub)
    return table


def location(parts: list[Part], number: int) -> str:
    """Return `b.jsonl, row 3` for a row number that counts, from 1, over all parts."""
    for part in parts:
        if number <= len(part.rows):
            return f"{part.name}, row {number}"
        number -= len(part.rows)
    raise IndexError(number)


def _read_folder(folder: Path) -> Table:
    """Read the data files of a folder, which are of one format.

    Files named test or valid are held out. If some are named train, only they are trained on.
    """
    if is_saved(folder):
        rows, test_rows = read_saved(folder)
        test = [Part(f"{folder}, test", test_rows)] if test_rows else []
        return Table([Part(str(folder), rows)], test)
    files = sorted(f for f in folder.iterdir() if f.is_file() and format_of(f.name))
    files = [f for f in files if not f.name.startswith(".")]
    formats = sorted({format_of(f.name) or "" for f in files})
    if not files:
        found = ", ".join(sorted(f.name for f in folder.iterdir())[:5]) or "nothing"
        raise BadInput(
            f"no data files in this folder; it holds {found}",
            where=str(folder),
            hint="data files end in .jsonl, .json, .csv or .parquet",
        )
    if len(formats) > 1:
        raise BadInput(
            f"files of several formats in one folder: {', '.join(formats)}",
            where=str(folder),
            hint="name one file",
        )
    held_out = [f for f in files if HELD_OUT_FILE.match(f.name)]
    others = [f for f in files if f not in held_out]
    train = [f for f in others if TRAIN_FILE.match(f.name)] or others
    if not train:  # a folder with a test set only: it is meant for training
        train, held_out = held_out, []
    return Table(
        [Part(str(f), read_file(f)) for f in train],
        [Part(str(f), read_file(f)) for f in held_out],
        [f.name for f in others if f not in train],
    )


def read_hub(name: str) -> list[Row]:
    """Download a split of a data set on the Hub, `owner/name[:configuration][@split]`.

    The split is `train` by default, and may be a part of one: `train[:1000]`.
    """
    import datasets

    source, _, split = name.partition("@")
    repository, _, configuration = source.partition(":")
    # Without a network, each of its retries would print two lines before our message.
    logger = logging.getLogger("huggingface_hub")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        loaded = datasets.load_dataset(repository, configuration or None, split=split or "train")
        return loaded.to_list()
    except Exception as error:  # every failure of a download has its own type
        raise NotAvailable(
            f"no such file, and the Hub could not provide it: {first_line(error)}",
            where=name,
            hint="check the name and the network (offline, only cached data sets are available); "
            "a configuration and a split are chosen as owner/name:configuration@split",
        ) from None
    finally:
        logger.setLevel(level)


def is_saved(folder: Path) -> bool:
    """Return True for a folder that `datasets.save_to_disk` wrote."""
    return any((folder / name).is_file() for name in ("state.json", "dataset_dict.json"))


def read_saved(folder: Path) -> tuple[list[Row], list[Row]]:
    """Read the training rows and the held-out rows of a saved data set."""
    import datasets

    try:
        loaded = datasets.load_from_disk(str(folder))
        if isinstance(loaded, datasets.Dataset):
            return loaded.to_list(), []
        if "train" in loaded:
            return loaded["train"].to_list(), loaded["test"].to_list() if "test" in loaded else []
    except Exception as error:
        raise BadInput(
            f"cannot be read as a saved data set: {first_line(error)}", where=str(folder)
        ) from None
    raise BadInput(f"no split named train; there are: {', '.join(loaded)}", where=str(folder))
