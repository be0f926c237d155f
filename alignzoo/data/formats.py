"""Read the rows of one file: JSON Lines, JSON, CSV or Parquet, gzipped or not.

The text formats are read with the standard library, because an error must name its line.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from alignzoo.data.values import describe_value
from alignzoo.errors import BadInput, count, first_line
from alignzoo.files import require_regular

Row = dict[str, Any]

GZIP = b"\x1f\x8b"
MOST_GROWTH = 200  # times the size of a gzipped file, beyond 1 GiB
MAGIC = {
    b"PAR1": "a Parquet file",
    b"PK\x03\x04": "a zip archive",
    b"\x28\xb5\x2f\xfd": "a zstandard archive",
    b"BZh": "a bzip2 archive",
    b"ARROW1": "an Arrow file",
    b"\xff\xfe": "UTF-16 text",
    b"\xfe\xff": "UTF-16 text",
}
SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "bars"}  # of tables that are not CSV


def format_of(name: str) -> str | None:
    """Return the extension that names the format, `.jsonl` for `a.jsonl.gz`, or None."""
    suffix = Path(name.lower().removesuffix(".gz")).suffix
    return suffix if suffix in READERS else None


def read_file(path: Path) -> list[Row]:
    """Read the rows of one file; raise `BadInput` that names the file and the line."""
    suffix = format_of(path.name)
    if suffix is None:
        raise BadInput(
            f"unknown file format {path.suffix!r}",
            where=str(path),
            hint=f"supported: {', '.join(READERS)}, also with .gz",
        )
    try:
        require_regular(path)
        data = path.read_bytes()
        if data.startswith(GZIP):
            data = _decompress(data, str(path))
    except (OSError, EOFError, zlib.error) as error:
        raise BadInput(f"cannot be read: {error}", where=str(path)) from None
    if not data.strip():
        raise BadInput("the file is empty", where=str(path))
    rows = READERS[suffix](data, str(path))
    if not rows:
        raise BadInput("the file holds no rows", where=str(path))
    return rows


def _decompress(data: bytes, where: str) -> bytes:
    """Decompress gzip; raise `BadInput` for what grows without end, as no text does."""
    found = io.BytesIO()
    with gzip.open(io.BytesIO(data)) as file:
        while piece := file.read(2**24):
            found.write(piece)
            if found.tell() > max(2**30, MOST_GROWTH * len(data)):
                raise BadInput("the file unpacks to far more than data do", where=where)
    return found.getvalue()


def read_jsonl(data: bytes, where: str) -> list[Row]:
    """Read one JSON object per line; blank lines are skipped."""
    rows = []
    # Only \n ends a line: a JSON text may hold U+2028, at which `splitlines` would cut it.
    for number, line in enumerate(_text(data, where).split("\n"), start=1):
        if not line.strip():
            continue
        value = _json(line, where, number)
        if not isinstance(value, dict):
            raise BadInput(
                f"expected one object, got {describe_value(value)}",
                where=f"{where}, line {number}",
                hint="JSON Lines have one object per line; name a file with one list .json",
            )
        rows.append(value)
    return rows


def read_json(data: bytes, where: str) -> list[Row]:
    """Read a list of objects, or JSON Lines that are named .json."""
    text = _text(data, where)
    if _is_lines(text):
        return read_jsonl(data, where)
    value = _json(text, where)
    if not isinstance(value, list):
        raise BadInput(
            f"expected a list of objects, got {describe_value(value)}",
            where=where,
            hint='write [{"column": ...}, ...], or one object per line in a .jsonl file; '
            "of pandas: to_json(orient='records')",
        )
    for number, row in enumerate(value, start=1):
        if not isinstance(row, dict):
            raise BadInput(
                f"expected an object, got {describe_value(row)}", where=f"{where}, row {number}"
            )
    return value


def read_csv(data: bytes, where: str) -> list[Row]:
    """Read a header and rows of as many cells; every value is text."""
    text = _text(data, where)
    limit = csv.field_size_limit(sys.maxsize if sys.maxsize < 2**31 else 2**31 - 1)
    rows: list[Row] = []
    header: list[str] = []
    line = 1
    try:
        reader = csv.reader(io.StringIO(text, newline=""), strict=True)
        for cells in reader:
            here, line = line, reader.line_num + 1  # a quoted cell may span lines
            if not cells:
                continue
            if not header:
                header = _header(cells, f"{where}, line {here}")
                continue
            if len(cells) != len(header):
                raise BadInput(
                    f"{count(len(cells), 'cell')} in a table of {count(len(header), 'column')}",
                    where=f"{where}, line {here}",
                    hint='put a cell that holds a comma or a line break in "quotes"',
                )
            rows.append(dict(zip(header, cells, strict=True)))
    except csv.Error as error:
        raise BadInput(f"not CSV: {error}", where=f"{where}, line {line}") from None
    finally:
        csv.field_size_limit(limit)
    return rows


def read_parquet(data: bytes, where: str) -> list[Row]:
    """Read a Parquet table."""
    import pyarrow
    import pyarrow.parquet

    try:
        return pyarrow.parquet.read_table(io.BytesIO(data)).to_pylist()
    except (pyarrow.ArrowException, OSError) as error:
        raise BadInput(f"not Parquet: {first_line(error)}", where=where) from None


READERS: dict[str, Callable[[bytes, str], list[Row]]] = {
    ".jsonl": read_jsonl,
    ".ndjson": read_jsonl,
    ".json": read_json,
    ".csv": read_csv,
    ".parquet": read_parquet,
}


def _header(cells: list[str], where: str) -> list[str]:
    if len(cells) > 1 and not cells[0].strip():
        cells = ["Unnamed: 0", *cells[1:]]  # the index of a table of pandas, by pandas' name
    for sign, name in SEPARATORS.items():
        if len(cells) == 1 and sign in cells[0]:
            raise BadInput(
                f"the columns are separated by {name}",
                where=where,
                hint="separate them by commas; of pandas: to_csv(sep=',', index=False)",
            )
    for i, name in enumerate(cells):
        if not name.strip():
            raise BadInput(
                f"column {i + 1} has no name", where=where, hint="name it, or take it out"
            )
        if name in cells[:i]:
            raise BadInput(f"two columns are named {name!r}", where=where)
    return cells


def _text(data: bytes, where: str) -> str:
    """Decode UTF-8 without its byte-order mark; an error names the line."""
    for magic, kind in MAGIC.items():
        if data.startswith(magic):
            raise BadInput(f"the file is {kind}, whatever its name says", where=where)
    if b"\0" in data:
        raise BadInput("the file is binary, not text", where=where)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise BadInput(
            f"not UTF-8: byte 0x{data[error.start]:02x}",
            where=f"{where}, line {line}",
            hint="save the file as UTF-8",
        ) from None


def _json(text: str, where: str, first: int = 1) -> Any:
    """Parse a JSON text whose first line has the number `first` in its file."""
    try:
        return json.loads(text, object_pairs_hook=_once)
    except json.JSONDecodeError as error:
        raise BadInput(
            f"not JSON: {error.msg} (character {error.colno})",
            where=f"{where}, line {first + error.lineno - 1}",
        ) from None
    except (ValueError, RecursionError) as error:  # a number of 5,000 digits, a list 2,000 deep
        raise BadInput(
            f"JSON that cannot be read: {first_line(error)}", where=f"{where}, line {first}"
        ) from None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object whose keys are all different; raise ValueError for others."""
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(key for n, (key, _) in enumerate(pairs) if key in dict(pairs[:n]))
        raise ValueError(f"the key {twice[:60]!r} is there twice")
    return found


def _is_lines(text: str) -> bool:
    """Return True for a .json file of JSON Lines: an object on the first line, and more lines."""
    first, _, rest = text.strip().partition("\n")
    try:
        return bool(rest) and isinstance(json.loads(first), dict)
    except ValueError:
        return False
