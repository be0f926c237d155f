"""Reading files: every complaint names the file and the line or row."""

import gzip
import json

import pytest

from alignzoo.data.read import location, read_rows, read_table
from alignzoo.errors import BadInput

ROWS = [{"prompt": "a", "completion": "b"}, {"prompt": "ü\u2028", "completion": "d"}]
LINES = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS)
CSV = 'prompt,completion\na,b\n"ü\u2028",d\n'


def parquet(path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.Table.from_pylist(ROWS), path)
    return path.read_bytes()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.jsonl", LINES),
        ("a.ndjson", LINES),
        ("a.JSONL", LINES),
        ("blank.jsonl", "\n" + LINES.replace("\n", "\n\n")),
        ("bom.jsonl", "\ufeff" + LINES),
        ("crlf.jsonl", LINES.replace("\n", "\r\n")),
        ("a.json", json.dumps(ROWS, indent=1)),
        ("lines.json", LINES),
        ("a.csv", CSV),
        ("bom.csv", "\ufeff" + CSV.replace("\n", "\r\n")),
        ("blank.csv", CSV.replace("\n", "\n\n")),
    ],
)
def test_text_formats_plain_and_gzipped(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content.encode())
    assert read_rows(str(path)) == ROWS
    zipped = tmp_path / f"{name}.gz"
    zipped.write_bytes(gzip.compress(content.encode(), mtime=0))
    assert read_rows(str(zipped)) == ROWS
    path.write_bytes(zipped.read_bytes())  # gzip without the name
    assert read_rows(str(path)) == ROWS


def test_parquet(tmp_path):
    data = parquet(tmp_path / "a.parquet")
    assert read_rows(str(tmp_path / "a.parquet")) == ROWS
    (tmp_path / "a.parquet.gz").write_bytes(gzip.compress(data, mtime=0))
    assert read_rows(str(tmp_path / "a.parquet.gz")) == ROWS


def test_csv_cells_may_be_long_and_hold_lines(tmp_path):
    long = "x" * 200_000
    (tmp_path / "a.csv").write_text(f'text,n\n"{long}\n2nd, ""quoted""",1\n')
    assert read_rows(str(tmp_path / "a.csv")) == [{"text": f'{long}\n2nd, "quoted"', "n": "1"}]


OBJECT = b'{"text": "a"}\n'


@pytest.mark.parametrize(
    ("name", "content", "place", "problem"),
    [
        ("a.jsonl", b"", "", "the file is empty"),
        ("a.csv", b" \n", "", "the file is empty"),
        ("a.json", b"[]", "", "holds no rows"),
        ("a.csv", b"text\n", "", "holds no rows"),
        ("a.jsonl", OBJECT * 16 + b'{"text": \n', ", line 17", "not JSON: Expecting value"),
        ("a.jsonl", b"\n" + OBJECT + b"{'text': 'a'}", ", line 3", "not JSON"),
        ("a.jsonl", b'[{"text": "a"}]', ", line 1", "expected one object, got a list"),
        ("a.jsonl", OBJECT + b"3\n", ", line 2", r"expected one object, got a number \(3\)"),
        ("a.jsonl", OBJECT + b"[" * 100_000, ", line 2", "JSON that cannot be read"),
        ("a.json", b'[\n{"a": 1},\n{"a": }\n]', ", line 3", "not JSON: Expecting value"),
        ("a.json", b'{"data": []}', "", "expected a list of objects, got an object"),
        ("a.json", b'[{"a": 1}, 2]', ", row 2", r"expected an object, got a number \(2\)"),
        ("a.jsonl", OBJECT + b'{"text": "\xff"}', ", line 2", "not UTF-8: byte 0xff"),
        ("a.csv", b"text\na\n\xe9t\xe9\n", ", line 3", "not UTF-8: byte 0xe9"),
        ("a.jsonl", OBJECT.decode().encode("utf-16"), "", "UTF-16 text"),
        ("a.jsonl", b"PAR1" + bytes(20), "", "a Parquet file, whatever its name says"),
        ("a.json", b"PK\x03\x04" + bytes(20), "", "a zip archive"),
        ("a.csv", b"text\nab\0c\n", "", "binary, not text"),
        ("a.parquet", OBJECT, "", "not Parquet"),
        ("a.jsonl.gz", gzip.compress(OBJECT * 50, mtime=0)[:30], "", "cannot be read"),
        ("a.csv", b'a,b\n1,"2\n2"\n3\n', ", line 4", "1 cell in a table of 2 columns"),
        ("a.csv", b'a,b\n1,2\n"3\n3"\n', ", line 3", "1 cell in a table of 2 columns"),
        ("a.csv", b"a\n1,2\n", ", line 2", r"2 cells in a table of 1 column\n"),
        ("a.csv", b"a,b\n1,2,3\n", ", line 2", "3 cells in a table of 2 columns"),
        ("a.csv", b'a,b\n1,"2', ", line 2", "not CSV: unexpected end of data"),
        ("a.csv", b"a,a\n1,2\n", ", line 1", "two columns are named 'a'"),
        ("a.jsonl", b'{"a": 1}\n{"a": 1, "a": 2}\n', ", line 2", "the key 'a' is there twice"),
        ("a.json", b'[{"a": {"b": 1, "b": 2}}]', ", line 1", "the key 'b' is there twice"),
        ("a.csv", b"a,\n1,2\n", ", line 1", "column 2 has no name"),
        ("a.txt", b"words", "", "unknown file format '.txt'"),
        ("a", b"words", "", "unknown file format ''"),
    ],
)
def test_what_is_wrong_with_a_file(tmp_path, name, content, place, problem):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(BadInput, match=problem) as error:
        read_rows(str(path))
    assert error.value.where == f"{path}{place}"


def test_missing_files_never_go_to_the_hub(tmp_path, monkeypatch):
    monkeypatch.setattr("alignzoo.data.read.read_hub", lambda name: pytest.fail(name))
    (tmp_path / "train.jsonl").write_text(LINES)
    with pytest.raises(BadInput, match="no such file") as error:
        read_rows(str(tmp_path / "trian.jsonl"))
    assert error.value.hint == f"did you mean {str(tmp_path / 'train.jsonl')!r}?"
    for name in ("prefs.csv", "./prefs", "a/b/c", "~/x", "data/x.parquet", "x.json.gz", "a\\b"):
        with pytest.raises(BadInput, match="no such file or folder"):
            read_rows(name)
    with pytest.raises(BadInput, match="no such file or folder\n  (did you mean|/ holds)"):
        read_rows("/nowhere/x.jsonl")


def test_a_name_goes_to_the_hub(monkeypatch):
    asked = []

    class Loaded:
        def to_list(self):
            return ROWS

    def load_dataset(*args, **kwargs):
        asked.append((args, kwargs))
        return Loaded()

    monkeypatch.setattr("datasets.load_dataset", load_dataset)
    assert read_rows("owner/name") == ROWS
    read_rows("openai/gsm8k:main")
    read_rows("openai/gsm8k:main@test")
    read_rows("owner/name@train[:1000]")
    assert asked == [
        (("owner/name", None), {"split": "train"}),
        (("openai/gsm8k", "main"), {"split": "train"}),
        (("openai/gsm8k", "main"), {"split": "test"}),
        (("owner/name", None), {"split": "train[:1000]"}),
    ]


def test_what_the_hub_does_not_give_is_one_short_message(monkeypatch):
    def load_dataset(*args, **kwargs):
        raise ConnectionError("Couldn't reach 'owner/name' on the Hub\nand much more\n" * 20)

    monkeypatch.setattr("datasets.load_dataset", load_dataset)
    with pytest.raises(BadInput) as error:
        read_rows("owner/name")
    assert error.value.where == "owner/name"
    assert error.value.problem.endswith("provide it: Couldn't reach 'owner/name' on the Hub")
    assert "offline" in error.value.hint
    assert error.value.__suppress_context__


def test_folders(tmp_path):
    def write(name, text="x"):
        (tmp_path / name).write_text(json.dumps({"text": text, "file": name}) + "\n")

    with pytest.raises(BadInput, match="no data files in this folder; it holds nothing"):
        read_rows(str(tmp_path))
    (tmp_path / "README.md").write_text("words")
    with pytest.raises(BadInput, match="it holds README.md") as error:
        read_rows(str(tmp_path))
    assert error.value.where == str(tmp_path)

    write("test.jsonl")
    assert [row["file"] for row in read_rows(str(tmp_path))] == ["test.jsonl"]
    for name in ("b.jsonl", "a.jsonl", "validation-0.jsonl", "testimony.jsonl", ".hidden.jsonl"):
        write(name)
    table = read_table(str(tmp_path))
    names = [row["file"] for part in table.train for row in part.rows]
    assert names == ["a.jsonl", "b.jsonl", "testimony.jsonl"]
    assert [part.rows[0]["file"] for part in table.test] == ["test.jsonl", "validation-0.jsonl"]
    assert location(table.train, 2) == f"{tmp_path}/b.jsonl, row 1"

    write("train-00.jsonl")
    table = read_table(str(tmp_path))
    assert [row["file"] for part in table.train for row in part.rows] == ["train-00.jsonl"]
    assert table.unread == ["a.jsonl", "b.jsonl", "testimony.jsonl"]

    (tmp_path / "c.csv").write_text("text\nx\n")
    with pytest.raises(BadInput, match=r"several formats in one folder: \.csv, \.jsonl"):
        read_rows(str(tmp_path))


def test_saved_data_sets(tmp_path):
    import datasets

    train, test = datasets.Dataset.from_list(ROWS), datasets.Dataset.from_list(ROWS[:1])
    train.save_to_disk(tmp_path / "one")
    assert read_rows(str(tmp_path / "one")) == ROWS
    datasets.DatasetDict(train=train, test=test).save_to_disk(tmp_path / "two")
    table = read_table(str(tmp_path / "two"))
    assert [part.rows for part in table.train + table.test] == [ROWS, ROWS[:1]]
    datasets.DatasetDict(other=train).save_to_disk(tmp_path / "three")
    with pytest.raises(BadInput, match="no split named train; there are: other"):
        read_rows(str(tmp_path / "three"))
    (tmp_path / "one" / "state.json").write_text("{")
    with pytest.raises(BadInput, match="cannot be read as a saved data set"):
        read_rows(str(tmp_path / "one"))
