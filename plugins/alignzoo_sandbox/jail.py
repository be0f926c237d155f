"""Run as a script with the standard library alone: isolate a process, then exec Python in it.

`python jail.py SETTINGS PROGRAM`, with SETTINGS as JSON. This process drops root, starts the jail
as a child, and kills it when its processes together hold more memory than allowed. The jail is made
by bubblewrap or by this script; in both it has a network without interfaces, sees no other process,
and finds a disk of its own: the system's libraries and Python, read-only, three devices, and an
empty folder in memory. Then limits and a filter of system calls are set, and PROGRAM replaces this
script. If any of this fails, the exit status is 97, with the reason on standard error.
"""

import ctypes
import json
import os
import resource
import select
import signal
import struct
import sys
from collections.abc import Callable
from typing import Any

CLONE_NEWNS, CLONE_NEWIPC, CLONE_NEWUTS = 0x00020000, 0x08000000, 0x04000000
CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = 0x10000000, 0x20000000, 0x40000000
MS_NOSUID, MS_NODEV, MS_BIND, MS_REC, MS_PRIVATE = 2, 4, 0x1000, 0x4000, 1 << 18
SYS_MOUNT_SETATTR, AT_FDCWD, AT_RECURSIVE, MNT_DETACH = 442, -100, 0x8000, 2
MOUNT_ATTR_RDONLY, MOUNT_ATTR_NOSUID = 1, 2
PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_SECCOMP, PR_SET_NO_NEW_PRIVS = 1, 4, 22, 38
SECCOMP_MODE_FILTER, X32 = 2, 0x40000000
NOBODY = 65534
PYTHON = os.path.realpath(sys.executable)  # the base interpreter, without a venv's packages
FAILED = 97
SYSTEM = (
    "/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/etc/ld.so.cache", "/nix/store",
    "/gnu/store",
)  # fmt: skip
DEVICES = ("/dev/null", "/dev/zero", "/dev/urandom")
INTERVAL = 10  # milliseconds between two looks at the memory

# The system calls that a program is refused, as numbers on x86-64 and on the architectures with the
# kernel's common numbers. Sockets reach past a jail (AF_VSOCK has no namespace); the keyrings are
# the user's; memory from the others would be no process's own, so that nothing would count it.
REFUSED = {
    "socket": (41, 198), "memfd_create": (319, 279), "memfd_secret": (447, 447),
    "shmget": (29, 194), "msgget": (68, 186), "mq_open": (240, 180), "add_key": (248, 217),
    "request_key": (249, 218), "keyctl": (250, 219), "ptrace": (101, 117), "bpf": (321, 280),
    "io_uring_setup": (425, 425), "userfaultfd": (323, 282), "perf_event_open": (298, 241),
    "unshare": (272, 97), "setns": (308, 268),
}  # fmt: skip
ARCHITECTURES = {"x86_64": (0xC000003E, 0), "aarch64": (0xC00000B7, 1), "riscv64": (0xC00000F3, 1)}

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


# --- what a program sees of the disk


def visible_paths() -> list[str]:
    """Return the files, folders and links that Python needs, and no path below another."""
    with open("/proc/self/maps") as file:
        mapped = {line.split(None, 5)[-1].strip() for line in file}
    libraries = sorted({os.path.dirname(path) for path in mapped if ".so" in path} - {"/", ""})
    found: list[str] = []
    for path in [*SYSTEM, os.path.realpath(sys.base_prefix), *libraries]:
        covered = any(path == other or path.startswith(other + os.sep) for other in found)
        if os.path.lexists(path) and not covered:
            found.append(path)
    return found


def build_disk(folder: str, size: int) -> None:
    """Make a disk in memory at `folder`, with what a program may see, and make it the root.

    It is read-only, except for an empty folder of `size` bytes at the path `folder` of it.
    """
    call(libc.mount, None, b"/", None, MS_REC | MS_PRIVATE, None)
    root, restricted = os.fsencode(folder), MS_NOSUID | MS_NODEV
    call(libc.mount, b"tmpfs", root, b"tmpfs", restricted, b"size=1m,mode=755")
    for path in [*visible_paths(), *DEVICES]:
        inside = folder + path
        os.makedirs(os.path.dirname(inside), exist_ok=True)
        if os.path.islink(path):
            os.symlink(os.readlink(path), inside)
            continue
        if os.path.isdir(path):
            os.makedirs(inside, exist_ok=True)
        else:
            os.close(os.open(inside, os.O_CREAT | os.O_WRONLY))
        call(libc.mount, os.fsencode(path), os.fsencode(inside), None, MS_BIND | MS_REC, None)
    os.makedirs(folder + "/proc")
    os.makedirs(folder + folder)
    read_only = (ctypes.c_uint64 * 4)(MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID, 0, 0, 0)
    attributes, length = ctypes.byref(read_only), ctypes.c_size_t(32)
    call(libc.syscall, SYS_MOUNT_SETATTR, AT_FDCWD, root, AT_RECURSIVE, attributes, length)
    options = f"size={size},nr_inodes=4k,mode=700".encode()
    call(libc.mount, b"tmpfs", root + root, b"tmpfs", restricted, options)
    # The old root is put under the new one, and taken away from there.
    os.chdir(folder)
    call(libc.pivot_root, b".", b".")
    call(libc.umount2, b".", MNT_DETACH)
    os.chdir(folder)


# --- the two jails


def enter_namespaces(folder: str, size: int) -> None:
    """Enter new namespaces with a disk of their own."""
    user, group = os.getuid(), os.getgid()
    flags = CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS
    call(libc.unshare, flags)
    write("/proc/self/setgroups", "deny")
    # Not root inside either, so that the next `exec` drops all capabilities.
    write("/proc/self/uid_map", f"{NOBODY} {user} 1")
    write("/proc/self/gid_map", f"{NOBODY} {group} 1")
    write("/proc/sys/user/max_user_namespaces", "0")
    build_disk(folder, size)


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
        die_with_parent()


def bubblewrap_command(settings: dict[str, Any], program: str) -> list[str]:
    """Return the command that makes the jail with bubblewrap, and runs this script in it."""
    folder = settings["folder"]
    command = [
        settings["bubblewrap"], "--unshare-user", "--unshare-all", "--disable-userns",
        "--die-with-parent", "--new-session", "--cap-drop", "ALL", "--uid", str(NOBODY), "--gid",
        str(NOBODY), "--dir", "/proc",
    ]  # fmt: skip
    for path in visible_paths():
        link = os.path.islink(path)
        command += ["--symlink", os.readlink(path), path] if link else ["--ro-bind", path, path]
    for path in DEVICES:
        command += ["--dev-bind", path, path]
    command += ["--size", str(settings["file_size"]), "--tmpfs", folder]
    command += ["--remount-ro", "/", "--chdir", folder, "--", PYTHON, "-I", "-S", "-c"]
    with open(__file__, encoding="utf-8") as file:
        return [*command, file.read(), json.dumps({**settings, "kind": "inside"}), program]


# --- inside


def set_limits(settings: dict[str, Any]) -> None:
    """Set the resource limits, which the program inherits."""
    limits = {
        resource.RLIMIT_AS: settings["memory"],
        resource.RLIMIT_CPU: settings["seconds"],
        resource.RLIMIT_FSIZE: settings["file_size"],
        resource.RLIMIT_NPROC: settings["processes"],
        resource.RLIMIT_NOFILE: 64,
        resource.RLIMIT_CORE: 0,
    }
    for kind, limit in limits.items():
        resource.setrlimit(kind, (limit, limit))


def refuse_calls() -> None:
    """Let the kernel refuse some system calls with EPERM, for good (seccomp)."""
    machine = os.uname().machine
    if machine not in ARCHITECTURES:
        raise OSError(f"there is no filter of system calls for {machine}")
    architecture, column = ARCHITECTURES[machine]
    load, equal, at_least, give = 0x20, 0x15, 0x35, 0x06  # instructions of the kernel's filters
    allow, refuse, kill = 0x7FFF0000, 0x00050000 | 1, 0x80000000
    steps = [(load, 0, 0, 4), (equal, 1, 0, architecture), (give, 0, 0, kill), (load, 0, 0, 0)]
    steps += [(at_least, 0, 1, X32), (give, 0, 0, refuse)]
    for numbers in REFUSED.values():
        steps += [(equal, 0, 1, numbers[column]), (give, 0, 0, refuse)]
    steps.append((give, 0, 0, allow))
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in steps))
    program = struct.pack("HL", len(steps), ctypes.addressof(code))
    call(libc.prctl, PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    call(libc.prctl, PR_SET_SECCOMP, SECCOMP_MODE_FILTER, program, 0, 0)


def run_inside(settings: dict[str, Any], program: str) -> None:
    """Set limits, and replace this process by the program."""
    set_limits(settings)
    refuse_calls()
    command = [PYTHON, "-P", "-s", "-S", "-c", program, json.dumps(settings)]
    os.execve(PYTHON, command, dict(os.environ))


# --- outside: the memory of all processes together


def die_with_parent() -> None:
    """Have the kernel kill this process when its parent ends."""
    call(libc.prctl, PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def read(path: str) -> str:
    """Return the text of a file of /proc, "" if its process has ended."""
    try:
        with open(path) as file:
            return file.read()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def list_processes(child: int) -> list[int]:
    """Return a process and all its descendants."""
    found = [child]
    for process in found:
        try:
            threads = os.listdir(f"/proc/{process}/task")
        except (FileNotFoundError, ProcessLookupError):
            continue
        for thread in threads:
            found += map(int, read(f"/proc/{process}/task/{thread}/children").split())
    return found


def resident(process: int) -> int:
    """Return the memory of a process in bytes, with all that it shares."""
    fields = read(f"/proc/{process}/statm").split()
    return int(fields[1]) * resource.getpagesize() if fields else 0


def proportional(process: int) -> int:
    """Return the memory of a process in bytes, with its part of what it shares."""
    try:
        lines = read(f"/proc/{process}/smaps_rollup").splitlines()
    except PermissionError:
        return resident(process)
    return sum(
        1024 * int(line.split()[1]) for line in lines if line.startswith(("Pss:", "SwapPss:"))
    )


def watch(child: int, memory: int) -> int:
    """Wait until the jail ends, and return its exit status; kill it if it holds too much memory."""
    if not os.path.exists("/proc/thread-self/children"):
        os.kill(child, signal.SIGKILL)
        raise OSError("the kernel does not list the children of a process")
    ended = select.poll()
    ended.register(os.pidfd_open(child), select.POLLIN)
    while not ended.poll(INTERVAL):
        processes = list_processes(child)
        # The first sum is quick, and never less than the second.
        if sum(map(resident, processes)) > memory and sum(map(proportional, processes)) > memory:
            os.kill(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) & 0xFF


def start(settings: dict[str, Any], program: str) -> int:
    """Start the jail as a child and watch it; return its exit status."""
    drop_root()
    die_with_parent()
    child = os.fork()
    if child:
        return watch(child, settings["memory"])
    die_with_parent()
    if settings["kind"] == "bubblewrap":
        command = bubblewrap_command(settings, program)
        os.execve(command[0], command, dict(os.environ))
    enter_namespaces(settings["folder"], settings["file_size"])
    fork_into_namespace()
    run_inside(settings, program)
    return FAILED


def main() -> None:
    """Isolate a process, and replace it by the program."""
    settings, program = json.loads(sys.argv[1]), sys.argv[2]
    try:
        if settings["kind"] == "inside":
            run_inside(settings, program)
        status = start(settings, program)
    except OSError as error:
        print(error, file=sys.stderr)
        status = FAILED
    sys.stderr.flush()
    os._exit(status)


if __name__ == "__main__":
    main()
