"""Python imports this at its start where the folder is on its path: it refuses connections and notes each attempt.

It uses the standard library alone, and no part of clearseek: what watches is not what is watched. Each process adds
lines to the file that CLEARSEEK_WATCH names: attempts when they are made, modules at its end.
"""

import atexit
import ipaddress
import json
import os
import sys

_NAMES = ("localhost", "ip6-localhost", "", None)


def _note(**facts: object) -> None:
    line = json.dumps({"pid": os.getpid(), "command": sys.argv[:3], **facts}) + "\n"
    descriptor = os.open(os.environ["CLEARSEEK_WATCH"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(descriptor, line.encode())
    finally:
        os.close(descriptor)


def _is_here(host: object) -> bool:
    name = host.decode("ascii", "replace") if isinstance(host, (bytes, bytearray)) else host
    if name in _NAMES:
        return True
    try:
        address = ipaddress.ip_address(str(name).partition("%")[0])
    except ValueError:
        return False
    address = getattr(address, "ipv4_mapped", None) or address
    return address.is_loopback or address.is_unspecified


def _hook(event: str, arguments: tuple) -> None:
    if event in ("socket.connect", "socket.sendto", "socket.sendmsg"):
        address = arguments[1]
        host = address[0] if isinstance(address, tuple) else None  # others never leave: they are paths
    elif event in ("socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr"):
        host = arguments[0]
    elif event == "socket.getnameinfo":
        host = arguments[0][0]
    else:
        return
    if not _is_here(host):
        _note(attempt=event, to=str(host))
        raise PermissionError(f"refused while privacy is tested: {event} to {host}")


if "CLEARSEEK_WATCH" in os.environ:
    sys.addaudithook(_hook)
    atexit.register(lambda: _note(modules=sorted({".".join(name.split(".")[:2]) for name in sys.modules})))
