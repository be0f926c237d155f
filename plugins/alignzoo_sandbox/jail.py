"""Run as a script, on the standard library alone: shuts itself in, and becomes another Python.

`python jail.py SETTINGS PROGRAM`, SETTINGS being JSON. It drops root; with `namespaces` it is alone
in a network without any interface, sees no other process, and finds all the disk read-only but
for a folder in memory; then it has limits, and PROGRAM takes its place. Exit status 97, with a line
of why on standard error, where it cannot be shut in.
"""

import ctypes
import json
import os
import resource
import signal
import sys

CLONE_NEWNS, CLONE_NEWIPC, CLONE_NEWUTS = 0x00020000, 0x08000000, 0x04000000
CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = 0x10000000, 0x20000000, 0x40000000
MS_NOSUID, MS_NODEV, MS_BIND, MS_REC, MS_PRIVATE = 2, 4, 0x1000, 0x4000, 1 << 18
SYS_MOUNT_SETATTR, AT_FDCWD, AT_RECURSIVE, MOUNT_ATTR_RDONLY = 442, -100, 0x8000, 1
PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_NO_NEW_PRIVS = 1, 4, 38
NOBODY = 65534
PYTHON = os.path.realpath(sys.executable)  # not that of an environment: it has packages of its own
FAILED = 97

libc = ctypes.CDLL(None, use_errno=True)


def call(function, *arguments):
    """A function of the C library; `OSError` where it fails."""
    if function(*arguments) < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{function.__name__}: {os.strerror(number)}")


def write(path, text):
    with open(path, "w") as file:
        file.write(text)


def reachable(folder):
    """Let nobody come to a folder inside a closed one: an empty folder takes that one's place, in
    this process's view of the disk alone, and has nothing in it but the way to the other."""
    parts = folder.split(os.sep)
    ways = [os.sep.join(parts[: i + 1]) for i in range(1, len(parts))]
    closed = [way for way in ways if not os.stat(way).st_mode & 0o001]
    if closed:
        call(libc.unshare, CLONE_NEWNS)
        call(libc.mount, None, b"/", None, MS_REC | MS_PRIVATE, None)
        held = os.open(folder, os.O_PATH)
        call(libc.mount, b"tmpfs", os.fsencode(closed[0]), b"tmpfs", 0, b"size=64k,mode=755")
        os.makedirs(folder)
        call(libc.mount, f"/proc/self/fd/{held}".encode(), os.fsencode(folder), None, MS_BIND, None)
        os.close(held)


def drop_root():
    """Root is exempt from the limit on processes: whoever is root becomes nobody."""
    if os.getuid() == 0:
        reachable(os.path.realpath(sys.base_prefix))
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
        call(libc.prctl, PR_SET_DUMPABLE, 1, 0, 0, 0)  # else /proc/self still belongs to root
    for path in (PYTHON, os.__file__):
        if not os.access(path, os.R_OK):
            raise OSError(f"the user nobody cannot read {path}; run as an ordinary user")


def separate(folder, size):
    """Namespaces of its own, and a disk that only `folder` of `size` bytes can be written on."""
    user, group = os.getuid(), os.getgid()
    flags = CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS
    call(libc.unshare, flags)
    write("/proc/self/setgroups", "deny")
    # Not root inside either, so that the next `exec` leaves no capabilities.
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
    guarded = MS_NOSUID | MS_NODEV
    call(libc.mount, b"tmpfs", b"/proc", b"tmpfs", guarded, b"size=4k,mode=555")
    options = f"size={size},mode=700".encode()
    call(libc.mount, b"tmpfs", os.fsencode(folder), b"tmpfs", guarded, options)
    os.chdir(folder)


def alone():
    """Go on as a child of the first process of the new namespace. With that one all others die."""
    for _ in range(2):
        child = os.fork()
        if child:
            while True:
                ended, status = os.wait()
                if ended == child:
                    os._exit(os.waitstatus_to_exitcode(status) & 0xFF)
        call(libc.prctl, PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def limit(settings):
    limits = {
        resource.RLIMIT_AS: settings["memory"],
        resource.RLIMIT_CPU: settings["seconds"],
        resource.RLIMIT_FSIZE: settings["file_size"],
        resource.RLIMIT_NOFILE: 64,
        resource.RLIMIT_CORE: 0,
    }
    if settings["namespaces"]:  # else all of the user's processes would count
        limits[resource.RLIMIT_NPROC] = settings["processes"]
    for kind, most in limits.items():
        resource.setrlimit(kind, (most, most))


def main():
    settings, program = json.loads(sys.argv[1]), sys.argv[2]
    try:
        drop_root()
        call(libc.prctl, PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if settings["namespaces"]:
            separate(settings["folder"], settings["file_size"])
            alone()
        call(libc.prctl, PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        limit(settings)
    except OSError as error:
        print(error, file=sys.stderr)
        os._exit(FAILED)
    words = [PYTHON, "-P", "-s", "-S", "-c", program, sys.argv[1]]
    os.execve(PYTHON, words, dict(os.environ))


if __name__ == "__main__":
    main()
