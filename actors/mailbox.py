"""The data plane: one inbox for each actor, and connections to the inboxes of others made at first use.

An actor has exactly one thing to wait for, its inbox, so that waiting for an answer, an acknowledgement, an
interrupt and the driver are one blocking receive and nobody polls. Messages of one sender arrive in order.
Between nodes (tcp) every inbox has a CURVE key pair of its own, made for the run.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NamedTuple, Protocol

import zmq

from actors.local_inbox import LocalInbox, LocalPeer

# Past this many bytes of path the kernel refuses a Unix socket (sun_path, less the final NUL).
_LONGEST_IPC_PATH: Final = 107
# A last message to the driver may still be on its way when its socket closes.
_LINGER_MS: Final = 2_000
# No message comes near this; a longer one ends its connection.
_MOST_BYTES: Final = 64 << 20
_POLLIN: Final = int(zmq.POLLIN)
_LOCAL: Final = "ipc://"

Keys = tuple[bytes, bytes]
"""CURVE, public and secret; both empty where there is no network."""


class Inbox(Protocol):
    """Where messages of others arrive: a ZeroMQ socket or a `LocalInbox`."""

    def recv(self) -> Any:
        """The next message, valid until the next call."""

    def poll(self, timeout: int | None = None) -> Any:
        """A message is there within so many ms."""

    def close(self) -> None: ...


class Peer(Protocol):
    """A connection to somebody's inbox."""

    def send(self, frame: bytes) -> Any: ...

    def close(self) -> None: ...


class Endpoint(NamedTuple):
    """Where an inbox is: ipc://PATH or a ZeroMQ address, CURVE public key (empty for ipc), node (whose
    clock it has)."""

    address: str
    key: bytes
    node: str


class Directory(NamedTuple):
    """Every inbox of one run."""

    driver: Endpoint
    memory: Endpoint
    cpus: tuple[Endpoint, ...]


def ipc_endpoint(directory: str, name: str) -> Endpoint:
    """The inbox called `name` in this machine's private directory. ValueError if the path gets too long."""
    path = f"{directory}/{name}"
    if len(path.encode()) > _LONGEST_IPC_PATH:
        raise ValueError(f"{path}: {len(path.encode())} bytes are too long for a Unix socket, at most 107")
    return Endpoint(f"ipc://{path}", b"", "")


def connected(
    context: zmq.Context[zmq.Socket[bytes]],
    endpoint: Endpoint,
    linger_ms: int,
    keys: Keys,
    inbox: LocalInbox | None = None,
    patience_ms: int | None = None,
) -> Peer:
    """A new connection to an inbox, for the thread that calls and whose `inbox` is its own; on a network it
    shows that one's keys."""
    if endpoint.address.startswith(_LOCAL):
        return LocalPeer(endpoint.address.removeprefix(_LOCAL), inbox, patience_ms)
    peer = context.socket(zmq.PUSH)
    peer.set_hwm(0)
    peer.linger = linger_ms
    if endpoint.key:
        peer.curve_serverkey = endpoint.key
        peer.curve_publickey, peer.curve_secretkey = keys
        peer.ipv6 = "[" in endpoint.address
    peer.connect(endpoint.address)
    return peer


class Mailbox:
    """One actor's inbox and its connections to others, for one run. `ready()`: a message is there."""

    inbox: Inbox
    ready: Callable[[], Any]

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        endpoint: Endpoint | None,
        host: str = "",
        patience_ms: int | None = None,
    ) -> None:
        """Bind to `endpoint`; if there is none, to a free tcp port of `host` with new CURVE keys.

        `patience_ms`: who has no room for a message for so long does not get it (on one machine).
        """
        self._context = context
        self._peers: dict[str, Peer] = {}
        self._patience_ms = patience_ms
        self._local: LocalInbox | None = None
        self.keys: Keys = (b"", b"")
        if endpoint is not None:
            self.inbox = local = self._local = LocalInbox(endpoint.address.removeprefix(_LOCAL))
            self.ready = lambda: local.poll(0)
            self.endpoint = endpoint
            return
        self.inbox = inbox = context.socket(zmq.PULL)
        # In a third of the time of its `poll`.
        self.ready = lambda: int(inbox.getsockopt(zmq.EVENTS)) & _POLLIN
        # A bound here could make two actors wait for room at each other; what bounds the traffic is that
        # outboxes are confirmed and requests are acknowledged.
        inbox.set_hwm(0)
        inbox.linger = 0
        inbox.maxmsgsize = _MOST_BYTES
        self.keys = zmq.curve_keypair()
        inbox.curve_server = True
        inbox.curve_publickey, inbox.curve_secretkey = self.keys
        if ":" in host:
            inbox.ipv6 = True
            host = f"[{host}]"
        port = inbox.bind_to_random_port(f"tcp://{host}")
        self.endpoint = Endpoint(f"tcp://{host}:{port}", self.keys[0], "")

    def connect(self, endpoint: Endpoint, linger_ms: int = 0) -> Peer:
        """The connection to an inbox; made now if this is its first use."""
        peer = self._peers.get(endpoint.address)
        if peer is None:
            peer = self._peers[endpoint.address] = connected(
                self._context, endpoint, linger_ms, self.keys, self._local, self._patience_ms
            )
        return peer

    def connect_driver(self, endpoint: Endpoint) -> Peer:
        """As `connect`, for the messages that must arrive although the run is over."""
        return self.connect(endpoint, _LINGER_MS)

    def close(self) -> None:
        """Close everything. The file of an ipc inbox goes."""
        for peer in self._peers.values():
            peer.close()
        self._peers.clear()
        self.inbox.close()
