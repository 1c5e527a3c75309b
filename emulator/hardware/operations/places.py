"""Keys of what is shared: a word, a lock, an entry. Rows of the table are made of them.

One key is one thing that CPUs meet at, wait for, or learn from one another by: ("word", name).
Every function here finds one in an operation, () if there is none, and says in words what it is.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from emulator.hardware.pte import pte_pfn, ptl

Key = tuple[Any, ...]
KeyOf = Callable[[Any], Key]


class Place(NamedTuple):
    """Where an operation meets those of other CPUs: only there can anybody tell who came first.

    `why` says in words why that is nowhere.
    """

    reads: tuple[KeyOf, ...] = ()
    writes: tuple[KeyOf, ...] = ()
    why: str = ""


def reads(*keys: KeyOf) -> Place:
    """It only looks there."""
    return Place(reads=keys)


def writes(*keys: KeyOf) -> Place:
    """It may change what is there."""
    return Place(writes=keys)


def nowhere(why: str) -> Place:
    """No other CPU can tell when it is carried out, for this reason."""
    return Place(why=why)


def word(operation: Any) -> Key:
    """the word"""
    return "word", operation.word


def lock(operation: Any) -> Key:
    """the lock"""
    return "lock", operation.name


def llist(operation: Any) -> Key:
    """the list"""
    return "list", operation.name


def pte(operation: Any) -> Key:
    """the entry"""
    return "pte", operation.mm, operation.vpn


def page_table_lock(operation: Any) -> Key:
    """the page-table lock"""
    return "lock", ptl(operation.mm, operation.vpn)


def entry_range(operation: Any) -> Key:
    """the entries in the range"""
    return ()  # they have one key each: who asks compares


def areas(operation: Any) -> Key:
    """the mm's areas"""
    return "areas", operation.mm


def frame(operation: Any) -> Key:
    """the frame's content"""
    return "frame", operation.pfn


def source_frame(operation: Any) -> Key:
    """the source's content"""
    return "frame", operation.src


def destination_frame(operation: Any) -> Key:
    """the destination's content"""
    return "frame", operation.dst


def rmap(operation: Any) -> Key:
    """the folio's mappings"""
    return "rmap", operation.pfn


def rmap_of_entry(operation: Any) -> Key:
    """the mappings of the folio that the entry names"""
    return ("rmap", pte_pfn(operation.pte)) if operation.pte else ()


def rmap_of_old(operation: Any) -> Key:
    """the mappings of the folio that the old entry names"""
    return ("rmap", pte_pfn(operation.old)) if operation.old else ()


def rmap_of_new(operation: Any) -> Key:
    """the mappings of the folio that the new entry names"""
    return ("rmap", pte_pfn(operation.new)) if operation.new else ()


def references(operation: Any) -> Key:
    """the folio's references"""
    return "references", operation.pfn  # and what is changed only while their count is frozen


def source_references(operation: Any) -> Key:
    """the source's references"""
    return "references", operation.src


def destination_references(operation: Any) -> Key:
    """the destination's references"""
    return "references", operation.dst


def flags(operation: Any) -> Key:
    """the folio's flags"""
    return "flags", operation.pfn


def zone(operation: Any) -> Key:
    """the node's zone"""
    return "zone", operation.node


def node_lru(operation: Any) -> Key:
    """the node's LRU lists"""
    return "lru", operation.node  # both under one lock (lruvec->lru_lock)


def any_lru(operation: Any) -> Key:
    """the LRU lists"""
    return ("lru",)  # a frame does not say which node it is on


def slot(operation: Any) -> Key:
    """the page-cache slot"""
    return "cache", operation.file, operation.pgoff


def calls(operation: Any) -> Key:
    """the call queues"""
    return ("calls",)


def acknowledgement(operation: Any) -> Key:
    """the call's acknowledgements"""
    return "ack", operation.sender, operation.request
