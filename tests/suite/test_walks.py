"""The score of `walks` on a graph small enough to look at."""

import networkx as nx
import pytest

from alignzoo_suite.walks import Walks, describe_graph, read_walk, score_walk

# B - C - D
# |       |
# F - G - H
ROADS = [["B", "C"], ["C", "D"], ["D", "H"], ["H", "G"], ["G", "F"], ["F", "B"]]
ROW = {"roads": ROADS, "start": "B", "goal": "D"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Go B, C, D.", 1),
        ("B -> C -> D", 1),
        ("Go B, F, G, H, D.", 2 / 4),
        ("Go B, C, B, C, D.", 2 / 4),  # a walk may go back
        ("Go B, D.", 0),  # no road
        ("Go B, C.", 0),  # does not arrive
        ("Go C, D.", 0),  # does not start where it should
        ("Go B, K, D.", 0),  # no such place
        ("Go D, C, B.", 0),
        ("B", 0),
        ("", 0),
    ],
)
def test_gold_by_hand(text: str, expected: float) -> None:
    assert Walks().score(ROW, text) == expected
    measured = Walks().measures(ROW, text)
    assert measured == {"valid": float(expected > 0), "shortest": float(expected == 1)}


def test_words_are_no_places() -> None:
    assert read_walk("From B, Go by C; then D. Back? GH") == ["B", "C", "D"]


def test_a_graph_in_words() -> None:
    assert describe_graph(nx.Graph(ROADS)) == (
        "B to C, F; C to B, D; D to C, H; F to B, G; G to F, H; H to D, G"
    )


def test_prompts_have_a_way_of_two_steps_or_more() -> None:
    distances = set()
    for row in Walks(prompt_rows=100).rows("prompts", "train"):
        graph = nx.Graph(row["roads"])
        assert describe_graph(graph) in row["prompt"][0]["content"]
        distances.add(nx.shortest_path_length(graph, row["start"], row["goal"]))
        assert score_walk(graph, row["start"], row["goal"], [row["start"], row["goal"]]) == 0
    assert min(distances) == 2 < max(distances)


def test_demonstrations_are_good_but_not_the_best() -> None:
    task = Walks(demonstrations=500)
    rows = task.rows("demonstrations", "train")
    scores = [task.score(row, row["completion"][0]["content"]) for row in rows]
    assert 0.9 < sum(scores) / len(scores) < 0.99
