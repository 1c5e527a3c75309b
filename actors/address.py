"""A Ray cluster, as a person names it: its address, and how simulated CPUs lie on its nodes."""

from __future__ import annotations

from typing import Final, Literal

Placement = Literal["spread", "pack", "sockets"]
PLACEMENTS: Final[tuple[Placement, ...]] = ("spread", "pack", "sockets")


def split_address(text: str) -> tuple[str, int]:
    """Host and port of `HOST:PORT`. ValueError, in words, for anything else."""
    host, colon, port = text.rpartition(":")
    if not colon or not host or not port.isdecimal() or not 0 < int(port) < 65536 or "/" in host:
        raise ValueError(f"cluster address {text!r}: it must be HOST:PORT, as in 10.0.0.1:6379")
    return host.strip("[]"), int(port)
