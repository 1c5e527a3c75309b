"""Keys of what is shared: a word, a lock, an entry. Rows of the table are made of them.

One key is one thing that CPUs meet at, wait for, or learn from one another by: ("word", name).
Every function here finds one in an operation, () if there is none, and its docstring is what it is called.
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


def _key(called: str, find: KeyOf) -> KeyOf:
    find.__doc__ = called
    return find


def _rmap_of(entry: int) -> Key:
    return ("rmap", pte_pfn(entry)) if entry else ()


word = _key("the word", lambda one: ("word", one.word))
lock = _key("the lock", lambda one: ("lock", one.name))
llist = _key("the list", lambda one: ("list", one.name))
pte = _key("the entry", lambda one: ("pte", one.mm, one.vpn))
page_table_lock = _key("the page-table lock", lambda one: ("lock", ptl(one.mm, one.vpn)))
entry_range = _key("the entries in the range", lambda one: ())  # they have one key each: who asks compares
areas = _key("the mm's areas", lambda one: ("areas", one.mm))
frame = _key("the frame's content", lambda one: ("frame", one.pfn))
source_frame = _key("the source's content", lambda one: ("frame", one.src))
destination_frame = _key("the destination's content", lambda one: ("frame", one.dst))
rmap = _key("the folio's mappings", lambda one: ("rmap", one.pfn))
rmap_of_entry = _key("the mappings of the folio that the entry names", lambda one: _rmap_of(one.pte))
rmap_of_old = _key("the mappings of the folio that the old entry names", lambda one: _rmap_of(one.old))
rmap_of_new = _key("the mappings of the folio that the new entry names", lambda one: _rmap_of(one.new))
# And what is changed only while their count is frozen.
references = _key("the folio's references", lambda one: ("references", one.pfn))
source_references = _key("the source's references", lambda one: ("references", one.src))
destination_references = _key("the destination's references", lambda one: ("references", one.dst))
flags = _key("the folio's flags", lambda one: ("flags", one.pfn))
access_times = _key("the folios' access times", lambda one: ("access_times",))
zone = _key("the node's zone", lambda one: ("zone", one.node))
# Both under one lock (lruvec->lru_lock).
node_lru = _key("the node's LRU lists", lambda one: ("lru", one.node))
any_lru = _key("the LRU lists", lambda one: ("lru",))  # a frame does not say which node it is on
slot = _key("the page-cache slot", lambda one: ("cache", one.file, one.pgoff))
calls = _key("the call queues", lambda one: ("calls",))
acknowledgement = _key("the call's acknowledgements", lambda one: ("ack", one.sender, one.request))
