"""Ways through a small graph that is given as text: valid, and as short as possible."""

import re
from dataclasses import dataclass
from itertools import permutations
from random import Random

import networkx as nx

from alignzoo_suite.common import Row, user_message
from alignzoo_suite.drawn import DrawnTask

NAMES = tuple("BCDFGHKM")
PLACES = 5
MORE_ROADS = 2  # beside those of a tree
ASKS = (
    "Find the shortest way from {} to {}.",
    "Go from {} to {} by the shortest way.",
    "How do I get from {} to {}?",
)


@dataclass(frozen=True)
class WalkHabits:
    """How a writer walks: probabilities."""

    direct: float  # it takes a shortest way, else any that visits no place twice
    leap: float  # it leaves out a place on its way


BASE = WalkHabits(direct=0.3, leap=0.25)
DEMONSTRATOR = WalkHabits(direct=0.92, leap=0.02)


def draw_graph(random: Random) -> nx.Graph:
    """Draw a connected graph: a random tree and some roads more."""
    names = random.sample(NAMES, PLACES)
    graph = nx.Graph()
    for index, name in enumerate(names[1:], start=1):
        graph.add_edge(name, random.choice(names[:index]))
    graph.add_edges_from(random.sample(sorted(nx.complement(graph).edges), MORE_ROADS))
    return graph


def describe_graph(graph: nx.Graph) -> str:
    """Return the roads of a graph in words: each place, and where one gets from there."""
    return "; ".join(f"{name} to {', '.join(sorted(graph[name]))}" for name in sorted(graph))


def read_walk(text: str) -> list[str]:
    """Return the places that a text names, in order."""
    return re.findall(rf"\b[{''.join(NAMES)}]\b", text)


def score_walk(graph: nx.Graph, start: str, goal: str, walk: list[str]) -> float:
    """Return steps of a shortest way / steps of this walk, 0 if it is no way from start to goal."""
    if len(walk) < 2 or (walk[0], walk[-1]) != (start, goal) or not nx.is_path(graph, walk):
        return 0.0
    return nx.shortest_path_length(graph, start, goal) / (len(walk) - 1)


@dataclass(eq=False)
class Walks(DrawnTask):
    """Find a short way through a small graph; the gold score is 1 for a shortest one."""

    name = "walks"
    model = "zoo-scout"
    annotator_noise = 0.2

    def draw(self, random: Random) -> Row:
        graph = draw_graph(random)
        apart = dict(nx.all_pairs_shortest_path_length(graph))
        ends: dict[int, list[tuple[str, str]]] = {}  # by distance, each as likely as the others
        for a, b in permutations(sorted(graph), 2):
            ends.setdefault(apart[a][b], []).append((a, b))
        distance = random.choice(sorted(ends.keys() - {1}))
        start, goal = random.choice(ends[distance])
        prompt = f"Roads: {describe_graph(graph)}. {random.choice(ASKS).format(start, goal)}"
        roads = [list(road) for road in sorted(map(sorted, graph.edges))]
        return {"prompt": user_message(prompt), "roads": roads, "start": start, "goal": goal}

    def reply(self, row: Row, random: Random, *, base: bool) -> str:
        habits = BASE if base else DEMONSTRATOR
        graph = nx.Graph(row["roads"])
        if random.random() < habits.direct:
            ways = nx.all_shortest_paths(graph, row["start"], row["goal"])
        else:
            ways = nx.all_simple_paths(graph, row["start"], row["goal"])
        way = random.choice(sorted(ways))
        if random.random() < habits.leap:
            del way[random.randrange(1, len(way) - 1)]
        return f"Go {', '.join(way)}."

    def score(self, row: Row, completion: str) -> float:
        walk = read_walk(completion)
        return score_walk(nx.Graph(row["roads"]), row["start"], row["goal"], walk)

    def measures(self, row: Row, completion: str) -> dict[str, float]:
        """Return whether the walk is a way from start to goal, and whether it is a shortest one."""
        score = self.score(row, completion)
        return {"valid": float(score > 0), "shortest": float(score == 1)}
