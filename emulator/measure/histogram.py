"""How long things took: a histogram that stays exact to three digits and merges without loss.

HdrHistogram keeps the counts (1 ns to 1 hour). Its buckets round, and its wire form forgets the largest
value, so the exact largest value is kept beside it. The clock is the caller's; nothing here knows the time.
"""

from __future__ import annotations

import base64
import struct
import zlib
from collections.abc import Mapping
from typing import Any, Final

from hdrh.codec import HdrCookieException, HdrLengthException
from hdrh.histogram import HdrHistogram

LARGEST_NS: Final = 3600 * 10**9
"""Longest time the buckets tell apart, in ns. Longer ones count as this long, but `max` stays exact."""

PERCENTILES: Final[Mapping[str, float]] = {"p50": 50.0, "p90": 90.0, "p99": 99.0, "p99_9": 99.9}
"""Names of the percentiles in a summary."""

_DIGITS = 3
_WIRE_HEAD = struct.Struct(">Q")
_LARGEST_WIRE = 2**64 - 1
_LONGEST_HDR = 1 << 17


class Histogram:
    """Counts of durations in ns. Recording costs about 1 microsecond; an empty one takes about 270 kB."""

    __slots__ = ("_counts", "_max")

    def __init__(self) -> None:
        self._counts: Any = HdrHistogram(1, LARGEST_NS, _DIGITS, b64_wrap=False)
        self._max = 0

    def __len__(self) -> int:
        """Number of durations recorded."""
        return int(self._counts.total_count)

    def __eq__(self, other: object) -> bool:
        """Same counts in every bucket and the same largest value."""
        if not isinstance(other, Histogram):
            return NotImplemented
        return self._max == other._max and bytes(self._counts.counts) == bytes(other._counts.counts)

    __hash__ = None  # type: ignore[assignment]  # it changes with every record

    def record(self, ns: int) -> None:
        """Count one duration. ValueError if it is negative, as when its ends were read from two clocks."""
        if not 0 <= ns <= _LARGEST_WIRE:
            raise ValueError(f"a duration of {ns} ns; it must be 0 or more, both ends read from one clock")
        self._counts.record_value(min(ns, LARGEST_NS))
        if ns > self._max:
            self._max = ns

    def merge(self, other: Histogram) -> None:
        """Add the counts of `other` to this one, as if its durations had been recorded here."""
        self._counts.add(other._counts)
        self._max = max(self._max, other._max)

    def hdr(self) -> str:
        """The counts as HdrHistogram's tools read them: its V2 payload, compressed, in base64."""
        return base64.b64encode(self._counts.encode()).decode()

    def encode(self) -> bytes:
        """The wire form: largest value (8 bytes, big-endian), then HdrHistogram's V2 payload, compressed."""
        return _WIRE_HEAD.pack(self._max) + bytes(self._counts.encode())

    @classmethod
    def decode(cls, wire: bytes) -> Histogram:
        """The histogram that `encode` wrote. ValueError if these are not its bytes."""
        try:
            (largest,) = _WIRE_HEAD.unpack_from(wire)
            counts = HdrHistogram.decode(wire[_WIRE_HEAD.size :], b64_wrap=False)
        except (struct.error, zlib.error, HdrCookieException, HdrLengthException, RuntimeError) as problem:
            raise ValueError(f"no encoded histogram: {problem}") from problem
        decoded = cls()
        decoded._counts.add(counts)
        decoded._max = largest
        return decoded

    def summary(self) -> dict[str, int | None]:
        """Count, percentiles and largest value, in ns: `count p50 p90 p99 p99_9 max`.

        Percentiles are at most 0.1 % above the value recorded and never above `max`, which is exact.
        With nothing recorded, all but `count` are None.
        """
        if not len(self):
            return {"count": 0, **dict.fromkeys(PERCENTILES), "max": None}
        values = self._counts.get_percentile_to_value_dict(list(PERCENTILES.values()))
        percentiles = {name: min(int(values[at]), self._max) for name, at in PERCENTILES.items()}
        return {"count": len(self), **percentiles, "max": self._max}

    @classmethod
    def from_hdr(cls, text: str, largest_ns: int) -> Histogram:
        """The histogram of which `hdr` wrote the counts. ValueError if these are none, or too many."""
        if len(text) > _LONGEST_HDR:
            raise ValueError("no encoded histogram: it is too long")
        try:
            wire = base64.b64decode(text, validate=True)
        except ValueError as problem:
            raise ValueError(f"no encoded histogram: {problem}") from None
        return cls.decode(_WIRE_HEAD.pack(largest_ns) + wire)

    def curve(self) -> list[tuple[float, int]]:
        """Percentiles: what is below, as a share, and the time, in ns. Never beyond 1 - 1/n of n times."""
        count = len(self)
        points, nines = [], 0.0
        while count and 10**nines <= count:
            below = 1 - 10**-nines
            points.append((below, min(int(self._counts.get_value_at_percentile(below * 100)), self._max)))
            nines += 0.125
        return points

    def powers_of_two(self) -> dict[int, int]:
        """Counts by bit length: key n is 2**(n-1) ns up to but not including 2**n ns, key 0 is 0 ns.

        Exact below `LARGEST_NS`, because no bucket of HdrHistogram straddles a power of two.
        """
        rows: dict[int, int] = {}
        for index, count in enumerate(self._counts.counts):
            if count:
                row = int(self._counts.get_value_from_index(index)).bit_length()
                rows[row] = rows.get(row, 0) + count
        return rows

    def picture(self, width: int = 52) -> str:
        """The histogram as bpftrace's `hist()` prints it, one power of two a line, bars of at most `width`.

        K, M, G, T are powers of 1,024. Empty rows appear only between others. Nothing recorded: empty.
        """
        rows = self.powers_of_two()
        if not rows:
            return ""
        tallest = max(rows.values())
        lines = []
        for row in range(min(rows), max(rows) + 1):
            count = rows.get(row, 0)
            bar = "@" * (count * width // tallest)
            lines.append(f"{_row_label(row):<16} {count:>8} |{bar:<{width}}|")
        return "\n".join(lines)


def _row_label(row: int) -> str:
    if row < 2:
        return f"[{row}]"
    return f"[{_power_of_two(row - 1)}, {_power_of_two(row)})"


def _power_of_two(exponent: int) -> str:
    thousands = min(exponent // 10, 4)
    return f"{1 << (exponent - 10 * thousands)}{'KMGT'[thousands - 1] if thousands else ''}"
