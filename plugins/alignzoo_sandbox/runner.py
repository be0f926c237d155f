"""What runs in the jail: a program, and the tests that are put to it. Nothing but builtins.

Its input begins with the length of the program in bytes, a line, and the program. With
`tests` in the settings, "ready" is answered when the program has run; only then come the tests, as
a line of JSON with a secret, which is answered with the number of each test that passes. So a
program that ends everything, or prints what it likes, has not passed. Else the program reads the
rest of the input, and its output is the output.
"""

import json
import os
import sys


def guard(folder):
    """Where there are no namespaces: refuse what Python itself can refuse.

    It holds off accidents, not a program that sets out to get round it.
    """
    refused = ("socket.", "subprocess.", "ctypes.", "pty.", "os.exec", "os.fork", "os.posix_spawn")
    refused += ("os.spawn", "os.system", "os.kill", "os.startfile", "os.putenv", "syslog.")
    changes = ("os.remove", "os.rename", "os.rmdir", "os.mkdir", "os.chmod", "os.chown", "os.link")
    changes += ("os.symlink", "os.truncate", "os.utime", "shutil.")
    modules = ("ctypes", "_ctypes", "_posixsubprocess", "multiprocessing", "_socket")
    writing = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
    inside, real, fspath, is_text = folder + os.sep, os.path.realpath, os.fsdecode, (str, bytes)

    def hook(event, arguments):
        if event.startswith(refused):
            raise PermissionError(f"not allowed here: {event}")
        if event == "import" and arguments[0] in modules:
            raise PermissionError(f"not allowed here: {arguments[0]}")
        if event == "open" and not arguments[2] & writing:
            return
        if event == "open" or event.startswith(changes):
            for path in arguments[:2] if event != "open" else arguments[:1]:
                if isinstance(path, is_text) and not real(fspath(path)).startswith(inside):
                    raise PermissionError(f"not allowed here: {event} {path!r}")

    sys.addaudithook(hook)


def line_of(source, read=os.read, leave=os._exit):
    line = b""
    while not line.endswith(b"\n"):
        byte = read(source, 1)
        if not byte:
            leave(1)
        line += byte
    return line


def program_of(source):
    length = int(line_of(source))
    code = b""
    while len(code) < length:
        code += os.read(source, length - len(code))
    return code.decode()


def test(settings):
    # What the program may change is taken hold of before it runs.
    import builtins

    write, leave, loads, run, build = os.write, os._exit, json.loads, exec, compile
    read, anything, order, table = line_of, BaseException, enumerate, vars(builtins)
    known = dict(table)
    source, sink = os.dup(0), os.dup(1)
    null = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(null, stream)
    code = program_of(source)
    if not settings["namespaces"]:
        guard(settings["folder"])
    space = {"__name__": "solution"}
    try:
        run(build(code, "solution.py", "exec"), space)
    except anything:
        leave(1)
    write(sink, b"ready\n")
    given = loads(read(source))
    for number, source_of_test in order(given["tests"]):
        table.clear()
        table.update(known)
        try:
            run(build(source_of_test, "test.py", "exec"), space)
        except anything:
            continue
        write(sink, f"{given['secret']} {number}\n".encode())
    leave(0)


def main():
    settings = json.loads(sys.argv.pop())
    if settings["tests"]:
        test(settings)
    code = program_of(0)
    if not settings["namespaces"]:
        guard(settings["folder"])
    exec(compile(code, "solution.py", "exec"), {"__name__": "__main__"})


main()
