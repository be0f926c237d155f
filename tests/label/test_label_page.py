"""The page over HTTP: who may ask for it, and what it shows, without a browser."""

from __future__ import annotations

import logging
import socket
from io import StringIO
from threading import Event

import pytest
from label_fakes import make_candidates, make_session, rows_of, serving

from alignzoo import BadInput
from alignzoo.cli.options import run_class
from alignzoo_label.answers import AnswerFile
from alignzoo_label.choice import AtRandom
from alignzoo_label.command import LabelCommand
from alignzoo_label.server import listen
from alignzoo_label.session import Session
from alignzoo_label.source import Source

HOSTILE = (
    "</div><script>canary=1</script><img src=http://elsewhere.invalid/i onerror=canary=1>"
    "\u202eabc\u2066 \x1b[31mred {{ 7*7 }} \u2028 &lt; 👩‍🚀"
)


@pytest.fixture
def client(tmp_path):
    session = make_session(tmp_path / "a.jsonl", make_candidates(20))
    with serving(session) as found:
        yield found


def test_without_the_token_nothing_is_shown(client):
    wrong = {"Cookie": f"{client.cookie}={client.token[:-1]}"}
    for path in (
        "/",
        "/page.js",
        "/?token=",
        f"/?token={client.token}x",
        "/none",
        "/?token=%C3%BC",
    ):
        assert client.ask("GET", path, wrong)[0] == 403
        assert client.ask("GET", path, {})[0] == 403
    assert client.ask("POST", "/answer", {"Origin": client.home})[0] == 403


def test_the_token_becomes_a_strict_cookie_that_no_script_reads(client):
    status, text = client.ask("GET", f"/?token={client.token}&who=Zo%C3%AB", {})
    assert status == 200 and "good" not in text
    cookie = client.headers["set-cookie"]
    assert "HttpOnly" in cookie and "SameSite=strict" in cookie
    assert "default-src 'none'" in client.headers["content-security-policy"]
    assert client.token not in client.get()


def test_the_token_is_in_no_log_nor_output(client, monkeypatch, caplog, capfd):
    heard = StringIO()
    # caplog itself listens to loggers that nobody else hears.
    monkeypatch.setattr(logging.root, "handlers", [logging.StreamHandler(heard)])
    caplog.set_level("INFO")
    client.ask("GET", f"/?token={client.token}", {})
    client.answer("left")
    client.ask("GET", f"/none?token={client.token}", {})
    logging.getLogger("uvicorn.error").info("something is heard")
    assert "something is heard" in heard.getvalue()
    assert client.token not in heard.getvalue() + "".join(capfd.readouterr())


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "elsewhere.invalid"},
        {"Host": "127.0.0.1.elsewhere.invalid:80"},
        {"Host": ""},
        {"Origin": "http://elsewhere.invalid"},
        {"Origin": "null"},
        {"Origin": "https://127.0.0.1"},
    ],
)
def test_a_foreign_host_or_origin_is_refused(client, headers):
    assert client.ask("GET", "/", client.trusted() | headers)[0] == 403
    assert client.ask("GET", f"/?token={client.token}", headers)[0] == 403
    trusted = {**client.trusted(), "Origin": client.home}
    assert client.ask("POST", "/undo", trusted | headers)[0] == 403


def test_a_form_without_an_origin_or_of_any_length_is_refused(client):
    assert client.ask("POST", "/undo", client.trusted())[0] == 403
    assert client.post("/answer", note="a" * 2**21)[0] == 403


def test_another_name_of_this_machine_is_accepted(client):
    for host in (f"localhost:{client.port}", f"[::1]:{client.port}", "localhost:1234"):
        assert client.ask("GET", "/", {**client.trusted(), "Host": host})[0] == 200


def test_a_host_that_is_named_is_the_only_one(tmp_path):
    session = make_session(tmp_path / "a.jsonl", make_candidates(2))
    with serving(session, host="box.local") as client:
        trusted = client.trusted()
        assert client.ask("GET", "/", {**trusted, "Host": "box.local:80"})[0] == 200
        assert client.ask("GET", "/", trusted)[0] == 403
    with serving(session, host="fe80::1") as client:
        assert client.ask("GET", "/", {**client.trusted(), "Host": "[FE80::1]:80"})[0] == 200


def test_answers_work_without_a_script_and_are_on_the_disk_before_the_next_page(client, tmp_path):
    path = tmp_path / "a.jsonl"
    for number in range(1, 4):
        assert client.answer("left", note="why\r\nnot ")[0] == 303
        assert len(rows_of(path)) == number
    assert rows_of(path)[0]["note"] == "why\nnot"
    assert rows_of(path)[0]["who"] == "ann"
    assert client.post("/undo")[0] == 303
    assert len(rows_of(path)) == 2
    assert client.answer("best")[0] == 400
    assert client.post("/answer", id="none", verdict="left")[0] == 303
    assert len(rows_of(path)) == 2


def test_a_full_disk_is_said(client, monkeypatch):
    def full(*args, **keywords):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("alignzoo_label.answers.append_lines", full)
    assert client.answer("left") == (500, "Your answer was not saved: No space left on device")


def test_a_name_in_the_address_is_that_of_the_answers(client, tmp_path):
    client.ask("GET", f"/?token={client.token}&who=Zo%C3%AB", {})
    name = client.headers["set-cookie"].split(";")[0]
    assert name == f"{client.cookie}-who=Zo%C3%AB"
    client.trusted = lambda: {"Cookie": f"{client.cookie}={client.token}; {name}"}
    client.answer("right")
    assert rows_of(tmp_path / "a.jsonl")[0]["who"] == "Zoë"
    assert "Finish" not in client.get()
    assert client.post("/finish")[0] == 403


def test_texts_of_a_model_are_shown_as_text(tmp_path):
    session = make_session(tmp_path / "a.jsonl", make_candidates(1, (HOSTILE, "b" * 2**20)))
    with serving(session) as client:
        text = client.get()
        assert "<script>canary" not in text and "<img" not in text
        assert "&lt;script&gt;canary=1" in text
        assert r"\u202eabc\u2066 \x1b[31mred {{ 7*7 }} \u2028 &amp;lt; 👩‍🚀" in text
        assert "b" * 2**20 in text
        client.answer("left")
    chosen = rows_of(tmp_path / "a.jsonl")[0]
    assert HOSTILE in (chosen["chosen"][0]["content"], chosen["rejected"][0]["content"])


def test_ratings_show_one_completion(tmp_path):
    session = make_session(tmp_path / "a.jsonl", make_candidates(2), mode="ratings")
    with serving(session) as client:
        assert client.get().count('class="answer"') == 1
        client.answer("good")
        client.answer("bad")
        assert "Everything is answered." in client.get()
    assert [row["label"] for row in rows_of(tmp_path / "a.jsonl")] == [True, False]


def command(*words):
    run_class(LabelCommand, list(words), "alignzoo label", LabelCommand.positional)


def test_a_page_that_waits_for_the_model_says_so_and_comes_again(tmp_path, monkeypatch):
    drawn = Event()

    def draw():
        drawn.wait(60)
        yield from make_candidates(1)

    monkeypatch.setattr("alignzoo_label.server.PATIENCE", 0.01)
    source = Source(draw(), 2)
    source.start()
    session = Session(
        AnswerFile(tmp_path / "a.jsonl", "pairs"), source, AtRandom(), repeat=0, seed=0
    )
    with serving(session) as client:
        page = client.get()
        assert "The model is answering" in page and 'http-equiv="refresh"' in page
        drawn.set()
        source.wait_for(2)
        assert "question 0" in client.get()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "nothing to label"),
        (["zoo-tiny", "--task", "style", "--prompts", "p.jsonl"], "contradict each other"),
        (["--task", "style"], "no model"),
        (["--completions", "c.jsonl", "--next", "undecided"], "name a model"),
        (["zoo-tiny", "--task", "style", "--host", "0.0.0.0"], "no name"),
        (["zoo-tiny", "--task", "style", "--out", "a.csv"], "JSON Lines"),
        (["--completions", "none.jsonl"], "no such file"),
        (["--completions", "bad.jsonl"], "'prompt' missing"),
    ],
)
def test_bad_input_is_one_message(tmp_path, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad.jsonl").write_text('{"text": "a"}\n', encoding="utf-8")
    with pytest.raises(BadInput, match=message):
        command(*words)


def test_a_port_in_use_is_refused(tmp_path):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        with pytest.raises(BadInput, match="cannot listen there: Address already in use"):
            listen("127.0.0.1", other.getsockname()[1])
