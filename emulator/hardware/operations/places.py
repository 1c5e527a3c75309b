"""Keys of what is shared: a word, a lock, an entry. Rows of the table are made of them.

One key is one thing that CPUs meet at, wait for, or learn from one another by: ("word", name).
Every function here finds one in an operation, () if there is none, and its docstring is what it is called.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final, NamedTuple

from emulator.hardware.pte import RW, mmap_lock, pte_pfn, ptl, spte_word

Key = tuple[Any, ...]
KeyOf = Callable[[Any], Key]

ANY: Final = None
"""As the last part of a key: it meets all keys that begin alike."""


class Place(NamedTuple):
    """Where an operation meets those of other CPUs: only there can anybody tell who came first.

    `why` says in words why that is nowhere.
    """

    reads: tuple[KeyOf, ...] = ()
    writes: tuple[KeyOf, ...] = ()
    why: str = ""


class Touches(NamedTuple):
    """All that decides what an operation answers and does, and all that it may change, as keys.

    Two operations of different CPUs that touch no common key, or both only read it, can change places:
    same answers, same state. So it may be said too coarsely, never too finely. `adds`: changes that can
    change places with others of their kind; who reads or writes it meets them. `outcome`: keys that it
    changed besides, told by its answer.
    """

    reads: tuple[KeyOf, ...] = ()
    writes: tuple[KeyOf, ...] = ()
    adds: tuple[KeyOf, ...] = ()
    outcome: Callable[[Any, Any], tuple[Key, ...]] | None = None


_CLOSED: Final = "closed"


def closed(name: str) -> Key:
    """A key for what only some machines do: it counts only where some operation opens it."""
    return (_CLOSED, name)


def is_closed(key: Key) -> bool:
    """Whether `closed` made it."""
    return bool(key[0] == _CLOSED)


TABLE_PAGES: Final = closed("page-table pages")


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
mm_lock = _key("the mm's mmap_lock", lambda one: ("lock", mmap_lock(one.mm)))
mm_lock_if_whole = _key(
    "the mm's mmap_lock, if that is what it takes", lambda one: mm_lock(one) if one.whole else ()
)
vma_writer = _key("which of the mm's areas are locked for writing", lambda one: ("vma_writer", one.mm))
vma_readers = _key("which of the mm's areas faults have locked", lambda one: ("vma_readers", one.mm))
frame = _key("the frame's content", lambda one: ("frame", one.pfn))
source_frame = _key("the source's content", lambda one: ("frame", one.src))
destination_frame = _key("the destination's content", lambda one: ("frame", one.dst))
rmap = _key("the folio's mappings", lambda one: ("rmap", one.pfn))
source_rmap = _key("the source's mappings", lambda one: ("rmap", one.src))
rmap_of_entry = _key("the mappings of the folio that the entry names", lambda one: _rmap_of(one.pte))
rmap_of_old = _key("the mappings of the folio that the old entry names", lambda one: _rmap_of(one.old))
rmap_of_new = _key("the mappings of the folio that the new entry names", lambda one: _rmap_of(one.new))
# And what is changed only while their count is frozen.
references = _key("the folio's references", lambda one: ("references", one.pfn))
source_references = _key("the source's references", lambda one: ("references", one.src))
destination_references = _key("the destination's references", lambda one: ("references", one.dst))
pins = _key("which folios are pinned", lambda one: ("pins",))
flags = _key("the folio's flags", lambda one: ("flags", one.pfn))
access_times = _key("the folios' access times", lambda one: ("access_times",))
zone = _key("the node's zone", lambda one: ("zone", one.node))
# Both under one lock (lruvec->lru_lock).
node_lru = _key("the node's LRU lists", lambda one: ("lru", one.node))
any_lru = _key("the LRU lists", lambda one: ("lru",))  # a frame does not say which node it is on
slot = _key("the page-cache slot", lambda one: ("cache", one.file, one.pgoff))
calls = _key("the call queues", lambda one: ("calls",))
acknowledgement = _key("the call's acknowledgements", lambda one: ("ack", one.sender, one.request))
invalidations = _key("the invalidations that the CPU has asked for", lambda one: ("invlpgb", one.sender))
entry_word = _key("the descriptor", lambda one: ("word", one.word))

# What only `Touches` speak of.
any_invalidations = _key("invalidations", lambda one: ("invlpgb", ANY))
entry_if_updated = _key("the descriptor, if it is updated", lambda one: word(one) if one.number < 0 else ())
freeness = _key("whether the frame is free", lambda one: ("free", one.pfn))
source_freeness = _key("whether the source is free", lambda one: ("free", one.src))
source_flags = _key("the source's flags", lambda one: ("flags", one.src))
destination_flags = _key("the destination's flags", lambda one: ("flags", one.dst))
written_through = _key("the entry, if it is written through", lambda one: pte(one) if one.write else ())
areas_if_asked = _key(
    "the mm's areas, if the entry has to be empty or becomes writable",
    lambda one: areas(one) if not one.old or one.new & RW else (),
)
cached = _key("which slot the folio is in", lambda one: ("cached", one.pfn))
source_cached = _key("which slot the source is in", lambda one: ("cached", one.src))
destination_cached = _key("which slot the destination is in", lambda one: ("cached", one.dst))
destination_freeness = _key("whether the destination is free", lambda one: ("free", one.dst))
mapping = _key("the frame that the entry names", lambda one: ("mapping", one.mm, one.vpn))
references_of_entry = _key(
    "the references of the folio that the entry names", lambda one: ("references", pte_pfn(one.pte))
)
any_references = _key("the folios' references", lambda one: ("references", ANY))  # a page inside a huge one
any_mapping = _key("the frames that the entries name", lambda one: ("mapping", ANY))
any_freeness = _key("which frames are free", lambda one: ("free", ANY))
any_pte = _key("the entries", lambda one: ("pte", ANY))
any_rmap = _key("the folios' mappings", lambda one: ("rmap", ANY))
# Where page-table pages are things.
spte = _key("the entry in the guest's table", lambda one: ("word", spte_word(one.mm, one.root, one.vpn)))
table_pages = _key("the page-table pages", lambda one: TABLE_PAGES)
pte_if_written = _key("the entries, if one is written through", lambda one: ("pte", ANY) if one.write else ())
any_slot = _key("the page-cache slots", lambda one: ("cache", ANY))


def allocated(operation: Any, answer: int) -> tuple[Key, ...]:
    """All of the folio that was allocated."""
    return _whole(range(answer, answer + (1 << operation.order))) if answer >= 0 else ()


def maybe_freed(operation: Any, answer: bool) -> tuple[Key, ...]:
    """All of the folio whose last reference may have been dropped, and where it went."""
    return (*_whole((operation.pfn,)), ("zone", ANY), ("lru",)) if answer else ()


def split(operation: Any, answer: bool) -> tuple[Key, ...]:
    """All of the folio, and of those that were made of it."""
    return (*(("references", ANY), ("flags", ANY), ("free", ANY)),) if answer else ()


def referenced(operation: Any, answer: int) -> tuple[Key, ...]:
    """The folio that was found, with a reference taken."""
    return (("references", answer),) if answer >= 0 else ()


def all_referenced(operation: Any, answer: tuple[int, ...]) -> tuple[Key, ...]:
    """The folios that were found."""
    return tuple([("references", pfn) for pfn in answer])


def old_mapping(operation: Any, answer: int) -> tuple[Key, ...]:
    """The mappings of the folio that the old entry named."""
    return (("rmap", pte_pfn(answer)),) if answer > 0 else ()


def _whole(frames: Iterable[int]) -> tuple[Key, ...]:
    return tuple([(of, pfn) for pfn in frames for of in ("references", "flags", "rmap", "free")])
