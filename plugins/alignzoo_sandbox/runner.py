"""Runs inside the jail: a program, and the tests of it. Uses nothing but the standard library.

The input begins with a line that holds the length of the program in bytes, and the program. Without
`tests` in the settings, the program reads the rest of the input, and its output is the output.

With `tests`, this script writes "ready" once the program has run. Only then does it read the tests,
a line of JSON with a secret, and it writes the secret and the number of each test that passes. So a
program that exits early, or prints whatever it likes, passes nothing.
"""

import json
import os
import sys
from collections.abc import Callable


def read_line(
    source: int,
    read: Callable[[int, int], bytes] = os.read,
    leave: Callable[[int], object] = os._exit,
) -> bytes:
    """Read up to a newline; end the process if there is none."""
    line = b""
    while not line.endswith(b"\n"):
        byte = read(source, 1)
        if not byte:
            leave(1)
        line += byte
    return line


def read_program(source: int) -> str:
    """Read the length of the program, and the program."""
    length = int(read_line(source))
    code = b""
    while len(code) < length:
        code += os.read(source, length - len(code))
    return code.decode()


def run_tests() -> None:
    """Run the program, then its tests, and report those that pass; does not return."""
    # Keep references to everything used below: the program may replace it.
    import builtins

    write, leave, loads, run, build = os.write, os._exit, json.loads, exec, compile
    read, anything, order, table = read_line, BaseException, enumerate, vars(builtins)
    known = dict(table)
    source, sink = os.dup(0), os.dup(1)
    null = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(null, stream)
    code = read_program(source)
    space: dict[str, object] = {"__name__": "solution"}
    try:
        run(build(code, "solution.py", "exec"), space)
    except anything:
        leave(1)
    write(sink, b"ready\n")
    given = loads(read(source))
    for number, test in order(given["tests"]):
        table.clear()
        table.update(known)
        try:
            run(build(test, "test.py", "exec"), space)
        except anything:
            continue
        write(sink, f"{given['secret']} {number}\n".encode())
    leave(0)


def main() -> None:
    """Run the program, with tests or with input."""
    settings = json.loads(sys.argv.pop())
    if settings["tests"]:
        run_tests()
    code = read_program(0)
    exec(compile(code, "solution.py", "exec"), {"__name__": "__main__"})


main()
