"""Becomes a server: run as ``python -I -S _launch.py '<json>'``, it prepares the process, then execs.

What happens here must happen in the new process, before the server's first instruction, and keeps the
pid: the record of the pid is on disk before there is a server to lose sight of; privileges are dropped;
the kernel is asked to end the server together with its parent. A program of its own instead of a
``preexec_fn``, because code between fork and exec may deadlock when the parent has threads.

Imports nothing of the package: it also starts where the package's folder is not on the path.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
from typing import Any

# linux/prctl.h and linux/capability.h
_PR_SET_PDEATHSIG = 1
_PR_SET_KEEPCAPS = 8
_PR_CAP_AMBIENT = 47
_PR_CAP_AMBIENT_RAISE = 2
_CAP_DAC_OVERRIDE = 1
_CAPABILITY_VERSION_3 = 0x20080522

_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int, what: str) -> None:
    if result != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}")


def _prctl(option: int, *arguments: int) -> None:
    padded = [ctypes.c_ulong(value) for value in (*arguments, 0, 0, 0, 0)[:4]]
    _check(_libc.prctl(ctypes.c_int(option), *padded), f"prctl({option})")


def _set_capabilities(mask: int) -> None:
    """Make ``mask`` the effective, permitted and inheritable capabilities of this process."""
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    data = (ctypes.c_uint32 * 6)(mask, mask, mask, 0, 0, 0)
    _check(_libc.capset(header, data), "capset")


def _become(uid: int, gid: int, needs: list[str]) -> None:
    """Drop root for ``uid``; keep the right to pass closed folders only if ``needs`` lie behind one.

    Postgres refuses to run as root, and root's checkouts lie in folders that nobody else may enter
    (/root). Opening those folders to everybody would be worse than one capability for one server.
    """
    _prctl(_PR_SET_KEEPCAPS, 1)
    os.setgroups([])
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)
    closed = [path for path in needs if not os.access(path, os.X_OK)]
    if not closed:
        _set_capabilities(0)
        return
    try:
        _set_capabilities(1 << _CAP_DAC_OVERRIDE)
        _prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE, _CAP_DAC_OVERRIDE)
    except OSError as error:
        raise OSError(
            f"uid {uid} cannot reach {', '.join(closed)} and the capability dac_override is not to be had "
            f"({error}); use folders that this user can enter"
        ) from error


def _write_record(path: str, record: dict[str, Any]) -> None:
    with open("/proc/self/stat", encoding="utf-8") as stat:
        start = int(stat.read().rpartition(")")[2].split()[19])
    with open("/proc/sys/kernel/random/boot_id", encoding="utf-8") as boot:
        boot_id = boot.read().strip()
    temporary = f"{path}.{os.getpid()}"
    with open(temporary, "w", encoding="utf-8") as file:
        json.dump({**record, "pid": os.getpid(), "start_ticks": start, "boot_id": boot_id}, file)
    os.replace(temporary, path)


def main(order: dict[str, Any]) -> None:
    """Prepare this process as ``order`` says and replace it by the server."""
    for ignored_by_python in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(ignored_by_python, signal.SIG_DFL)
    os.umask(0o077)
    if order["record_path"]:
        _write_record(order["record_path"], order["record"])
    if order["uid"] is not None:
        _become(order["uid"], order["gid"], order["needs"])
    os.chdir(order["cwd"])
    if order["parent"] is not None:
        # After the change of user, which clears it. A parent that died before this line sends nothing.
        _prctl(_PR_SET_PDEATHSIG, order["death_signal"])
        if os.getppid() != order["parent"]:
            raise OSError("the process that started this server has ended")
    os.execv(order["argv"][0], order["argv"])  # noqa: S606 - no shell is wanted


if __name__ == "__main__":
    try:
        main(json.loads(sys.argv[1]))
    except OSError as error:
        sys.stderr.write(f"cannot start the server: {error}\n")
        sys.exit(127)
