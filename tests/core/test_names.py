"""What a run is called when nobody names it."""

from __future__ import annotations

import pytest

from alignzoo.recipe import Recipe
from alignzoo.session.session import choose_folder


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"task": "style"}, "dpo-zoo-tiny-style"),
        ({"model": "Qwen/Qwen2.5-0.5B", "data": "x/prefs.jsonl.gz"}, "dpo-Qwen2.5-0.5B-prefs"),
        ({"algorithm": "./my algo.py", "task": "sums"}, "my-algo-zoo-tiny-sums"),
        ({"model": "runs/sft-one/", "data": "org/set"}, "dpo-sft-one-set"),
        ({"data": "org/set:main"}, "dpo-zoo-tiny-set-main"),
        ({"data": "x/a.jsonl:0.7,b.csv.gz:0.3"}, "dpo-zoo-tiny-a-b"),
        ({"data": {"x/a.jsonl": 2, "org/b": 1}}, "dpo-zoo-tiny-a-b"),
    ],
)
def test_a_run_is_named_after_what_it_is(tmp_path, settings, name):
    recipe = Recipe(**{"algorithm": "dpo", "output_dir": str(tmp_path), **settings})
    assert choose_folder(recipe, resume=False) == tmp_path / name
