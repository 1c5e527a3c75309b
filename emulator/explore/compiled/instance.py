"""One WebAssembly instance of the compiled side: its functions, and words of its memory.

What goes to and fro is words in memory, as a call with numbers takes Python three times as long.
"""

from __future__ import annotations

import atexit
import ctypes
from array import array
from functools import cache
from importlib.resources import files
from typing import Any


@cache
def _module() -> Any:
    # Imported where it is needed: a short search is over before that.
    import wasmtime

    # Before the interpreter takes its modules apart: it could not be given back after that.
    atexit.register(_module.cache_clear)
    engine = wasmtime.Engine()
    code = files(__package__).joinpath("walker.wasm").read_bytes()
    return wasmtime, engine, wasmtime.Module(engine, code)


class Instance:
    """A new one, with these functions. ImportError where there is no `wasmtime`."""

    def __init__(self, *functions: str) -> None:
        wasmtime, engine, module = _module()
        self._store = wasmtime.Store(engine)
        exports = wasmtime.Instance(self._store, module, []).exports(self._store)
        self._memory: Any = exports["memory"]
        self._calls = {name: exports[name] for name in functions}
        self._room = self._in = 0

    def _call(self, name: str, *numbers: float) -> int:
        answer: int = self._calls[name](self._store, *numbers)
        return answer

    def _words(self, at: int, count: int) -> Any:
        """Words of the compiled side's memory, until its next call."""
        base = ctypes.addressof(self._memory.data_ptr(self._store).contents)
        return (ctypes.c_uint32 * count).from_address(base + at)

    def _hand_over(self, words: array[int]) -> int:
        """Put words where the compiled side reads them; their number."""
        count = len(words)
        if count > self._room:
            self._room = max(1 << 14, 2 * count)
            self._in = self._call("room", self._room)
        ctypes.memmove(self._words(self._in, count), words.buffer_info()[0], 4 * count)
        return count
