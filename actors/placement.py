"""Which node of a cluster each actor is on, and how far away nodes are: latencies there are the network's."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Iterable, Sequence
from typing import Any, Final

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from actors.address import Placement
from actors.mailbox import Endpoint
from actors.ray_calls import asked

_TRIES: Final = 3
_REACH_S: Final = 5.0


def nodes() -> list[str]:
    """The nodes that are alive, this process's first, then by address."""
    here = ray.get_runtime_context().get_node_id()
    alive = [one for one in asked(ray.nodes) if one["Alive"]]
    alive.sort(key=lambda one: (one["NodeID"] != here, one["NodeManagerAddress"]))
    return [one["NodeID"] for one in alive]


def places(nodes: Sequence[str], cpus: int, how: Placement) -> list[str]:
    """The node of the memory actor, then that of each CPU.

    spread: CPUs go round, so that neighbours are apart; sockets: a node has consecutive CPUs, as a socket
    has; pack: all are on the driver's. Memory is on the driver's in any case.
    """
    match how:
        case "spread":
            numbers = [cpu % len(nodes) for cpu in range(cpus)]
        case "sockets":
            numbers = [cpu * len(nodes) // cpus for cpu in range(cpus)]
        case "pack":
            numbers = [0] * cpus
    return [nodes[number] for number in (0, *numbers)]


def on(node: str) -> dict[str, Any]:
    """Ray's options for an actor there and nowhere else."""
    return {"scheduling_strategy": NodeAffinitySchedulingStrategy(node, soft=False)}


def round_trips(inboxes: Iterable[Endpoint]) -> dict[str, int]:
    """Of each address that inboxes have, the ns that a TCP connection takes: one round trip of the network
    and of no actor, the shortest of three. An address that cannot be reached is left out."""
    found: dict[str, int] = {}
    ports: dict[str, int] = {}
    for inbox in inboxes:
        host, _, port = inbox.address.removeprefix("tcp://").rpartition(":")
        ports.setdefault(host.strip("[]"), int(port))
    for host, number in ports.items():
        for _ in range(_TRIES):
            began = time.monotonic_ns()
            with contextlib.suppress(OSError):
                socket.create_connection((host, number), _REACH_S).close()
                took = time.monotonic_ns() - began
                found[host] = min(took, found.get(host, took))
    return found
