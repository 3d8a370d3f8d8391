"""Becomes a server: gives up root if asked, ties its life to its owner's, then execs the command.

Knows process attributes only. Run as a script with the standard library alone (`python -I -S launch.py OWNER SIGNAL
UID GID COMMAND...`; UID and GID are `-` to stay who we are), so that the owner, which has threads, need not run Python
between fork and exec.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main(owner: int, death_signal: int, uid: str, gid: str, command: list[str]) -> None:
    """Never returns. Exits 1 when the owner died before the signal was armed."""
    if uid != "-":
        os.setgroups([])
        os.setgid(int(gid))
        os.setuid(int(uid))
    # Python's own handler would only note a signal, and exec would forget it; the caller may even have ignored it.
    for stop in (signal.SIGINT, signal.SIGTERM):
        signal.signal(stop, signal.SIG_DFL)
    # After setuid, which clears it. It follows the owner's *thread* that forked us.
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, death_signal)
    if os.getppid() != owner:
        os._exit(1)
    os.execv(command[0], command)  # noqa: S606  no shell is wanted: this becomes the server


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4], sys.argv[5:])
