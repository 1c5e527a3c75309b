"""Who may connect to an inbox on the network: the inboxes of the same run, by their CURVE keys.

Keys that travel are public ones: whoever reads them can neither connect nor listen. That all actors run the
same code is asked at the same time.
"""

from __future__ import annotations

import hashlib
import platform
from functools import lru_cache
from pathlib import Path

import zmq
from zmq.auth.thread import ThreadAuthenticator

from actors.mailbox import Directory

_ROOT = Path(__file__).resolve().parents[1]
_PACKAGES = ("emulator", "actors", "scenarios")


class Admission:
    """Asked by ZeroMQ at every handshake of a context's sockets (RFC 27). `refused` counts strangers."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]]) -> None:
        self.refused = 0
        self._keys: frozenset[bytes] = frozenset()
        self._authenticator = ThreadAuthenticator(context)
        self._authenticator.start()
        self._authenticator.configure_curve_callback("*", credentials_provider=self)

    def admit(self, directory: Directory) -> None:
        """From now on these inboxes, and no others."""
        self._keys = frozenset(one.key for one in (directory.driver, directory.memory, *directory.cpus))

    def callback(self, domain: str, key: bytes) -> bool:
        """ZAP's question."""
        admitted = key in self._keys
        self.refused += not admitted
        return admitted

    def stop(self) -> None:
        """Before the context ends."""
        self._authenticator.stop()


@lru_cache(maxsize=1)
def version() -> str:
    """What an actor has to have in common with the driver: Python, and every line of the project."""
    found = hashlib.blake2b(digest_size=6)
    for package in _PACKAGES:
        for path in sorted((_ROOT / package).rglob("*.py")):
            found.update(str(path.relative_to(_ROOT)).encode() + b"\0" + path.read_bytes() + b"\0")
    return f"source {found.hexdigest()} on Python {platform.python_version()}"
