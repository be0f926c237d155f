"""Cells as tasks of a Ray cluster of two nodes: the rows are those of this machine's processes."""

import json
import os
import signal
import time
from pathlib import Path

import pytest
from compare_fakes import make_grid

from alignzoo import BadInput
from alignzoo.fingerprints import core_hash
from alignzoo_compare.board import GRID_FILE, Board, final_cell
from alignzoo_compare.cell import run_cell
from alignzoo_compare.cluster import RayWorkers, prepare_process
from alignzoo_compare.command import CompareCommand
from alignzoo_compare.runner import row_of

# Before Ray is imported: it reports to nobody, and gives up on a wrong address at once.
os.environ |= {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_NUM_REDIS_GET_RETRIES": "1",
    "RAY_py_gcs_connect_timeout_s": "1",
    "RAY_gcs_rpc_server_connect_timeout_s": "1",
}
pytest.importorskip("ray", reason="Ray is not installed")
pytestmark = [pytest.mark.long, pytest.mark.timeout(600)]

MISSING = 120  # seconds after which something does not happen
# Says where each cell runs, and does what the test asks for by the name of a file.
MARK = '''
import json, os, signal, time
from pathlib import Path
from alignzoo import hookimpl
from alignzoo.policy.kept_bases import _kept


class Mark:
    """Says where each cell runs"""

    @hookimpl
    def alignzoo_start(self, run):
        facts = {"pid": os.getpid(), "bases": len(_kept.bases),
                 "gpus": os.environ.get("CUDA_VISIBLE_DEVICES")}
        with open("marks.jsonl", "a") as file:
            file.write(json.dumps(facts) + "\\n")
        if Path("die").exists():
            Path("die").unlink()
            os.kill(os.getpid(), signal.SIGKILL)
        while Path("wait").exists():
            time.sleep(0.05)
'''


@pytest.fixture(scope="module")
def cluster():
    from ray.cluster_utils import Cluster

    node = {"num_cpus": 1, "num_gpus": 1}
    nodes = Cluster(initialize_head=True, head_node_args={**node, "include_dashboard": False})
    try:
        nodes.second = nodes.add_node(**node)
        yield nodes
    finally:
        nodes.shutdown()


@pytest.fixture(scope="module")
def workers(cluster):
    """Return workers that all tests below share: their processes take seconds to start."""
    before = signal.getsignal(signal.SIGTERM)
    made = RayWorkers(cluster.address, 0.5)
    assert signal.getsignal(signal.SIGTERM) is before  # Ray takes it over
    yield made
    made.stop()


@pytest.fixture
def board(tmp_path, monkeypatch):
    """Return an empty board, by its path from the folder in which the command is typed."""
    monkeypatch.chdir(tmp_path)
    Path("mark.py").write_text(MARK)
    folder = Path("boards/mine")
    folder.mkdir(parents=True)
    common = {"addons": ["./mark.py"], "max_new_tokens": 8, "batch_size": 2}
    grid = make_grid(trials=1, seeds=4, budget="2e9flops", eval_size=4, common=common)
    (folder / GRID_FILE).write_text(json.dumps(grid.as_dict()))
    return Board(folder, grid)


def submit(workers, board, entry, seed):
    cell = final_cell(board, entry, "style", seed)
    return cell, workers.submit(cell, board.folder, allow_code=True)


def marks():
    path = Path("marks.jsonl")
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def wait_until(happened, what):
    for _ in range(MISSING * 20):
        if happened():
            return
        time.sleep(0.05)
    raise AssertionError(f"{what} is not seen")


def results(row):
    """Return what is the same wherever a cell was run."""
    kept = {k: row[k] for k in row if k not in ("ledger", "environment")}
    return kept | {"flops": row["ledger"]["total_flops"]}


@pytest.mark.parametrize("address", ["nonsense", "127.0.0.1:1"])
def test_a_wrong_address_is_one_message(address):
    command = CompareCommand(ray=address)
    with pytest.raises(BadInput, match="no cluster that can be used at") as caught:
        command.make_workers(Path())
    assert len(caught.value.message.splitlines()) == 2


def test_gpus_per_cell_needs_a_cluster():
    with pytest.raises(BadInput, match="for a Ray cluster"):
        CompareCommand(gpus_per_cell=1).make_workers(Path())


@pytest.mark.parametrize(
    ("gpus", "said"), [(1.5, "option --gpus-per-cell"), (2, "has 2 GPUs and a CPU")]
)
def test_what_no_node_has_is_refused(cluster, gpus, said):
    with pytest.raises(BadInput, match=said):
        RayWorkers(cluster.address, gpus)


def test_rows_are_those_of_this_machine_and_a_process_serves_many_cells(workers, board, tmp_path):
    assert workers.size == 2
    started = [submit(workers, board, entry, 0) for entry in ("base", "sft")]
    rows = [future.result(MISSING) for _, future in started]
    assert [row["status"] for row in rows] == ["finished", "finished"], rows
    more = [submit(workers, board, entry, 1)[1] for entry in ("base", "sft")]
    assert [future.result(MISSING)["status"] for future in more] == ["finished", "finished"]

    first, second = marks()[:2], marks()[2:]
    pids = {mark["pid"] for mark in first}
    assert len(pids) == 2  # a process on each node
    assert {mark["pid"] for mark in second} <= pids
    assert all(mark["bases"] == 1 for mark in second)
    assert {mark["gpus"] for mark in marks()} == {"0"}  # the only one of each node

    here = tmp_path / "here"
    here.mkdir()
    for (cell, _), row in zip(started, rows, strict=True):
        assert results(run_cell(cell, here, allow_code=True)) == results(row)


def test_a_node_must_have_the_same_files(workers, board, monkeypatch):
    (board.folder / GRID_FILE).rename("elsewhere")
    error = submit(workers, board, "base", 0)[1].exception(MISSING)
    assert isinstance(error, BadInput) and "does not see the folder" in error.message
    monkeypatch.setattr("alignzoo_compare.cluster.core_hash", lambda: "another")
    error = submit(workers, board, "base", 0)[1].exception(MISSING)
    assert isinstance(error, BadInput) and "another version of alignzoo" in error.message


def test_gpus_that_ray_has_not_given_are_hidden(workers, board, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    monkeypatch.setattr("alignzoo_compare.cluster.keep_one_thread", lambda: None)
    prepare_process(board.folder, Path.cwd(), core_hash())  # this process has no GPU of the cluster
    assert os.environ["CUDA_VISIBLE_DEVICES"] == ""


def test_a_killed_process_and_a_lost_node_cost_one_cell_each(workers, board, cluster):
    Path("die").touch()
    cell, future = submit(workers, board, "base", 0)
    assert future.exception(MISSING) is not None
    assert row_of(future, cell, last=False) is None  # it is tried again
    assert "its worker died" in row_of(future, cell, last=True)["error"]

    Path("wait").touch()
    started = [submit(workers, board, "base", seed) for seed in (0, 1)]
    wait_until(lambda: len(marks()) == 3, "a cell")
    cluster.remove_node(cluster.second, allow_graceful=False)
    wait_until(lambda: any(future.done() for _, future in started), "the loss of a node")
    ((cell, future),) = [one for one in started if one[1].done()]
    assert row_of(future, cell, last=False) is None
    wait_until(lambda: workers.size == 1, "the loss of a node")
    Path("wait").unlink()
    again = workers.submit(cell, board.folder, allow_code=True)
    (kept,) = [one[1] for one in started if one[1] is not future]
    assert kept.result(MISSING)["status"] == again.result(MISSING)["status"] == "finished"


def test_cells_end_with_the_comparison(workers, board):
    Path("wait").touch()
    submit(workers, board, "base", 0)
    wait_until(marks, "a cell")
    workers.stop()
    process = Path(f"/proc/{marks()[0]['pid']}")
    wait_until(lambda: not process.exists(), "the end of a process")
