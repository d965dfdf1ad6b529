"""Nothing leaves the machine: an audit hook that refuses connections of this process to anywhere else, and says so.

It sees what Python does. What a compiled library does by itself it does not see; none of ours opens a connection.
"""

import ipaddress
import logging
import socket
import sys
from collections.abc import Iterable
from typing import Any

_LOG = logging.getLogger(__name__)
_NAMES = {"localhost", "ip6-localhost", ""}


class OutboundRefused(PermissionError):
    """Something tried to reach another machine."""


def refuse_outbound(allowed: Iterable[str] = ()) -> None:
    """From now on, for as long as the process lives, connect to this machine only, and to `allowed` hosts."""
    hosts = frozenset(allowed)
    hosts |= {str(found[4][0]) for host in hosts if host for found in socket.getaddrinfo(host, None)}

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event in ("socket.connect", "socket.sendto", "socket.sendmsg"):
            _check_address(arguments[0], arguments[1], hosts)
        elif event in ("socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr"):
            _check_host(arguments[0], hosts)
        elif event == "socket.getnameinfo":
            _check_host(arguments[0][0], hosts)

    sys.addaudithook(hook)


def _check_address(sock: Any, address: Any, allowed: frozenset[str]) -> None:
    if sock.family in (socket.AF_INET, socket.AF_INET6) and isinstance(address, tuple):
        _check_host(address[0], allowed)


def _check_host(host: Any, allowed: frozenset[str]) -> None:
    name = host.decode("ascii", "replace") if isinstance(host, bytes | bytearray) else host
    if name is None or name in _NAMES or name in allowed or _is_here(str(name)):
        return
    _LOG.error("refused a connection to %s: nothing leaves this machine", name)
    raise OutboundRefused(f"a connection to {name} was refused: clearseek serve reaches no other machine")


def _is_here(name: str) -> bool:
    try:
        address = ipaddress.ip_address(name.partition("%")[0])
    except ValueError:
        return False
    return address.is_loopback or address.is_unspecified  # the latter is what one listens on
