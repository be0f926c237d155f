"""Values that are not there and files from other systems, for every view of a file."""

import csv
import io
import json

import pytest

from alignzoo.data import Demonstrations, Feedback, Preferences, Prompts, Text, load_data
from alignzoo.errors import BadInput

ROWS = {
    Demonstrations: {"prompt": "ask", "completion": "tell"},
    Preferences: {"prompt": "ask", "chosen": "tell", "rejected": "no"},
    Feedback: {"prompt": "ask", "completion": "tell", "label": True},
    Prompts: {"prompt": "ask"},
    Text: {"text": "once"},
}
COLUMNS = [(view, column) for view, row in ROWS.items() for column in row]
SETTINGS = {"max_length": 64, "strict": False, "seed": 0, "holdout": 0}


def repr_of(value):
    return repr(value)[:8]


def ids(value):
    return value.name if isinstance(value, type) else repr(value)


@pytest.mark.parametrize("value", [None, float("nan"), ...], ids=["None", "NaN", "absent"])
@pytest.mark.parametrize(("view", "column"), COLUMNS, ids=ids)
def test_a_value_that_is_not_there_names_its_row(plain, jsonl, view, column, value):
    broken = {name: v for name, v in ROWS[view].items() if name != column}
    if value is not ...:
        broken[column] = value
    path = jsonl([ROWS[view], ROWS[view], broken])
    with pytest.raises(BadInput, match="missing in this row") as error:
        load_data(view, plain, data=path, **SETTINGS)
    assert error.value.where == f"{path}, row 3, column {column!r}"


# Pairs without a prompt are fine: they have it in common.
@pytest.mark.parametrize(
    ("view", "column"), [c for c in COLUMNS if c != (Preferences, "prompt")], ids=ids
)
def test_a_value_that_is_nowhere_is_a_missing_column(plain, jsonl, view, column):
    path = jsonl([{**ROWS[view], column: None}, {**ROWS[view], column: float("nan")}])
    with pytest.raises(BadInput, match="missing; ") as error:
        load_data(view, plain, data=path, **SETTINGS)
    assert error.value.where == path


@pytest.mark.parametrize(
    "value", ["", "nan", "None", "maybe", float("inf"), 10**400, -1], ids=repr_of
)
def test_labels_that_are_none(plain, jsonl, value):
    rows = [ROWS[Feedback], {**ROWS[Feedback], "label": value}]
    with pytest.raises(BadInput, match="expected true or false") as error:
        load_data(Feedback, plain, data=(path := jsonl(rows)), **SETTINGS)
    assert error.value.where == f"{path}, row 2, column 'label'"


@pytest.mark.parametrize("value", ["nan", "inf", 10**400, "much", [0.5]], ids=repr_of)
def test_margins_that_are_none(plain, jsonl, value):
    rows = [ROWS[Preferences], {**ROWS[Preferences], "margin": value}]
    with pytest.raises(BadInput, match="expected a number") as error:
        load_data(Preferences, plain, data=(path := jsonl(rows)), **SETTINGS)
    assert error.value.where == f"{path}, row 2, column 'margin'"


def test_an_empty_cell_is_no_margin(plain, tmp_path):
    (tmp_path / "a.csv").write_text("prompt,chosen,rejected,margin\na,b,c,\na,d,e,0.5\n")
    data = load_data(Preferences, plain, data=str(tmp_path / "a.csv"), **SETTINGS)
    assert [example.row.get("margin") for example in data.train] == [None, 0.5]


def as_csv(rows, newline):
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, rows[0], lineterminator=newline)
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


@pytest.mark.parametrize("bom", ["", "\ufeff"], ids=["", "BOM"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"], ids=["LF", "CRLF"])
@pytest.mark.parametrize("view", ROWS, ids=ids)
def test_files_from_other_systems_hold_the_same_examples(plain, tmp_path, view, newline, bom):
    rows = [{k: f"{v}{i}" if k != "label" else v for k, v in ROWS[view].items()} for i in range(3)]
    contents = {
        "a.jsonl": "".join(json.dumps(row) + newline for row in rows),
        "a.json": json.dumps(rows, indent=1).replace("\n", newline),
        "a.csv": as_csv(rows, newline),
    }
    found = []
    for name, content in contents.items():
        (tmp_path / name).write_bytes((bom + content).encode())
        data = load_data(view, plain, data=str(tmp_path / name), **SETTINGS)
        found.append([(example.prompt, example.completions) for example in data.train])
    assert found[0] == found[1] == found[2] and len(found[0]) == 3
    assert plain.decode(found[0][0][0])[0] == next(iter(rows[0].values()))[0]


def test_line_ends_within_a_value_are_kept(plain, jsonl):
    path = jsonl([{"prompt": "a\r\nb\rc", "completion": "d\r\n"}])
    (example,) = load_data(Demonstrations, plain, data=path, **SETTINGS).train
    assert plain.decode(example.prompt) == "a\r\nb\rc"
    assert plain.decode(example.completions[0]) == "d\r\n"


def test_rows_of_white_space_that_python_does_not_know_are_kept(plain, jsonl):
    """A zero-width space is not white space: it may be there on purpose."""
    rows = [{"prompt": "a", "completion": text} for text in ("\u200b", "\u3000 \u2028", "\ufeff")]
    data = load_data(Demonstrations, plain, data=jsonl(rows), **SETTINGS)
    assert data.report.left_out == {"the completion is empty": [2]}
