"""Operations on named words, locks and lock-less lists."""

from __future__ import annotations

from typing import Any

from emulator.hardware.operations.places import llist, lock, reads, word, writes
from emulator.hardware.operations.table import Answer, Answers, Order, Price, Row, Where


@Row(Where.MEMORY, Order.LOAD, reads(word), Price.LINE, Answer.VALUE, carries=(word,), location=word)
class Load(Answers[int]):
    """READ_ONCE: the word's value."""

    word: str


@Row(Where.MEMORY, Order.STORE, writes(word), Price.LINE, carries=(word,), location=word)
class Store(Answers[None]):
    """WRITE_ONCE."""

    word: str
    value: int


@Row(Where.MEMORY, Order.LOCKED, writes(word), Price.LINE, Answer.VALUE, carries=(word,))
class AtomicAdd(Answers[int]):
    """atomic_add_return: the new value."""

    word: str
    delta: int


@Row(Where.MEMORY, Order.LOCKED, writes(word), Price.LINE, Answer.VALUE, carries=(word,))
class AtomicOr(Answers[int]):
    """atomic_fetch_or (set_bit): the old value."""

    word: str
    mask: int


@Row(Where.MEMORY, Order.LOCKED, writes(word), Price.LINE, Answer.VALUE, carries=(word,))
class AtomicAnd(Answers[int]):
    """atomic_fetch_and (clear_bit): the old value."""

    word: str
    mask: int


@Row(Where.MEMORY, Order.LOCKED, writes(word), Price.LINE, Answer.VALUE, carries=(word,))
class AtomicXchg(Answers[int]):
    """xchg: the old value."""

    word: str
    value: int


@Row(Where.MEMORY, Order.LOCKED, writes(word), Price.LINE, Answer.VALUE, carries=(word,))
class AtomicCmpxchg(Answers[int]):
    """cmpxchg: the value seen; it was replaced if that equals `old`."""

    word: str
    old: int
    new: int


@Row(Where.MEMORY, Order.LOAD, reads(word), Price.LINE, Answer.VALUE, carries=(word,), waits=word)
class WaitFor(Answers[int]):
    """Not enabled until the word has `value` (wait_event); interruptible."""

    word: str
    value: int


@Row(Where.MEMORY, Order.LOAD, reads(word), Price.LINE, Answer.VALUE, carries=(word,), waits=word)
class WaitWhile(Answers[int]):
    """Not enabled while the word has `value` (cpu_relax in a loop); interruptible."""

    word: str
    value: int


@Row(Where.MEMORY, Order.LOCKED, writes(lock), Price.LINE, carries=(lock,), waits=lock)
class Lock(Answers[None]):
    """spin_lock or mutex_lock: not enabled while another context holds it."""

    name: str


@Row(Where.MEMORY, Order.LOCKED, writes(lock), Price.LINE, Answer.VALUE, carries=(lock,))
class TryLock(Answers[bool]):
    """spin_trylock: false while another context holds it."""

    name: str


@Row(Where.MEMORY, Order.STORE, writes(lock), Price.LINE, carries=(lock,), release=True)
class Unlock(Answers[None]):
    """spin_unlock: a store with release semantics."""

    name: str


@Row(Where.MEMORY, Order.LOCKED, writes(lock), Price.LINE, carries=(lock,), waits=lock)
class DownRead(Answers[None]):
    """down_read of a semaphore that Lock takes for writing: not enabled while a writer has it."""

    name: str


@Row(Where.MEMORY, Order.STORE, writes(lock), Price.LINE, carries=(lock,), release=True)
class UpRead(Answers[None]):
    """up_read: as Unlock."""

    name: str


@Row(Where.MEMORY, Order.STORE, writes(lock), Price.LINE, carries=(lock,), release=True)
class DowngradeWrite(Answers[None]):
    """downgrade_write: who has the lock alone reads under it from here on, and so may others."""

    name: str


@Row(Where.MEMORY, Order.LOCKED, writes(llist), Price.LINE, Answer.VALUE, carries=(llist,))
class LlistAdd(Answers[bool]):
    """llist_add: whether the list was empty before."""

    name: str
    node: tuple[Any, ...]


@Row(Where.MEMORY, Order.LOCKED, writes(llist), Price.LINE, Answer.VALUE, carries=(llist,))
class LlistDelAll(Answers[tuple[tuple[Any, ...], ...]]):
    """llist_del_all: all nodes, newest first."""

    name: str


@Row(Where.MEMORY, Order.LOAD, reads(llist), Price.LINE, Answer.VALUE, carries=(llist,))
class LlistEmpty(Answers[bool]):
    """llist_empty."""

    name: str
