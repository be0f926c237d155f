"""`alignzoo doctor` finds what is wrong with a machine, and says what to do."""

from __future__ import annotations

import json

import pytest
import torch

from alignzoo.cli.options import run_class
from alignzoo_doctor import command, hub, machine, packages
from alignzoo_doctor.command import DoctorCommand
from alignzoo_doctor.finding import Finding


def doctor(*flags):
    """Return the exit code."""
    return run_class(DoctorCommand, list(flags), "alignzoo doctor") or 0


def test_this_machine_is_checked_without_the_network(monkeypatch, capsys):
    monkeypatch.setattr(hub, "HfApi", lambda: pytest.fail("the network was used"))
    code = doctor("--json")
    findings = json.loads(capsys.readouterr().out)
    assert code == any(finding["level"] == "problem" for finding in findings)
    subjects = {finding["subject"] for finding in findings}
    assert subjects >= {"devices", "bf16", "4-bit weights", "threads", "memory", "disk", "versions"}
    assert all(finding["advice"] for finding in findings if finding["level"] == "problem")


def test_a_check_that_fails_is_a_problem_and_the_others_go_on(monkeypatch, capsys):
    def check_broken():
        raise OSError("no such device")
        yield

    def check_fine():
        yield Finding("ok", "fine", "all is well")

    monkeypatch.setattr(command, "checks", lambda with_hub: [check_broken, check_fine])
    assert doctor() == 1
    printed = capsys.readouterr().out
    assert "cannot be checked: OSError: no such device" in printed
    assert "all is well" in printed and "1 problem, 0 notes" in printed


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({"cpu.max": "150000 100000"}, 1),
        ({"cpu.max": "50000 100000"}, 1),
        ({"cpu.max": "300000 100000"}, 3),
        ({"cpu.max": "max 100000"}, 8),
        ({"cpu/cpu.cfs_quota_us": "200000", "cpu/cpu.cfs_period_us": "100000"}, 2),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, 8),
        ({}, 8),
    ],
)
def test_a_container_may_have_fewer_cores(tmp_path, monkeypatch, files, cores):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(8)), raising=False)
    assert machine.usable_cores(tmp_path) == cores


def test_a_container_may_have_less_memory(tmp_path):
    assert machine.free_memory(tmp_path)[1] == machine.psutil.virtual_memory().total
    (tmp_path / "memory.max").write_text("1000000\n")
    (tmp_path / "memory.current").write_text("400000\n")
    assert machine.free_memory(tmp_path) == (600_000, 1_000_000)


@pytest.mark.parametrize(
    ("threads", "cores", "omp", "level", "advice"),
    [
        (8, 2, None, "note", "export OMP_NUM_THREADS=2"),
        (1, 4, "1", "note", "OMP_NUM_THREADS is 1"),
        (2, 4, None, "ok", ""),
        (4, 4, "4", "ok", ""),
    ],
)
def test_threads_are_compared_with_cores(monkeypatch, threads, cores, omp, level, advice):
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    monkeypatch.setattr(machine, "usable_cores", lambda: cores)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if omp is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", omp)
    (finding,) = machine.check_threads()
    assert finding.level == level and advice in finding.advice


def test_weights_in_four_bits_are_tried(monkeypatch):
    (finding,) = machine.check_four_bit()
    assert finding.level == "ok"

    def fail(*_, **__):
        raise RuntimeError("no kernel")

    monkeypatch.setattr("bitsandbytes.functional.quantize_4bit", fail)
    (finding,) = machine.check_four_bit()
    assert finding.level == "problem" and "RuntimeError: no kernel" in finding.text


def test_a_driver_that_torch_cannot_use_is_a_problem(monkeypatch):
    monkeypatch.setattr(machine, "default_device", lambda: torch.device("cpu"))
    monkeypatch.setattr("shutil.which", lambda name: None)
    assert [finding.level for finding in machine.check_devices()] == ["note"]
    monkeypatch.setattr("shutil.which", lambda name: f"/usr/bin/{name}")
    (finding,) = machine.check_devices()
    assert finding.level == "problem" and "pytorch.org" in finding.advice


def test_little_disk_and_a_folder_that_cannot_be_written(monkeypatch):
    levels = [machine.amount("disk", gb * 1e9, "", 10e9).level for gb in (2, 5, 20)]
    assert levels == ["problem", "note", "ok"]
    monkeypatch.setattr("os.access", lambda *_: False)
    assert {finding.level for finding in machine.check_disk()} == {"problem"}


def test_requirements_that_are_not_met_are_named(monkeypatch):
    needed = ["torch>=99", "numpy>=1", "no-such>=2 ; extra == 'x'", "not-there"]

    class Package:
        requires = needed

    monkeypatch.setattr(packages, "distribution", lambda name: Package)
    texts = [finding.text for finding in packages.check_requirements("alignzoo")]
    assert len(texts) == 2
    assert "needs torch>=99, and 2." in texts[0] and "not-there, and it is not" in texts[1]


def test_two_packages_in_one_place_are_named(monkeypatch):
    monkeypatch.setattr(
        packages, "packages_distributions", lambda: {"llama_cpp": ["one", "two", "one"]}
    )
    (finding,) = packages.check_shadows()
    assert finding.text == "one and two both install the module llama_cpp"


def test_a_plugin_that_cannot_be_loaded_is_named(install):
    files = {"broken_mod.py": "class X:\n    pass\n\nraise RuntimeError('boom')\n"}
    install("broken", "addons", {"broken-one": "broken_mod:X"}, files)
    (finding,) = [one for one in packages.check_plugins() if "broken" in one.text]
    assert finding.level == "problem" and "boom" in finding.text
    assert "-p no:NAME" in finding.advice


def test_the_hub_is_asked_only_on_request(monkeypatch):
    assert hub.check_hub not in command.checks(with_hub=False)
    assert hub.check_hub in command.checks(with_hub=True)

    class Api:
        def list_models(self, limit):
            raise ConnectionError

    monkeypatch.setattr(hub, "HfApi", Api)
    (finding,) = hub.check_hub()
    assert finding.level == "problem" and "(ConnectionError)" in finding.text
