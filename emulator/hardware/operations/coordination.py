"""Operations on named words, locks and lock-less lists."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, NamedTuple

from emulator.hardware.operations.places import llist, lock, reads, word, writes
from emulator.hardware.operations.table import Answer, Operation, Order, Price, Row, Where


@Row(Where.MEMORY, Order.LOAD, reads(word), Price.LINE, Answer.VALUE, carries=(word,), location=word)
class Load(NamedTuple):
    """READ_ONCE: the word's value."""

    word: str

    def __await__(self) -> Generator[Operation, int, int]:
        return (yield self)


@Row(Where.MEMORY, Order.STORE, writes(word), Price.LINE, carries=(word,), location=word)
class Store(NamedTuple):
    """WRITE_ONCE."""

    word: str
    value: int

    def __await__(self) -> Generator[Operation, None, None]:
        yield self


@Row(Where.MEMORY, Order.LOCKED, writes(word), Price.LINE, Answer.VALUE, carries=(word,))
class AtomicAdd(NamedTuple):
    """atomic_add_return: the new value."""

    word: str
    delta: int

    def __await__(self) -> Generator[Operation, int, int]:
        return (yield self)


@Row(Where.MEMORY, Order.LOCKED, writes(word), Price.LINE, Answer.VALUE, carries=(word,))
class AtomicOr(NamedTuple):
    """atomic_fetch_or (set_bit): the old value."""

    word: str
    mask: int

    def __await__(self) -> Generator[Operation, int, int]:
        return (yield self)


@Row(Where.MEMORY, Order.LOCKED, writes(word), Price.LINE, Answer.VALUE, carries=(word,))
class AtomicAnd(NamedTuple):
    """atomic_fetch_and (clear_bit): the old value."""

    word: str
    mask: int

    def __await__(self) -> Generator[Operation, int, int]:
        return (yield self)


@Row(Where.MEMORY, Order.LOCKED, writes(word), Price.LINE, Answer.VALUE, carries=(word,))
class AtomicXchg(NamedTuple):
    """xchg: the old value."""

    word: str
    value: int

    def __await__(self) -> Generator[Operation, int, int]:
        return (yield self)


@Row(Where.MEMORY, Order.LOCKED, writes(word), Price.LINE, Answer.VALUE, carries=(word,))
class AtomicCmpxchg(NamedTuple):
    """cmpxchg: the value seen; it was replaced if that equals `old`."""

    word: str
    old: int
    new: int

    def __await__(self) -> Generator[Operation, int, int]:
        return (yield self)


@Row(Where.MEMORY, Order.LOAD, reads(word), Price.LINE, Answer.VALUE, carries=(word,), waits=word)
class WaitFor(NamedTuple):
    """Not enabled until the word has `value` (wait_event); interruptible."""

    word: str
    value: int

    def __await__(self) -> Generator[Operation, int, int]:
        return (yield self)


@Row(Where.MEMORY, Order.LOCKED, writes(lock), Price.LINE, carries=(lock,), waits=lock)
class Lock(NamedTuple):
    """spin_lock or mutex_lock: not enabled while another context holds it."""

    name: str

    def __await__(self) -> Generator[Operation, None, None]:
        yield self


@Row(Where.MEMORY, Order.STORE, writes(lock), Price.LINE, carries=(lock,), release=True)
class Unlock(NamedTuple):
    """spin_unlock: a store with release semantics."""

    name: str

    def __await__(self) -> Generator[Operation, None, None]:
        yield self


@Row(Where.MEMORY, Order.LOCKED, writes(llist), Price.LINE, Answer.VALUE, carries=(llist,))
class LlistAdd(NamedTuple):
    """llist_add: whether the list was empty before."""

    name: str
    node: tuple[Any, ...]

    def __await__(self) -> Generator[Operation, bool, bool]:
        return (yield self)


@Row(Where.MEMORY, Order.LOCKED, writes(llist), Price.LINE, Answer.VALUE, carries=(llist,))
class LlistDelAll(NamedTuple):
    """llist_del_all: all nodes, newest first."""

    name: str

    def __await__(self) -> Generator[Operation, tuple[tuple[Any, ...], ...], tuple[tuple[Any, ...], ...]]:
        return (yield self)


@Row(Where.MEMORY, Order.LOAD, reads(llist), Price.LINE, Answer.VALUE, carries=(llist,))
class LlistEmpty(NamedTuple):
    """llist_empty."""

    name: str

    def __await__(self) -> Generator[Operation, bool, bool]:
        return (yield self)
