"""What the programs of a machine can call, found by the names in their code.

So a machine has what only some programs can tell apart where it has such programs: nobody else pays for it.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache, partial
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any

from emulator.kernel.filemap import generic_perform_write
from emulator.kernel.memory import handle_mm_fault
from emulator.kernel.mmap_lock import mmap_write_lock
from emulator.kernel.truncate import truncate_inode_partial_folio


@cache
def needs_fault_locks(programs: tuple[Any, ...]) -> bool:
    """Some of them may fault and some may change areas: only then can anybody tell that faults hold locks."""
    found = reached(programs)
    return {handle_mm_fault, mmap_write_lock} <= found


@cache
def needs_folio_locks(programs: tuple[Any, ...]) -> bool:
    """Some of them may write to a file past its mappings: only then can anybody tell that
    migration locks it."""
    return bool({generic_perform_write, truncate_inode_partial_folio} & reached(programs))


def reached(roots: tuple[Any, ...]) -> set[FunctionType]:
    """All functions that these can call, as far as code says by global names, closures and defaults.

    Functions in tuples and lists, partial ones and methods are looked into; attributes of objects are not.
    """
    found: set[FunctionType] = set()
    ahead = list(roots)
    while ahead:
        at = ahead.pop()
        if isinstance(at, FunctionType):
            if at not in found:
                found.add(at)
                ahead += _named_in(at)
        elif isinstance(at, (tuple, list)):
            ahead += at
        elif isinstance(at, partial):
            ahead += (at.func, *at.args, *at.keywords.values())
        elif isinstance(at, MethodType):
            ahead.append(at.__func__)
        elif callable(at) and isinstance(method := type(at).__call__, FunctionType):
            ahead.append(method)
    return found


def _named_in(function: FunctionType) -> Iterator[Any]:
    names = set(_names(function.__code__))
    for name in names:
        value = function.__globals__.get(name)
        if isinstance(value, ModuleType):
            yield from (getattr(value, other) for other in names if hasattr(value, other))
        else:
            yield value
    yield from function.__defaults__ or ()
    yield from (function.__kwdefaults__ or {}).values()
    for cell in function.__closure__ or ():
        yield cell.cell_contents


def _names(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)
