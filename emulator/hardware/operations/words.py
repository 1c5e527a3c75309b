"""Operations on named words, locks and lock-less lists."""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from emulator.hardware.operations import Operation


class Load(NamedTuple):
    """READ_ONCE: the word's value."""

    word: str

    def __await__(self) -> Generator[Operation, int, int]:
        return (yield self)


class Store(NamedTuple):
    """WRITE_ONCE."""

    word: str
    value: int

    def __await__(self) -> Generator[Operation, None, None]:
        yield self


class AtomicAdd(NamedTuple):
    """atomic_add_return: the new value."""

    word: str
    delta: int

    def __await__(self) -> Generator[Operation, int, int]:
        return (yield self)


class AtomicOr(NamedTuple):
    """atomic_fetch_or (set_bit): the old value."""

    word: str
    mask: int

    def __await__(self) -> Generator[Operation, int, int]:
        return (yield self)


class AtomicAnd(NamedTuple):
    """atomic_fetch_and (clear_bit): the old value."""

    word: str
    mask: int

    def __await__(self) -> Generator[Operation, int, int]:
        return (yield self)


class AtomicXchg(NamedTuple):
    """xchg: the old value."""

    word: str
    value: int

    def __await__(self) -> Generator[Operation, int, int]:
        return (yield self)


class AtomicCmpxchg(NamedTuple):
    """cmpxchg: the value seen; it was replaced if that equals `old`."""

    word: str
    old: int
    new: int

    def __await__(self) -> Generator[Operation, int, int]:
        return (yield self)


class WaitFor(NamedTuple):
    """Not enabled until the word has `value` (wait_event); interruptible."""

    word: str
    value: int

    def __await__(self) -> Generator[Operation, int, int]:
        return (yield self)


class WaitChange(NamedTuple):
    """Not enabled while the word has `value`; answers the new value."""

    word: str
    value: int

    def __await__(self) -> Generator[Operation, int, int]:
        return (yield self)


class Lock(NamedTuple):
    """spin_lock or mutex_lock: not enabled while another context holds it."""

    name: str

    def __await__(self) -> Generator[Operation, None, None]:
        yield self


class Trylock(NamedTuple):
    """spin_trylock."""

    name: str

    def __await__(self) -> Generator[Operation, bool, bool]:
        return (yield self)


class Unlock(NamedTuple):
    """spin_unlock: a store with release semantics."""

    name: str

    def __await__(self) -> Generator[Operation, None, None]:
        yield self


class LlistAdd(NamedTuple):
    """llist_add: whether the list was empty before."""

    name: str
    node: tuple[Any, ...]

    def __await__(self) -> Generator[Operation, bool, bool]:
        return (yield self)


class LlistDelAll(NamedTuple):
    """llist_del_all: all nodes, newest first."""

    name: str

    def __await__(self) -> Generator[Operation, tuple[tuple[Any, ...], ...], tuple[tuple[Any, ...], ...]]:
        return (yield self)


class LlistEmpty(NamedTuple):
    """llist_empty."""

    name: str

    def __await__(self) -> Generator[Operation, bool, bool]:
        return (yield self)
