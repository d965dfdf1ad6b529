"""A space with no network but the loopback: a network namespace of Linux, made without privileges where that is let."""

import errno
import fcntl
import shutil
import socket
import struct
import subprocess
from pathlib import Path

ENTER = ("unshare", "--map-root-user", "--net", "--")
_SET_FLAGS, _UP = 0x8914, 0x1  # SIOCSIFFLAGS, IFF_UP
_ELSEWHERE = ("192.0.2.1", 443)  # TEST-NET-1 (RFC 5737): nobody's
_SECONDS = 20


def can_enter() -> bool:
    """Whether this machine lets us make one."""
    if shutil.which(ENTER[0]) is None:
        return False
    tried = subprocess.run([*ENTER, "true"], capture_output=True, timeout=_SECONDS, check=False)
    return tried.returncode == 0


def raise_loopback() -> None:
    """In a new space even the loopback is down."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        fcntl.ioctl(sock, _SET_FLAGS, struct.pack("16sh14x", b"lo", _UP))


def interfaces() -> list[str]:
    """The network interfaces that are here."""
    rows = Path("/proc/net/dev").read_text().splitlines()[2:]
    return sorted(row.partition(":")[0].strip() for row in rows)


def reaches_elsewhere() -> bool:
    """Whether a packet to another machine finds a way out."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            sock.connect(_ELSEWHERE)
        except OSError as error:
            return error.errno != errno.ENETUNREACH
    return True
