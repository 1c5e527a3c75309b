"""A generator that starts as `random.Random(text)` does, and draws whole chunks of accesses.

One instance of the compiled side serves all of a process: a generator takes its state there and back.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable
from functools import cache
from hashlib import sha512
from struct import Struct
from typing import Any, Final, NamedTuple

MOST_AT_ONCE: Final = 4096
"""Accesses of a chunk."""

_STATE: Final = 4 * 625
_WORD: Final = 8
_THREADS: Final = Struct("<8Q3d")
_LOOKUPS: Final = Struct("<5Q")


class Hot(NamedTuple):
    """Accesses to a table and a heap: where they begin, their pages, and those of the hot window in each."""

    table_base: int
    table: int
    table_hot: int
    heap_base: int
    heap: int
    heap_hot: int
    heap_share: float
    hot_share: float
    write_share: float


class Even(NamedTuple):
    """Lookups, each of `reads` pages of a grid, and of one of the index, which comes after it."""

    base: int
    grid_pages: int
    index_pages: int
    reads: int


class _Side:
    """The compiled side."""

    def __init__(self) -> None:
        # Imported where it is needed: most commands draw nothing.
        from emulator.machine.webassembly import Compiled

        self.compiled = compiled = Compiled(__package__, "draws.wasm")
        self.bytes = compiled.words.cast("B")
        self.key, self.kept, self.threads, self.lookups, self.drawn = (
            compiled.call(f"{name}_at") for name in ("key", "kept", "threads", "lookups", "drawn")
        )
        self.words, self.begin = compiled.quick("begin", 0)
        _, self.draw_threads = compiled.quick("draw_threads")
        _, self.draw_lookups = compiled.quick("draw_lookups")


@cache
def _side() -> _Side | None:
    try:
        return _Side()
    except ImportError:
        return None


def draws_of(text: str) -> Draws | None:
    """A generator; None where there is no `wasmtime`."""
    side = _side()
    return Draws(text, side) if side is not None else None


class Draws:
    """One generator, of which the compiled side knows nothing between two chunks."""

    __slots__ = ("_kept", "_side")

    def __init__(self, text: str, side: _Side) -> None:
        self._side = side
        # random.seed, version 2.
        encoded = text.encode()
        number = int.from_bytes(encoded + sha512(encoded).digest())
        words = -(-number.bit_length() // 32)
        side.bytes[side.key : side.key + 4 * words] = number.to_bytes(4 * words, "little")
        side.words[0] = words
        side.begin()
        self._keep()

    def hot(self, of: Hot, window: int, count: int) -> array[int]:
        """`count` accesses, of which those that hit a window begin `window` pages into a region."""
        table_base, table, table_hot, *rest = of
        side = self._side
        _THREADS.pack_into(side.bytes, side.threads, count, window, table_base, table, table_hot, *rest)
        return self._drawn(side.draw_threads, count)

    def even(self, of: Even, count: int) -> array[int]:
        """The accesses of `count` lookups."""
        side = self._side
        _LOOKUPS.pack_into(side.bytes, side.lookups, count, *of)
        return self._drawn(side.draw_lookups, count * (of.reads + 1))

    def _drawn(self, draw: Callable[[], Any], count: int) -> array[int]:
        side = self._side
        if count > MOST_AT_ONCE:
            raise ValueError(f"{count} accesses at once; at most {MOST_AT_ONCE}")
        side.bytes[side.kept : side.kept + _STATE] = self._kept
        draw()
        self._keep()
        accesses = array("Q")
        accesses.frombytes(side.bytes[side.drawn : side.drawn + _WORD * count])
        return accesses

    def _keep(self) -> None:
        side = self._side
        self._kept = bytes(side.bytes[side.kept : side.kept + _STATE])
