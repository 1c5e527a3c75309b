"""The data plane: one inbox for each actor, and connections to the inboxes of others made at first use.

An actor has exactly one thing to wait for, its inbox, so that waiting for an answer, an acknowledgement, an
interrupt and the driver are one blocking receive and nobody polls. Messages of one sender arrive in order.
Between nodes (tcp) every inbox has a CURVE key pair of its own, made for the run.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import zmq

# Past this many bytes of path the kernel refuses a Unix socket (sun_path, less the final NUL).
_LONGEST_IPC_PATH: Final = 107
# A last message to the driver may still be on its way when its socket closes.
_LINGER_MS: Final = 2_000
# No message comes near this; a longer one ends its connection.
_MOST_BYTES: Final = 64 << 20

Keys = tuple[bytes, bytes]
"""CURVE, public and secret; both empty where there is no network."""


class Endpoint(NamedTuple):
    """Where an inbox is: ZeroMQ address, CURVE public key (empty for ipc), and node (whose clock it has)."""

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
    context: zmq.Context[zmq.Socket[bytes]], endpoint: Endpoint, linger_ms: int, keys: Keys
) -> zmq.Socket[bytes]:
    """A new connection to an inbox, for the thread that calls, which shows the key of its own inbox."""
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
    """One actor's inbox and its connections to others, for one run."""

    def __init__(
        self, context: zmq.Context[zmq.Socket[bytes]], endpoint: Endpoint | None, host: str = ""
    ) -> None:
        """Bind to `endpoint`; if there is none, to a free tcp port of `host` with new CURVE keys."""
        self._context = context
        self._peers: dict[str, zmq.Socket[bytes]] = {}
        self.keys: Keys = (b"", b"")
        self.inbox = context.socket(zmq.PULL)
        # A bound here could make two actors wait for room at each other; what bounds the traffic is that
        # outboxes are confirmed and requests are acknowledged.
        self.inbox.set_hwm(0)
        self.inbox.linger = 0
        self.inbox.maxmsgsize = _MOST_BYTES
        if endpoint is not None:
            self.inbox.bind(endpoint.address)
            self.endpoint = endpoint
            return
        self.keys = zmq.curve_keypair()
        self.inbox.curve_server = True
        self.inbox.curve_publickey, self.inbox.curve_secretkey = self.keys
        if ":" in host:
            self.inbox.ipv6 = True
            host = f"[{host}]"
        port = self.inbox.bind_to_random_port(f"tcp://{host}")
        self.endpoint = Endpoint(f"tcp://{host}:{port}", self.keys[0], "")

    def connect(self, endpoint: Endpoint, linger_ms: int = 0) -> zmq.Socket[bytes]:
        """The connection to an inbox; made now if this is its first use."""
        peer = self._peers.get(endpoint.address)
        if peer is None:
            peer = self._peers[endpoint.address] = connected(self._context, endpoint, linger_ms, self.keys)
        return peer

    def connect_driver(self, endpoint: Endpoint) -> zmq.Socket[bytes]:
        """As `connect`, for the messages that must arrive although the run is over."""
        return self.connect(endpoint, _LINGER_MS)

    def close(self) -> None:
        """Close everything. ZeroMQ removes the file of an ipc inbox."""
        for peer in self._peers.values():
            peer.close()
        self._peers.clear()
        self.inbox.close()
