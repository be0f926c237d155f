"""The reward code: programs are scored by their tests, and isolated from everything else."""

from __future__ import annotations

import json
import os
import socket
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from alignzoo import Example, Run, collate
from alignzoo.cli import status
from alignzoo.errors import BadInput
from alignzoo.ledger import Ledger
from alignzoo.rewards import resolve_rewards
from alignzoo_rewards import code
from alignzoo_rewards.code import (
    Code,
    check_tests,
    extract_program,
    has_tests,
    outputs_match,
    split_tests,
)
from alignzoo_sandbox import sandbox as sandboxes
from alignzoo_sandbox.sandbox import JAILS, Limits, Sandbox, jail_failure

SECONDS = 2.0  # enough on a busy machine


@pytest.fixture(params=JAILS)
def sandbox(request) -> Sandbox:
    if reason := jail_failure(request.param):
        pytest.skip(reason)
    return Sandbox(Limits(SECONDS, memory=256), request.param)


def left_over() -> list[str]:
    """Return the command lines of sandboxed processes that still run after at most 5 s."""
    deadline = time.monotonic() + 5
    while (found := running()) and time.monotonic() < deadline:
        time.sleep(0.05)
    return found


def running() -> list[str]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            text = path.read_bytes().decode(errors="replace")
        except OSError:
            continue
        if '"processes"' in text and '"file_size"' in text:
            found.append(text)
    return found


ADD = "def add(a, b):\n    return a + b\n"


def test_tests_that_pass_are_counted(sandbox):
    assert sandbox.count_passed(ADD, ["assert add(1, 2) == 3", "assert add(1, 2) == 4"]) == 1
    assert sandbox.count_passed(ADD, ["assert add(1, 2) == 3", "x = add(2, 2)\nassert x == 4"]) == 2


@pytest.mark.parametrize(
    "program",
    [
        "import sys; sys.exit(0)",
        "import os; os._exit(0)",
        "raise SystemExit",
        "this is no Python",
        "import os\nfor stream in range(3, 9):\n    try: os.write(stream, b'ready\\n0\\n1\\n')\n"
        "    except OSError: pass\nos._exit(0)",
        "\0",
        "import ctypes; ctypes.string_at(0)",
    ],
)
def test_a_program_that_exits_early_passes_nothing(sandbox, program):
    assert sandbox.count_passed(program, ["assert True"]) == 0


TAMPERING = {
    "a function that ends it": ("def f():\n    import os\n    os._exit(0)", "assert f() == 1", 0),
    "a function that leaves": ("import sys\nf = sys.exit", "assert f() == 1", 0),
    "builtins": ("import builtins\nbuiltins.len = lambda x: 3", "assert len([]) == 3", 0),
    "no error": ("import builtins\nbuiltins.AssertionError = None", "assert False", 0),
    "exec": ("import builtins\nbuiltins.exec = lambda *a: None", "assert False", 0),
    "modules": (
        "import os, json\nos.write = os.read = json.loads = lambda *a: b'1'",
        "assert False",
        0,
    ),
    "words": ("print('ready'); print('0'); print('1')", "assert False", 0),
    "nothing": ("", "assert len([1]) == 1", 1),
}


@pytest.mark.parametrize("case", list(TAMPERING))
def test_tampering_with_the_tests_passes_nothing(sandbox, case):
    program, test, expected = TAMPERING[case]
    assert sandbox.count_passed(program, [test, "assert False"]) == expected


def test_output_for_input(sandbox):
    assert sandbox.run("print(int(input()) * 2)", "21\n") == "42\n"
    assert sandbox.run("import sys\nprint('x'); sys.exit(0)", "") == "x\n"
    assert sandbox.run("print('x')\nraise ValueError", "") is None


@pytest.mark.parametrize("program", ["while True: pass", "import time\ntime.sleep(60)"])
def test_a_program_that_does_not_end_is_killed(sandbox, program):
    started = time.monotonic()
    assert sandbox.count_passed(program, ["assert True"]) == 0
    assert sandbox.run(program, "") is None
    assert time.monotonic() - started < 2 * SECONDS + 4
    assert not left_over()


def test_a_gigabyte_exceeds_the_memory_limit(sandbox):
    program = "def f():\n    return len(bytearray(1 << 30))"
    assert sandbox.count_passed(program, ["assert f()", "assert True"]) == 1
    assert sandbox.run("print(len(bytearray(1 << 30)))", "") is None


FLOOD = """
import os
while True:
    for stream in (3, 4, 5):
        try:
            os.write(stream, b"x" * 1000)
        except OSError:
            pass
"""


def test_endless_output_is_cut_off(sandbox):
    started = time.monotonic()
    assert sandbox.run("while True: print('x' * 1000)", "") is None
    assert sandbox.count_passed("for _ in range(10**5): print('x' * 1000)", ["assert True"]) == 1
    assert sandbox.count_passed(FLOOD, ["assert True"]) == 0
    assert time.monotonic() - started < 3 * SECONDS + 4


BOMB = """
import os, time
def forks():
    count = 0
    try:
        while count < 500:
            if os.fork() == 0:
                os.setsid()
                time.sleep(60)
            count += 1
    except OSError:
        pass
    return count
"""


def test_a_fork_bomb_is_limited_and_leaves_no_process(sandbox):
    assert sandbox.count_passed(BOMB, ["assert 0 < forks() < 16"]) == 1
    wild = "import os\nwhile True:\n    try: os.fork()\n    except OSError: pass"
    assert sandbox.count_passed(wild, ["assert True"]) == 0
    time.sleep(0.2)
    assert not left_over()


CONNECT = """
import socket
def reached(port):
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1):
            return True
    except OSError:
        return False
"""


def test_no_network(sandbox):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port), timeout=1):
            pass  # it is there
        assert sandbox.count_passed(CONNECT, [f"assert reached({port})"]) == 0


def test_files_outside_the_folder_cannot_be_changed(sandbox, tmp_path):
    victim, new = tmp_path / "victim", tmp_path / "new"
    victim.write_text("kept")
    tmp_path.chmod(0o777)
    victim.chmod(0o666)
    program = f"""
import os, shutil
def write(): open({str(new)!r}, "w").write("x")
def append(): open({str(victim)!r}, "a").write("x")
def delete(): os.remove({str(victim)!r})
def delete_all(): shutil.rmtree({str(tmp_path)!r})
def own():
    open("mine", "w").write("x")
    os.remove("mine")
"""
    names = ["write", "append", "delete", "delete_all"]
    assert sandbox.count_passed(program, [f"{name}()" for name in names]) == 0
    assert victim.read_text() == "kept" and not new.exists()
    assert sandbox.count_passed(program, ["own()"]) == 1


def test_the_size_of_files_is_limited(sandbox):
    program = "def f():\n    open('big', 'wb').write(b'x' * (64 << 20))"
    assert sandbox.count_passed(program, ["f()", "assert True"]) == 1


def test_the_environment_is_not_inherited(sandbox, monkeypatch):
    monkeypatch.setenv("SECRET", "1")
    program = "import os\nnames = sorted(os.environ)"
    assert (
        sandbox.count_passed(program, ["assert 'SECRET' not in names and 'PATH' not in names"]) == 1
    )


def test_other_processes_are_invisible(sandbox):
    tests = ["assert os.getpid() < 10", "assert not os.listdir('/proc')", "assert os.getuid() != 0"]
    assert sandbox.count_passed("import os", tests) == 3


# --- escapes


def attempt(sandbox: Sandbox, program: str, *tests: str) -> int:
    """Return how many tests, each an attempt that raises if it fails, get through."""
    return sandbox.count_passed("import ctypes, os, socket\n" + program, tests)


def test_sockets_of_the_user_cannot_be_reached(sandbox, tmp_path):
    # As those of tmux, docker, ssh-agent and D-Bus: a path, or an abstract name.
    path, name = str(tmp_path / "socket"), f"alignzoo-test-{os.getpid()}"
    os.chmod(tmp_path, 0o777)
    with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as abstract:
        server.bind(path)
        os.chmod(path, 0o777)
        server.listen()
        abstract.bind(f"\0{name}")
        abstract.listen()
        connect = "socket.socket(socket.AF_UNIX).connect"
        tests = [f"{connect}({path!r})", f"{connect}('\\0{name}')", f"os.stat({path!r})"]
        assert attempt(sandbox, "", *tests) == 0
    for family in ("AF_UNIX", "AF_INET", "AF_INET6", "AF_NETLINK", "AF_VSOCK", "AF_PACKET"):
        assert attempt(sandbox, "", f"socket.socket(socket.{family})") == 0
    assert attempt(sandbox, "import asyncio", "asyncio.run(asyncio.sleep(0))") == 1


def test_named_pipes_and_terminals_cannot_be_written(sandbox, tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    os.chmod(tmp_path, 0o777)
    os.chmod(pipe, 0o777)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    leader, terminal = os.openpty()
    os.fchmod(terminal, 0o777)
    try:
        paths = [str(pipe), os.ttyname(terminal), "/dev/tty", "/dev/ptmx", "/dev/console"]
        assert attempt(sandbox, "", *(f"os.open({path!r}, os.O_WRONLY)" for path in paths)) == 0
    finally:
        for stream in (reader, leader, terminal):
            os.close(stream)
    tests = ["os.tcgetpgrp(0)", *(f"assert os.isatty({stream})" for stream in range(4))]
    assert attempt(sandbox, "", *tests) == 0


def test_only_python_and_libraries_are_on_the_disk(sandbox, tmp_path):
    program = """
def names(path): return set(os.listdir(path))
def home(): return os.environ["HOME"]
"""
    tests = [
        "assert names('/dev') == {'null', 'zero', 'urandom'}",
        "assert names('/etc') <= {'ld.so.cache'}",
        "assert not names('/proc') and not names(home())",
        "assert names(os.path.dirname(home())) == {os.path.basename(home())}",
        "assert not names('/') & {'run', 'var', 'sys', 'mnt', 'media', 'boot', 'opt', 'srv'}",
        "open('/dev/null', 'w').write('x')",
    ]
    assert attempt(sandbox, program, *tests) == len(tests)
    secret = tmp_path / "secret"
    secret.write_text("x")
    secret.chmod(0o666)
    paths = [str(secret), "/etc/passwd", "/etc/hostname", str(Path.cwd()), __file__]
    assert attempt(sandbox, "", *(f"os.stat({path!r})" for path in paths)) == 0
    changes = ["open('/new', 'w')", "os.mkdir('/usr/new')", "open('/dev/new', 'w')"]
    assert attempt(sandbox, "", *changes) == 0


SYSTEM_CALLS = """
libc = ctypes.CDLL(None, use_errno=True)
def call(name, *arguments):
    assert getattr(libc, name)(*arguments) >= 0
"""


def test_the_kernel_refuses_other_ways_out(sandbox):
    tests = [
        "call('unshare', 0x10000000)",  # a user namespace
        "call('mount', b'none', b'/proc', b'tmpfs', 0, None)",
        "call('umount2', b'/dev/null', 2)",
        "call('chroot', b'/usr')",
        "call('ptrace', 16, 1, 0, 0)",
        "call('shmget', 0, 1 << 28, 0o1600)",
        "call('msgget', 0, 0o1600)",
        "call('memfd_create', b'x', 0)",
        "os.setuid(0)",
        "os.memfd_create('x')",
    ]
    numbers = jail_module().REFUSED.values()
    column = jail_module().ARCHITECTURES[os.uname().machine][1]
    tests += [f"call('syscall', {pair[column]}, 0, 0, 0, 0, 0)" for pair in numbers]
    assert attempt(sandbox, SYSTEM_CALLS, *tests) == 0
    keys = "call('syscall', {}, 0, -3, 0, 0, 0)"  # KEYCTL_GET_KEYRING_ID of the session
    assert attempt(sandbox, SYSTEM_CALLS, keys.format(jail_module().REFUSED["keyctl"][column])) == 0


def jail_module() -> Any:
    from alignzoo_sandbox import jail

    return jail


HOLD = """
import time
def hold(processes, mib):
    for _ in range(processes):
        ready, done = os.pipe()
        if os.fork() == 0:
            block = bytearray(os.urandom(1) * (mib << 20))
            os.write(done, b"x")
            time.sleep(60)
        os.close(done)
        assert os.read(ready, 1)
    time.sleep(0.3)
"""


def test_the_memory_limit_is_for_all_processes_together(sandbox):
    assert attempt(sandbox, HOLD, "hold(3, 40)") == 1
    assert attempt(sandbox, HOLD, "hold(10, 40)") == 0
    # Copies that share their memory are counted once.
    shared = "block = bytearray(os.urandom(1) * (100 << 20))\n" + HOLD
    assert attempt(sandbox, shared, "hold(5, 1)") == 1
    assert not left_over()


def test_without_a_jail_nothing_runs(monkeypatch, tmp_path, capfd):
    monkeypatch.setattr(sandboxes, "jail_failure", lambda kind: f"no {kind} here")
    with pytest.raises(BadInput, match="no bubblewrap here; namespaces: no namespaces here"):
        Sandbox(Limits())
    data = rows(tmp_path / "d.jsonl", {"prompt": "Add 1.", "tests": ["assert x == 1"]})
    words = ["run", "grpo", "--reward", "code", "--allow-code", "--data", data]
    assert status([*words, "--output-dir", str(tmp_path / "runs")]) == 2
    assert "programs cannot be isolated on this machine" in capfd.readouterr().err


# --- the reward

FENCED = "Here it is:\n```python\ndef add(a, b):\n    return a - b\n```\nNo:\n```py\n{}```\nDone."


@pytest.mark.parametrize(
    ("text", "program"),
    [
        (ADD, ADD),
        (FENCED.format(ADD), ADD),
        (f"```\n{ADD}```", ADD),
        (f"```python\n{ADD}", ADD),  # cut off
        ("```bash\nls\n```", "```bash\nls\n```"),
        (f"```bash\nls\n```\nThen:\n```Python\n{ADD}```\n```bash\nls\n```", ADD),
    ],
)
def test_the_program_in_a_text(text, program):
    assert extract_program(text) == program


def test_the_tests_in_a_row():
    assert split_tests({"tests": ["assert 1", "assert 2"]}) == ["assert 1", "assert 2"]
    text = "x = f()\nassert x\nassert (\n    x)\ny = 1\n"
    assert split_tests({"test": text}) == ["x = f()\nassert x\n", "assert (\n    x)\ny = 1\n"]
    check = "def check(candidate):\n    assert candidate(1) == 2\n"
    (whole,) = split_tests({"test": check, "entry_point": "inc"})
    assert whole.endswith("check(inc)\n")


def test_the_fraction_of_tests_or_all_of_them():
    row = {"tests": ["assert add(1, 2) == 3", "assert add(0, 0) == 1"]}
    assert Code(seconds=SECONDS).score(row, FENCED.format(ADD)) == 0.5
    assert Code(seconds=SECONDS, all=True).score(row, ADD) == 0.0
    assert Code(seconds=SECONDS, all=True).score({"tests": row["tests"][:1]}, ADD) == 1.0
    pairs = {"inputs": ["1 2", "5 5"], "outputs": ["3\n", "11"]}
    assert Code(seconds=SECONDS).score(pairs, "print(sum(map(int, input().split())))") == 0.5
    assert Code().score({"prompt": "no tests"}, ADD) is None
    assert Code(seconds=SECONDS).score(row, "I cannot write programs.") == 0.0


def test_outputs_are_compared_by_lines():
    assert outputs_match("a \nb\n\n", "a\nb")
    assert not outputs_match("a\n\nb", "a\nb")
    assert not outputs_match(" a", "a")


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({"tests": ["assert ("]}, "column 'tests' is not Python"),
        ({"tests": [1]}, "column 'tests' is not Python"),
        ({"inputs": ["1"], "outputs": []}, "differ in number"),
        ({"inputs": ["1"]}, "differ in number"),
        ({"inputs": [1], "outputs": ["1"]}, "lists of text"),
    ],
)
def test_invalid_tests_are_refused(row, says):
    with pytest.raises(BadInput, match=says):
        check_tests(row, "d.jsonl")


def test_the_sample_rows_of_the_page_have_valid_tests():
    page = Path(code.__file__).with_name("README.md").read_text(encoding="utf-8")
    rows = [json.loads(line) for line in page.splitlines() if line.startswith("{")]
    assert [has_tests(row) for row in rows] == [False, True, True]
    for row in rows:
        check_tests(row, "README.md")


def test_running_code_must_be_allowed(tmp_path, capfd):
    with pytest.raises(BadInput, match="--allow-code"):
        resolve_rewards(["code"], None, lambda named: Path())
    ((_, reward),) = resolve_rewards(
        ["code,seconds=3,all=true"], None, lambda named: Path(), allow_code=True
    )
    assert reward.all and reward.sandbox.limits.seconds == 3.0
    recipe = tmp_path / "r.yaml"
    recipe.write_text("algorithm: grpo\nreward: [code]\nallow_code: true\n")
    for words in (["grpo", "--reward", "code"], ["--recipe", str(recipe)]):
        assert status(["run", *words, "--output-dir", str(tmp_path / "runs")]) == 2
        assert "allow" in capfd.readouterr().err
    assert not (tmp_path / "runs").exists()


def rows(path: Path, row: dict) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for _ in range(8)))
    return str(path)


def test_rows_without_tests_are_refused(tmp_path, capfd):
    data = rows(tmp_path / "d.jsonl", {"prompt": "Write a program."})
    words = ["run", "grpo", "--reward", "code", "--allow-code", "--data", data]
    assert status([*words, "--output-dir", str(tmp_path / "runs")]) == 2
    assert "the rows have no tests" in capfd.readouterr().err


def test_a_run_is_rewarded_by_it(tmp_path, capfd):
    # zoo-tiny writes no valid program.
    data = rows(tmp_path / "d.jsonl", {"prompt": "Add 1.", "tests": ["assert x == 1"]})
    words = ["run", "grpo", "--reward", "code", "--allow-code", "--data", data, "--steps", "1"]
    words += ["--batch-size", "2", "--group-size", "2", "--max-new-tokens", "8"]
    words += ["--eval-size", "0", "--name", "one", "--output-dir", str(tmp_path / "runs")]
    assert status(words) == 0, capfd.readouterr().err
    (line,) = (tmp_path / "runs/one/metrics.jsonl").read_text().splitlines()
    assert json.loads(line)["rewards/code/mean"] == 0.0


def test_concurrent_scores_keep_the_order():
    reward, batch = Code(seconds=10.0), collate([Example([1], [[n] for n in range(8)])])
    assert reward.workers >= 1
    reward.workers, batch.rows = 4, [{"tests": ["assert x == 1"]}]
    codec = SimpleNamespace(decode=lambda ids: f"x = {ids[0] % 2}")
    run = SimpleNamespace(codec=codec, ledger=Ledger())
    run.texts = lambda batch: Run.texts(run, batch)
    assert reward.alignzoo_reward(run, batch).tolist() == [0.0, 1.0] * 4
    assert run.ledger.feedback["verifier_calls"] == 8
