"""Run as a script with the standard library alone: isolate this process, then exec Python.

`python jail.py SETTINGS PROGRAM`, with SETTINGS as JSON. The process drops root. With `namespaces`
it gets a network without interfaces, sees no other process, and finds the whole disk read-only
except for a folder in memory. Then limits are set, and PROGRAM replaces this script. If any of this
fails, the exit status is 97, with the reason on standard error.
"""

import ctypes
import json
import os
import resource
import signal
import sys
from collections.abc import Callable

CLONE_NEWNS, CLONE_NEWIPC, CLONE_NEWUTS = 0x00020000, 0x08000000, 0x04000000
CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = 0x10000000, 0x20000000, 0x40000000
MS_NOSUID, MS_NODEV, MS_BIND, MS_REC, MS_PRIVATE = 2, 4, 0x1000, 0x4000, 1 << 18
SYS_MOUNT_SETATTR, AT_FDCWD, AT_RECURSIVE, MOUNT_ATTR_RDONLY = 442, -100, 0x8000, 1
PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_NO_NEW_PRIVS = 1, 4, 38
NOBODY = 65534
PYTHON = os.path.realpath(sys.executable)  # the base interpreter, without a venv's packages
FAILED = 97

libc = ctypes.CDLL(None, use_errno=True)


def call(function: Callable[..., int], *arguments: object) -> None:
    """Call a function of the C library; raise `OSError` if it fails."""
    if function(*arguments) < 0:
        number = ctypes.get_errno()
        name = getattr(function, "__name__", "system call")
        raise OSError(number, f"{name}: {os.strerror(number)}")


def write(path: str, text: str) -> None:
    """Write a file of /proc."""
    with open(path, "w") as file:
        file.write(text)


def make_reachable(folder: str) -> None:
    """Let the user nobody reach a folder whose parents only root may enter.

    In this process's view of the disk, an empty folder that leads only to `folder` replaces the
    first such parent.
    """
    parts = folder.split(os.sep)
    parents = [os.sep.join(parts[: i + 1]) for i in range(1, len(parts))]
    closed = [parent for parent in parents if not os.stat(parent).st_mode & 0o001]
    if closed:
        call(libc.unshare, CLONE_NEWNS)
        call(libc.mount, None, b"/", None, MS_REC | MS_PRIVATE, None)
        held = os.open(folder, os.O_PATH)
        call(libc.mount, b"tmpfs", os.fsencode(closed[0]), b"tmpfs", 0, b"size=64k,mode=755")
        os.makedirs(folder)
        call(libc.mount, f"/proc/self/fd/{held}".encode(), os.fsencode(folder), None, MS_BIND, None)
        os.close(held)


def drop_root() -> None:
    """Become the user nobody if this is root, which no limit on processes applies to."""
    if os.getuid() == 0:
        make_reachable(os.path.realpath(sys.base_prefix))
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
        call(libc.prctl, PR_SET_DUMPABLE, 1, 0, 0, 0)  # otherwise root still owns /proc/self
    for path in (PYTHON, os.__file__):
        if not os.access(path, os.R_OK):
            raise OSError(f"the user nobody cannot read {path}; run as an ordinary user")


def enter_namespaces(folder: str, size: int) -> None:
    """Enter new namespaces, and make the disk read-only except `folder`, of `size` bytes."""
    user, group = os.getuid(), os.getgid()
    flags = CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS
    call(libc.unshare, flags)
    write("/proc/self/setgroups", "deny")
    # Not root inside either, so that the next `exec` drops all capabilities.
    write("/proc/self/uid_map", f"{NOBODY} {user} 1")
    write("/proc/self/gid_map", f"{NOBODY} {group} 1")
    write("/proc/sys/user/max_user_namespaces", "0")
    call(libc.mount, None, b"/", None, MS_REC | MS_PRIVATE, None)
    read_only = (ctypes.c_uint64 * 4)(MOUNT_ATTR_RDONLY, 0, 0, 0)
    call(
        libc.syscall,
        SYS_MOUNT_SETATTR,
        AT_FDCWD,
        b"/",
        AT_RECURSIVE,
        ctypes.byref(read_only),
        ctypes.c_size_t(32),
    )
    restricted = MS_NOSUID | MS_NODEV
    call(libc.mount, b"tmpfs", b"/proc", b"tmpfs", restricted, b"size=4k,mode=555")
    options = f"size={size},mode=700".encode()
    call(libc.mount, b"tmpfs", os.fsencode(folder), b"tmpfs", restricted, options)
    os.chdir(folder)


def fork_into_namespace() -> None:
    """Continue as a child of the first process of the new PID namespace.

    When the first process ends, the kernel kills all others.
    """
    for _ in range(2):
        child = os.fork()
        if child:
            while True:
                ended, status = os.wait()
                if ended == child:
                    os._exit(os.waitstatus_to_exitcode(status) & 0xFF)
        call(libc.prctl, PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def set_limits(settings: dict[str, int]) -> None:
    """Set the resource limits, which the program inherits."""
    limits = {
        resource.RLIMIT_AS: settings["memory"],
        resource.RLIMIT_CPU: settings["seconds"],
        resource.RLIMIT_FSIZE: settings["file_size"],
        resource.RLIMIT_NOFILE: 64,
        resource.RLIMIT_CORE: 0,
    }
    if settings["namespaces"]:  # otherwise all processes of the user would count
        limits[resource.RLIMIT_NPROC] = settings["processes"]
    for kind, limit in limits.items():
        resource.setrlimit(kind, (limit, limit))


def main() -> None:
    """Isolate this process, and replace it by the program."""
    settings, program = json.loads(sys.argv[1]), sys.argv[2]
    try:
        drop_root()
        call(libc.prctl, PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if settings["namespaces"]:
            enter_namespaces(settings["folder"], settings["file_size"])
            fork_into_namespace()
        call(libc.prctl, PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        set_limits(settings)
    except OSError as error:
        print(error, file=sys.stderr)
        os._exit(FAILED)
    command = [PYTHON, "-P", "-s", "-S", "-c", program, sys.argv[1]]
    os.execve(PYTHON, command, dict(os.environ))


if __name__ == "__main__":
    main()
