"""What a report says of a board, without a browser."""

import csv
import io
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from report_fakes import ENTRIES, make_board
from statsmodels.stats.multitest import multipletests

from alignzoo_compare.report import Section, summarise_board
from alignzoo_compare.report.choices import (
    Candidate,
    choose_by_kind,
    describe_certainty,
    overall_candidates,
    task_candidates,
)
from alignzoo_compare.report.fixed_kl import fix_kl, round_down
from alignzoo_compare.report.kinds import kind_of
from alignzoo_compare.report.page import (
    COLUMNS,
    OVERALL_COLUMNS,
    content_policy,
    module_script,
    pair_samples,
    render_page,
    safe_script,
    task_cells,
    task_table,
)
from alignzoo_compare.report.plots import (
    COLOURS,
    label,
    mean_curve,
    plot_against_flops,
    plot_against_kl,
    plot_profile,
    plot_scores,
    plot_training,
)
from alignzoo_compare.report.readme import BEGIN, END, insert_tables, name_base, short_tables
from alignzoo_compare.report.summary import letters_of
from alignzoo_compare.report.tables import HEADINGS, OVERALL, as_csv, as_markdown, to_json
from alignzoo_compare.statistics.intervals import Interval
from alignzoo_compare.statistics.multiple import Ranking, correct_by_holm

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def board(tmp_path_factory):
    return make_board(tmp_path_factory.mktemp("board"))


@pytest.fixture(scope="module")
def summary(board):
    return summarise_board(board)


def candidate(entry, mean, p_value=0.001, ties=(), kind="pairs", seeds=5):
    gain = Interval(mean, mean - 0.1, mean + 0.1, p_value, seeds, 200)
    return Candidate(entry, kind, gain, list(ties))


# Which algorithm for which data


@pytest.mark.parametrize(("entry", "kind"), [
    ("base", "control"), ("random-reward", "control"), ("sft", "demonstrations"),
    ("sft-chosen", "pairs"), ("kto", "labels"), ("grpo", "score"), ("rlaif", "judge"),
])  # fmt: skip
def test_an_entry_is_of_the_kind_that_its_ledgers_count(board, entry, kind):
    rows = board.find("final", entry, "style")
    assert kind_of(entry, board.grid.entries[entry], rows) == kind
    if kind == "demonstrations":
        assert kind_of(entry, board.grid.entries[entry], []) == "nothing"


def test_the_best_of_a_kind_are_those_not_told_apart_from_the_first():
    candidates = [
        candidate("a", 0.5, ties=["b"]),
        candidate("b", 0.4, ties=["a", "c"]),
        candidate("d", 0.4, kind="labels"),
        candidate("c", 0.3, ties=["b"]),
    ]
    pairs, labels = choose_by_kind(candidates)
    assert ([each.entry for each in pairs.best], pairs.others) == (["a", "b"], 1)
    assert ([each.entry for each in labels.best], labels.others) == (["d"], 0)


@pytest.mark.parametrize(("best", "others", "words"), [
    ([("a", 0.3, 0.01)], 2, "Better than the base and than the 2 others of its kind."),
    ([("a", 0.3, 0.01)], 0, "Better than the base; nothing else of its kind was compared."),
    ([("a", 0.3, 0.2)], 1, "No evidence of a gain: it is not told to be better than the base."),
    ([("a", -0.3, 0.01)], 0, "No evidence of a gain: it is not told"),
    ([("a", 0.3, 0.2), ("b", 0.1, 0.9)], 0, "none of them is told to be better"),
    ([("a", 0.3, 0.01), ("b", 0.1, 0.9)], 0, "1 of these 2 are better than the base; which"),
    ([("a", 0.3, 0.01), ("b", 0.2, 0.02)], 0, "All of these 2 are better than the base; which"),
])  # fmt: skip
def test_how_sure_it_is_in_words(best, others, words):
    candidates = [candidate(name, mean, p) for name, mean, p in best]
    assert words in describe_certainty(candidates, others)


def test_one_seed_is_said_to_be_one():
    text = describe_certainty([candidate("a", 0.3, seeds=1)], 0)
    assert "From one seed" in text


def test_controls_are_no_candidates(summary):
    for candidates in (overall_candidates(summary), task_candidates(summary, 0)):
        assert {each.entry for each in candidates} == set(ENTRIES) - {"base", "random-reward"}


# The summary


def test_ties_are_within_a_kind_and_mutual(summary):
    for results in (summary.overall, summary.tasks[0].entries):
        by_name = {entry.entry: entry for entry in results}
        for entry in results:
            assert {by_name[tie].kind for tie in entry.ties} <= {entry.kind}
            assert all(entry.entry in by_name[tie].ties for tie in entry.ties)


def test_the_gain_over_all_tasks_is_the_mean_of_the_tasks(summary):
    for entry in summary.overall:
        if entry.entry != "base":
            found = [
                result.over_base.mean
                for task in summary.tasks
                for result in task.entries
                if result.entry == entry.entry
            ]
            assert entry.over_base.mean == pytest.approx(np.mean(found))
    assert {e.entry for e in summary.overall if e.over_base is None} == {"base"}


def test_an_entry_that_has_not_finished_keeps_no_other_from_its_result(tmp_path):
    board = make_board(tmp_path)
    rows = [row for row in board.rows if (row["entry"], row["kind"]) != ("ppo", "final")]
    summary = summarise_board(replace(board, rows=rows))
    assert summary.tasks[0].absent == {"ppo": "not finished yet"}
    assert len(summary.tasks[0].entries) == len(ENTRIES) - 1
    none = summarise_board(replace(board, rows=[r for r in rows if r["entry"] != "base"]))
    assert none.tasks == []


def test_groups_beyond_the_alphabet_have_letters_of_their_own():
    groups = tuple((place,) for place in range(60))
    ranking = Ranking(*[np.zeros(1)] * 6, groups=groups)
    letters = [letters_of(ranking, place) for place in range(60)]
    assert (letters[0], letters[25], letters[26], letters[52]) == ("a", "z", "a2", "a3")
    assert len(set(letters)) == 60


def test_holm_is_that_of_statsmodels():
    p_values = np.random.default_rng(0).uniform(0, 0.3, 40)
    assert correct_by_holm(p_values) == pytest.approx(multipletests(p_values, method="holm")[1])


# Plots


def test_a_name_in_a_plot_is_text():
    assert label("<a href='http://x'>&amp;") == "&lt;a href='http://x'&gt;&amp;amp;"
    assert len(label("long" * 100)) == 28
    assert "\u202e" not in label("\u202ename")


def test_evaluations_are_averaged_place_by_place():
    def row(*points):
        return {"curve": [{"kl": kl, "score": score} for kl, score in points]}

    rows = [row((1, 0.2), (3, 0.4)), row((2, 0.4), (4, 0.6))]
    expected = [{"kl": 1.5, "score": 0.3}, {"kl": 3.5, "score": 0.5}]
    found = mean_curve(rows, "kl")
    assert [point["kl"] for point in found] == [point["kl"] for point in expected]
    assert [p["score"] for p in found] == pytest.approx([p["score"] for p in expected])
    assert len(mean_curve([*rows, row((5, 0.9))], "kl")) == 1  # only the last ones
    assert mean_curve([], "kl") == mean_curve([*rows, row()], "kl") == []


def test_plots_have_every_entry_and_each_kind_once_in_their_legends(board, summary):
    task = summary.tasks[0]
    for figure, missing in [
        (plot_scores(task), set()),
        (plot_against_kl(board, task), {"base", "best-of-n"}),
        (plot_against_flops(board, task), {"base"}),
        (plot_profile(summary), set()),
    ]:
        shown: set[str] = set()
        for trace in figure["data"]:
            shown |= {trace["meta"]} if "meta" in trace else set(trace["text"])
        assert shown == set(ENTRIES) - missing
        legend = [trace["name"] for trace in figure["data"] if trace["showlegend"]]
        assert len(legend) == len(set(legend))
        assert set(legend) <= set(COLOURS)


# Scores at one KL


def run_through(number, *points):
    curve = [{"kl": kl, "score": score} for kl, score in points]
    return {"number": number, "summary": {"score": points[-1][1]}, "curve": curve}


def test_scores_at_a_kl_are_on_the_line_between_evaluations():
    rows = {
        "base": [run_through(0, (0.0, 0.2)), run_through(1, (0.0, 0.4))],
        "sft": [run_through(0, (1, 0.3), (3, 0.5)), run_through(1, (2, 0.6), (4, 0.6))],
        "dpo": [run_through(0, (4, 0.6), (9, 0.8)), run_through(1, (5, 0.9), (6, 0.9))],
        "near": [run_through(0, (0.1, 0.3), (0.2, 0.3)), run_through(1, (1, 0.5), (8, 0.5))],
        "failed once": [run_through(0, (5, 0.3), (9, 0.3))],
        "once": [run_through(0, (9, 0.3)), run_through(1, (9, 0.3))],
    }
    found = fix_kl(rows, "sft")
    assert found.kl == 3.0  # what two of the three entries with curves reach with both seeds
    assert found.measured == 3
    assert found.scores.keys() == {"sft", "dpo"}
    # From the base's own score at 0: 0.2 + (0.6 - 0.2) 3/4 = 0.5, and 0.4 + (0.9 - 0.4) 3/5 = 0.7.
    assert found.scores["dpo"].mean == pytest.approx(0.6)
    assert found.scores["sft"].mean == pytest.approx((0.5 + 0.6) / 2)
    assert found.over_control.keys() == {"dpo"}
    assert found.over_control["dpo"].mean == pytest.approx((0.0 + 0.1) / 2)
    assert fix_kl({name: rows[name] for name in ("base", "once")}, "sft") is None


@pytest.mark.parametrize(("value", "rounded"), [
    (3.0, 3.0), (0.1999, 0.19), (12.7, 12.0), (0.00123, 0.0012), (0.0, 0.0), (-1.0, 0.0),
])  # fmt: skip
def test_a_kl_is_rounded_down_so_that_it_is_still_reached(value, rounded):
    assert round_down(value) == rounded


def test_the_kl_is_named_where_its_scores_are_shown(board, summary):
    task = summary.tasks[0]
    entries = {entry.entry: entry for entry in task.entries}
    assert entries["dpo"].at_kl is not None and entries["random-reward"].at_kl is None
    said = f"the score at {task.fixed_kl:g} nats from the base"
    page = render_page([Section("", board, summary)])
    assert said in page and f"{task.reaching} of {task.measured} entries reach it" in page
    assert said in as_markdown([("", summary)]).replace("\\", "")
    (row,) = [r for r in csv.DictReader(io.StringIO(as_csv([("", summary)])))
              if (r["task"], r["entry"]) == (task.task, "dpo")]  # fmt: skip
    assert float(row["at_kl_mean"]) == entries["dpo"].at_kl.mean
    assert float(row["fixed_kl"]) == task.fixed_kl
    lines = plot_against_kl(board, task)["layout"]["shapes"]
    assert [line["x0"] for line in lines if line["x0"] == line["x1"]] == [task.fixed_kl]


def test_training_is_drawn_for_what_was_trained(board, summary):
    task = summary.tasks[0]
    by_name = {entry.entry: entry for entry in task.entries}
    assert plot_training(board, by_name["base"], task) is None
    traces = plot_training(board, by_name["grpo"], task)["data"]
    assert [trace["name"] for trace in traces] == ["loss", "reward"] * 3
    assert max(len(trace["x"]) for trace in traces) <= 50


# The page and the files


def test_every_column_is_explained(summary):
    assert set(HEADINGS) <= set(COLUMNS)
    assert set(OVERALL) <= set(OVERALL_COLUMNS)
    table = task_table(summary.tasks[0])
    assert set(table.headings) - set(COLUMNS) == {"polite"}
    assert all(len(row) == len(table.headings) for row in table.rows)
    cells = dict(zip(table.headings, table.rows[0], strict=True))
    assert cells["score"].order == summary.tasks[0].entries[0].score.mean


def test_the_dev_score_is_that_of_the_chosen_trial(tmp_path):
    board = make_board(tmp_path)
    for row in board.find("trial", "dpo", "style"):
        row["trial"] = {"learning_rate": 0.003} if row["number"] == 1 else {}
    entries = {entry.entry: entry for entry in summarise_board(board).tasks[0].entries}
    chosen = board.find("trial", "dpo", "style")[1]["summary"]["score"]
    assert entries["dpo"].dev == pytest.approx(chosen)
    assert entries["base"].dev is None
    cells = task_cells(entries["dpo"], None)
    assert cells["dev - test"].order == pytest.approx(chosen - entries["dpo"].score.mean)


def test_the_policy_allows_the_two_scripts_and_no_address(board, summary):
    page = render_page([Section("", board, summary)])
    policy = re.search(r'Security-Policy" content="([^"]*)"', page)[1].replace("&#39;", "'")
    scripts = re.findall(r"<script(?: type=\"module\")?>(.*?)</script>", page, flags=re.DOTALL)
    assert len(scripts) == 2
    assert policy == content_policy(scripts)
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "http" not in policy and "unsafe-eval" not in policy


def test_a_script_has_nothing_that_ends_it():
    source = 'a = "<!-- <script> </SCRIPT>"; b = 1 <2'
    assert safe_script(source) == 'a = "\\x3C!-- \\x3Cscript> \\x3C/SCRIPT>"; b = 1 <2'
    assert "<script" not in module_script().lower() and "const DataTable = " in module_script()


def test_samples_are_beside_those_of_the_base_on_the_same_item():
    def row(*items):
        return {"samples": [
            {"item": i, "prompt": f"p{i}", "completion": f"c{i}", "score": i / 10} for i in items
        ]}  # fmt: skip

    first, second = pair_samples([row(0, 5)], [row(5, 7)])
    assert (first.prompt, first.before, first.after) == ("p0", None, "c0")
    assert (second.before, second.before_score) == ("c5", 0.5)
    long = {"samples": [{"item": 0, "prompt": "p", "completion": "x" * 9000, "score": 0}]}
    assert pair_samples([long], [])[0].after.endswith("… (5,000 more characters)")


def test_boards_that_are_shown_apart_have_a_column_and_a_list(board, summary):
    rows = list(csv.DictReader(io.StringIO(as_csv([("one", summary), ("=two", summary)]))))
    assert {row["board"] for row in rows} == {"one", "'=two"}
    assert "board" not in csv.DictReader(io.StringIO(as_csv([("", summary)]))).fieldnames
    assert [each["board"] for each in to_json([("one", summary), ("two", summary)])] == [
        "one",
        "two",
    ]
    page = render_page([Section("one", board, summary), Section("two", board, summary)])
    assert len(set(re.findall(r'<details id="([^"]*)"', page))) == 2 * 2 * len(ENTRIES)


# README


def test_tables_replace_what_is_between_the_markers(board, summary, tmp_path):
    path = tmp_path / "README.md"
    path.write_text(f"before\n{BEGIN}\nearlier\n{END}\nafter\n")
    sections = [Section("", board, summary)]
    path.write_text(insert_tables(path, sections))
    text = path.read_text()
    assert text.startswith(f"before\n{BEGIN}\n") and text.endswith(f"{END}\nafter\n")
    assert "earlier" not in text and "| grpo |" in text
    assert insert_tables(path, sections) == text


def test_tables_of_tasks_are_folded_and_hostile_names_stay_text(board, summary):
    task = replace(summary.tasks[0], task="<script>x</script>")
    text = short_tables([Section("", board, replace(summary, tasks=[task]))])
    assert "<script>" not in text
    assert "<details><summary>&lt;script&gt;x&lt;/script&gt;: " in text


@pytest.mark.parametrize(
    ("model", "shown"), [("/root/models/a", "a"), ("org/name", "org/name"), (None, "the embedded")]
)
def test_a_base_is_shown_without_the_folders_of_one_machine(model, shown):
    assert name_base(model).startswith(shown)
