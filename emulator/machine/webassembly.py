"""Compiled code that is shipped as WebAssembly: a module is loaded once a process and instantiated at will.

`call` checks what it is given and takes 15 us; `quick` is for inner loops: what it makes takes 0.4 us, its
numbers lie in memory. Views of an instance's memory stay good: the runtime reserves all there may ever be.
"""

from __future__ import annotations

import atexit
import ctypes
from collections.abc import Callable
from functools import cache, partial
from importlib.resources import files
from typing import Any, Final
from weakref import WeakSet

_WORD: Final = 8
_SLOT_WORDS: Final = 2  # of a number that is handed over; a vector would need the second
_MOST_WORDS: Final = (1 << 32) // _WORD


@cache
def _runtime() -> tuple[Any, Any, Any]:
    # Imported where it is needed: most commands are over before that.
    import wasmtime
    from wasmtime import _ffi as ffi

    # wasmtime.Func converts and checks every number, which takes longer than what is called.
    prototype = ctypes.PYFUNCTYPE(*[ctypes.c_void_p] * 4, ctypes.c_size_t, ctypes.c_void_p)
    try:
        invoke = ctypes.cast(ffi.dll.wasmtime_func_call_unchecked, prototype)
    except AttributeError as missing:
        raise ImportError(f"this wasmtime has no unchecked calls: {missing}") from None
    return wasmtime, wasmtime.Engine(), invoke


@cache
def _module(package: str, name: str) -> Any:
    wasmtime, engine, _ = _runtime()
    return wasmtime.Module(engine, files(package).joinpath(name).read_bytes())


_open: WeakSet[Compiled] = WeakSet()


@atexit.register
def _give_back() -> None:
    """Before the interpreter takes its modules apart: nothing could be given back after that."""
    for one in list(_open):
        one.close()
    _module.cache_clear()
    if _runtime.cache_info().currsize:
        _runtime()[1].close()


class Compiled:
    """One instance of the module `name` of a package. ImportError where there is no `wasmtime`."""

    def __init__(self, package: str, name: str) -> None:
        wasmtime, engine, self._invoke = _runtime()
        self._store = wasmtime.Store(engine)
        self._exports = wasmtime.Instance(self._store, _module(package, name), []).exports(self._store)
        self._context = ctypes.cast(self._store._context(), ctypes.c_void_p)
        trap = ctypes.c_void_p()
        self._trap = ctypes.c_void_p(ctypes.addressof(trap))
        self._kept: list[Any] = [trap]  # what the compiled side has addresses of
        self._base = self._address()
        self.trap = memoryview(trap).cast("B").cast("Q")
        """One word, not 0 once a quick call has gone wrong."""
        self.words = memoryview((ctypes.c_uint64 * _MOST_WORDS).from_address(self._base)).cast("B").cast("Q")
        """Its memory by words of 8 bytes; beyond what it has taken nobody may look."""
        _open.add(self)

    def close(self) -> None:
        """Nobody uses it any more, nor its memory."""
        self._store.close()

    def _address(self) -> int:
        return ctypes.addressof(self._exports["memory"].data_ptr(self._store).contents)

    def call(self, name: str, *numbers: int) -> int:
        """An exported function; the only way to call one that may take memory."""
        answer: int = self._exports[name](self._store, *numbers)
        if self._address() != self._base:
            raise RuntimeError("the runtime has moved the memory of a WebAssembly instance")
        return answer

    def quick(self, name: str, *numbers: int) -> tuple[memoryview, Callable[[], Any]]:
        """A function of as many whole numbers, which begin as these: where they are, and what calls it.

        Number n is word 2 * n; the answer takes the place of the first.
        """
        function = self._exports[name]._func
        slots = (ctypes.c_uint64 * (_SLOT_WORDS * max(1, len(numbers))))()
        self._kept += [function, slots]
        at = [ctypes.c_void_p(ctypes.addressof(one)) for one in (function, slots)]
        room = ctypes.c_size_t(max(1, len(numbers)))
        words = memoryview(slots).cast("B").cast("Q")
        for place, number in enumerate(numbers):
            words[_SLOT_WORDS * place] = number
        return words, partial(self._invoke, self._context, *at, room, self._trap)
