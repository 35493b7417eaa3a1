"""Refuses every way out of this machine: imported by conftest.py, and by each Python that the tests start.

Python imports a module of this name by itself where its folder is on PYTHONPATH. An audit hook sees every socket of
the interpreter, however it was made, and cannot be taken off by a library.
"""

from __future__ import annotations

import os
import socket
import sys

RECORD = "CYBORGS_TEST_NETWORK"
"""Environment variable: a file that gets a line for each attempt, so that one that was caught is not forgotten."""

LOCAL = frozenset({"", "localhost", "::1", "::", "0.0.0.0", socket.gethostname()})
EVENTS = {
    "socket.connect": 1,
    "socket.sendto": 1,
    "socket.sendmsg": 1,
    "socket.getaddrinfo": 0,
    "socket.gethostbyname": 0,
    "socket.gethostbyaddr": 0,
}
"""Audit events, and which of their arguments is the address."""


class NetworkRefused(BaseException):
    """A test tried to leave the machine. No Exception: retries and fallbacks must not hide it."""


def is_local(address: object) -> bool:
    """Whether a socket's address stays on this machine: loopback, a path (AF_UNIX), numbers (AF_NETLINK), none."""
    host = address[0] if isinstance(address, tuple) and address else address
    if isinstance(address, tuple) and isinstance(host, str):
        return host in LOCAL or host.startswith("127.") or host.lower().startswith("::ffff:127.")
    return True


def _watch(event: str, arguments: tuple[object, ...]) -> None:
    if event not in EVENTS:
        return
    address = arguments[EVENTS[event]]
    if EVENTS[event] == 0:  # a name to be looked up
        address = (address.decode() if isinstance(address, bytes) else address or "",)
    if not is_local(address):
        record = os.environ.get(RECORD)
        if record:
            with open(record, "a", encoding="utf-8") as file:
                file.write(f"{event} {address}\n")
        raise NetworkRefused(f"{event} {address}: tests use no network but loopback")


sys.addaudithook(_watch)
