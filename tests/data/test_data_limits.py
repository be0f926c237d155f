"""A chat template that does not end, or builds without end, is one message."""

from __future__ import annotations

import signal
import threading
import time

import pytest

from alignzoo.data import template
from alignzoo.data.codec import Codec
from alignzoo.data.limits import limited
from alignzoo.errors import BadInput

SAYS = "{% for m in messages %}{{ m.content }}{% endfor %}"
MANY = "{% for x in range(99999) %}"
END = "{% endfor %}"
TREE = "{% macro f(n) %}{% if n %}{{ f(n - 1) ~ f(n - 1) }}{% endif %}{% endmacro %}{{ f(80) }}"


@pytest.mark.parametrize(
    ("ships", "problem"),
    [
        (3 * MANY + 3 * END, "does not end"),
        (TREE, "does not end"),
        ("{{ 'x' * 10**10 }}", "more than 64 MiB"),
        ("{% set s = namespace(x='x') %}" + MANY + "{% set s.x = s.x ~ s.x %}" + END,
         "more than 64 MiB"),
        ("{{ '{:>9999999999}'.format('x') }}", "more than 64 MiB"),
        ("{{ 'x' * 10**6 }}", r"writes 1,000,016 characters"),
        ("{{ 1 / 0 }}", "division by zero"),
        ("{{ messages.role.none }}", "no attribute"),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "recursion"),
    ],
)  # fmt: skip
def test_templates_of_strangers(make_tokenizer, monkeypatch, ships, problem):
    monkeypatch.setattr(template, "MOST_SECONDS", 0.3)
    monkeypatch.setattr(template, "MOST_MEMORY", 2**26)
    with pytest.raises(BadInput, match=f"chat template.*{problem}"):
        Codec(make_tokenizer(ships + SAYS, bos=False))


def test_a_row_may_start_it_as_well(make_tokenizer, monkeypatch):
    monkeypatch.setattr(template, "MOST_SECONDS", 0.3)
    loops = "{% if messages|length > 2 %}" + 3 * MANY + 3 * END + "{% endif %}"
    codec = Codec(make_tokenizer(loops + SAYS, bos=False))
    assert codec.prompt([{"role": "user", "content": "a"}]) == [97]
    with pytest.raises(BadInput, match="does not end"):
        codec.prompt([{"role": "user", "content": "a"}] * 3)


def test_long_dialogues_are_rendered(make_tokenizer):
    codec = Codec(make_tokenizer(SAYS, bos=False))
    assert len(codec.prompt([{"role": "user", "content": "a" * 1_100_000}])) == 1_100_000


def test_the_signal_of_others_is_as_before():
    came = []
    before = signal.signal(signal.SIGALRM, lambda *_: came.append(1))
    timer = signal.setitimer(signal.ITIMER_REAL, 0.05)
    try:
        with limited(60.0, 2**30):
            pass
        while not came:
            time.sleep(0.01)
        with pytest.raises(TimeoutError), limited(0.01, 2**30):
            time.sleep(60)
        assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
    finally:
        signal.signal(signal.SIGALRM, before)
        signal.setitimer(signal.ITIMER_REAL, *timer)


def test_threads_have_no_signals():
    done = []

    def work():
        with limited(0.001, 2**30):
            done.append(time.sleep(0.05))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert done == [None]
