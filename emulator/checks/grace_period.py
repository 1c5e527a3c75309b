"""The grace-period rule: a translation is retired, then flushed wherever it may be cached, then reused.

The one idea: "then" means happens-before, not the order in which one run happened to come out. So a reuse
is reported as soon as some CPU's flush is not known to come first, whether or not anybody gets to use the
stale translation in this run. Coherence sees the damage, this sees the missing order.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

from emulator.checks.happens_before import SILENT, HappensBefore
from emulator.checks.onlooker import APART, Meeting, Watcher, closed
from emulator.checks.retirements import NONE, OWN, READ, TLB_GEN, WRITE, Retired, Retirements
from emulator.checks.sides import Sides
from emulator.checks.violation import MAX_KEPT, Violation
from emulator.hardware import operations as ops
from emulator.hardware.cpu import Kind, Transition
from emulator.hardware.operations import TABLE, Operation, Order, handlers_of
from emulator.hardware.operations.places import Key
from emulator.hardware.pte import (
    ACCESSED,
    DIRTY,
    PRESENT,
    RW,
    frame_of,
    make_migration_entry,
    pte_pages,
    pte_pfn,
    pte_present,
)
from emulator.kernel.mprotect import mmap_lock
from emulator.memory.page_table import VM_ACCESS_FLAGS, VM_WRITE

REUSED = "grace period: frame reused"
WRITABLE = "grace period: destination made writable"
COPIED = "grace period: copied while writable"
WRITTEN_OUT = "grace period: written out while writable"
REFILLED = "grace period: page-cache slot refilled"
SHARED = "grace period: shared while writable"
RANGE = "grace period: range reused"
RETURNED = "grace period: permission outlives the call"
OWED = "grace period: flush owed at the end"
# What Dave Hansen asked of LUF v11 (linux-mm, 3 June 2024): stricter than the others, which mind what can be
# seen. Looked at only where they are asked for by name.
REWRITTEN = "a deferred entry was rewritten before its flush"
REFILLED_EARLY = "a page-cache slot was refilled before its flush"
STRICT = (REWRITTEN, REFILLED_EARLY)
_MMAP_LOCK = mmap_lock(0)[:-1]
DEVICE = "grace period: a device still translates"


class Withdrawn(NamedTuple):
    """What a call has taken `parts` of, READ | WRITE: a page's translation, retired by CPU `cpu`."""

    vpn: int
    frame: int
    cpu: int
    parts: int


class Suspicious(NamedTuple):
    """A copy made while CPU `missing` may still have written the source; it counts if the page moves."""

    retired: Retired
    missing: int


# Nothing that happens-before is made of, nor an event here: a flush, a walk, or something put into a frame.
NEVER_MATTER = frozenset(
    kind for kind in SILENT if TABLE[kind].order not in (Order.TLB, Order.WALK, Order.STORE)
)


# What it keeps, as keys of `meets`: the retired translations as one whole; who holds which, where CPUs begin
# to use an mm; and which pages are shared, where there are several mms.
RETIRED: Key = ("retired",)
_JOINS: Key = closed("CPUs join an mm")
_SEVERAL: Key = closed("several mms")
_HEARS = Meeting((_JOINS,))
# Of these, only the CPU itself hears: what it is about to take.
_NOTED_ALONE = frozenset({ops.Lock, ops.DownRead})
_RETURNS = frozenset({ops.Unlock, ops.UpRead})
# Of these, others hear only what their CPU publishes later.
_MARK_THEIR_OWN = frozenset({ops.FlushTlb, ops.FlushTlbAll, ops.FlushTlbOne, ops.LoadCr3})


def _as_stored_over(entry: int) -> int:
    """What a plain store finds there: nobody told whether it was accessed or written through meanwhile."""
    return entry & ~ACCESSED | DIRTY


def _where(operation: Any) -> str:
    return f"page {operation.vpn:#x} of mm {operation.mm}"


class GracePeriod(Watcher):
    """Watches transitions; reports every reuse that some holder's flush does not happen before.

    `masks`: mm to the CPUs that run it at the start. `nid` is page_to_nid. `entries`: page-table entries at
    the start, by (mm, vpn); only a plain store over one needs to know it, the other operations answer it.

    A huge translation covers 2**hpage_order pages and as many frames; it goes by the first of each.
    `devices`: which of the CPUs are no CPUs but devices, as a mask. `strict`: what of STRICT is judged.
    `by_loading`: as of `Retirements`.
    """

    ignores = NEVER_MATTER

    def __init__(
        self,
        cpus: int,
        plain_orders: bool,
        masks: Mapping[int, int],
        nid: Callable[[int], int],
        entries: Mapping[tuple[int, int], int] | None = None,
        hpage_order: int = 0,
        devices: int = 0,
        strict: frozenset[str] = frozenset(),
        by_loading: bool = False,
    ) -> None:
        super().__init__()
        self._strict = strict
        self._devices = devices
        self._hpage_order = hpage_order
        self.before = HappensBefore(cpus, plain_orders, nid, TLB_GEN)
        self.facts = Retirements(cpus, self.before, masks, hpage_order, by_loading)
        self._cpus = cpus
        self._masks = masks
        # Set where transitions are numbered: reports then name them.
        self.sides: Sides | None = None
        self._entries = {
            where: _as_stored_over(entry) for where, entry in (entries or {}).items() if entry & PRESENT
        }
        self._copies: dict[int, tuple[Suspicious, ...]] = {}  # destination -> what speaks against the copy
        # Page-cache slots that were emptied -> the frame that was there, and whether the file lost it too.
        self._emptied: dict[tuple[int, int], tuple[int, bool]] = {}
        # CPU that holds an mmap_lock -> what it has taken from that mm since.
        self._calls: dict[int, tuple[Withdrawn, ...]] = {}
        self._handlers = handlers_of(self.facts) | handlers_of(self)

    def happened(
        self, transition: Transition, operation: Operation | None, issued: bool, answer: Any
    ) -> None:
        """One transition, as an engine tells its watchers."""
        kind = type(operation)
        if kind in NEVER_MATTER:
            return
        if kind is ops.Invalidate:
            self.facts.invalidated(transition.cpu, operation, answer)  # type: ignore[arg-type]
            return
        handler = self._handlers.get(kind) if transition.kind is Kind.STEP else None
        event = None
        if self.sides is not None:
            self.sides.happened(transition, operation)
        cpu = transition.cpu
        if handler is not None:
            event = partial(handler, cpu, operation, answer)
        facts = self.facts
        known = self.before.now[cpu] if facts.retired else 0
        facts.replaced = False
        self.before.happened(transition, operation, issued, answer, event)
        # Nothing else makes anything forgettable than what this CPU has learnt or done.
        if facts.retired and (facts.replaced or self.before.now[cpu] != known):
            facts.forget()

    def meets(self, transition: Transition, operation: Any, issued: bool, answer: Any) -> Meeting:
        """What is retired, reused or copied meets in the list of the retired. Knowledge travels by what
        carries it, and those are keys of memory's.

        A flush or context load marks only what its own CPU has heard of, and others cannot tell when, before
        they hear of that. Only a CPU that begins to use an mm becomes a holder of what is retired already and
        not forgotten yet, which depends on what all CPUs know.
        """
        kind = type(operation)
        if kind in NEVER_MATTER:
            return APART
        if kind is ops.Invalidate:
            return Meeting((_JOINS,), (RETIRED,))
        if transition.kind is not Kind.STEP or kind not in self._handlers or kind in _MARK_THEIR_OWN:
            return _HEARS
        one = len(self._masks) == 1 and getattr(operation, "mm", None) in (None, *self._masks)
        several = () if one else (_SEVERAL,)
        if kind is ops.Walk or kind is ops.WalkPte:
            return Meeting((_SEVERAL,), (), several) if answer else APART
        if kind is ops.Load:
            return Meeting((), (_JOINS,)) if operation.word.startswith(TLB_GEN) else _HEARS
        if kind in (ops.AtomicOr, ops.AtomicAnd, ops.AtomicCmpxchg, ops.Store):
            if not self.facts.tells_users(operation.word):
                return _HEARS
            return Meeting((_JOINS,), (RETIRED,), (_JOINS,))
        nothing = (kind is ops.AllocPages and answer < 0) or (kind is ops.TryToMigratePte and not answer)
        if nothing or kind is ops.FilemapRemove:  # which notes the slot alone
            return _HEARS
        if kind in _NOTED_ALONE or (kind in _RETURNS and not operation.name.startswith(_MMAP_LOCK)):
            return _HEARS
        return Meeting((_JOINS,), (RETIRED, _SEVERAL), several)

    # --- reuses ------------------------------------------------------------------------------------

    def _judge(self, at: int, cpu: int, rule: str, what: str) -> None:
        missing = self.facts.missing(at, cpu)
        if missing:
            self._report(rule, cpu, self.facts.retired[at], missing, what)
            # Reported once; what it grants beyond reading is another matter.
            self.facts.replace(at, parts=self.facts.retired[at].parts & ~READ)

    def _report(self, rule: str, cpu: int, retired: Retired, missing: int, what: str) -> None:
        if len(self.violations) < MAX_KEPT:
            holders = ", ".join(f"CPU {holder}" for holder in range(self._cpus) if missing >> holder & 1)
            text = (
                f"{what}, but page {retired.vpn:#x} of mm {retired.mm} was in frame {retired.frame} until "
                f"CPU {retired.cpu} retired that, and no flush of it on {holders} happens before"
            )
            if self.sides is not None:
                text += self.sides.told(cpu, retired, missing)
            if not missing & ~self._devices:
                rule = DEVICE
            self.violations.append(Violation(rule=rule, cpu=cpu, text=text))

    def _allocated(self, cpu: int, operation: ops.AllocPages, answer: int) -> None:
        """The frames go out; a policy may still flush before anybody puts something into them."""
        if answer < 0:
            return
        end = answer + (1 << operation.order)
        for at, retired in enumerate(self.facts.retired):
            if retired.page < end and answer < retired.page + retired.pages and retired.page != NONE:
                self.facts.replace(at, page=NONE)
            if retired.frame < end and answer < retired.frame + retired.pages:
                self.facts.replace(at, handed=answer, parts=retired.parts & ~WRITE)
        for dst in range(answer, end):
            self._copies.pop(dst, None)

    def _first_use(self, cpu: int, pfn: int, operation: Operation) -> None:
        """Something is put into a frame, or it is mapped: its old translations must be gone by then."""
        for at, retired in enumerate(self.facts.retired):
            inside = retired.frame <= pfn < retired.frame + retired.pages
            if retired.handed != NONE and (inside or pfn == retired.handed):
                self._judge(at, cpu, REUSED, f"{type(operation).__name__} uses frame {retired.frame} again")
                self.facts.replace(at, parts=0)

    def _zero(self, cpu: int, operation: ops.FolioZero, answer: Any) -> None:
        self._first_use(cpu, operation.pfn, operation)

    def _copy(self, cpu: int, operation: ops.FolioCopy, answer: Any) -> None:
        self._first_use(cpu, operation.dst, operation)
        found = tuple(
            Suspicious(retired, missing)
            for at, retired in enumerate(self.facts.retired)
            if retired.parts & WRITE
            and retired.frame == operation.src
            and (missing := self.facts.missing(at, cpu, reading=True))
        )
        if found:
            self._copies[operation.dst] = found

    def _moved(self, cpu: int, operation: ops.FolioMigrateMapping, answer: bool) -> None:
        """A migration's copy counts from here on, or is thrown away. (A copy for a write fault never gets
        here: the source stays a page of its own, and may well be written meanwhile by somebody else.)"""
        src, dst = operation.src, operation.dst
        copies = self._copies.pop(dst, ())
        if not answer:
            return
        for at, retired in enumerate(self.facts.retired):
            if retired.page == src:
                # Who migrates goes on before its own flush is done; another's may just be under way.
                deferred = retired.deferred or (retired.cpu == cpu and bool(self.facts.missing(at, cpu)))
                self.facts.replace(at, page=dst, deferred=deferred)
        what = f"page in frame {src} moves to frame {dst} with a copy of what may still be written"
        for suspicious in copies:
            self._report(COPIED, cpu, suspicious.retired, suspicious.missing, what)
            for at, retired in enumerate(self.facts.retired):
                if retired[:4] == suspicious.retired[:4]:
                    self.facts.replace(at, parts=retired.parts & ~WRITE)

    def _written_out(self, cpu: int, operation: ops.WritePage, answer: None) -> None:
        """Who writes after that, without a fault, writes what nobody will write out."""
        for at, retired in enumerate(self.facts.retired):
            if retired.parts & WRITE and retired.frame == operation.pfn:
                missing = self.facts.missing(at, cpu)
                if missing:
                    where = f"page {operation.pgoff} of file {operation.file}"
                    what = f"{where} is written out from frame {retired.frame}"
                    self._report(WRITTEN_OUT, cpu, retired, missing, what)
                    self.facts.replace(at, parts=retired.parts & ~WRITE)

    def _walked(self, cpu: int, operation: ops.Walk | ops.WalkPte, answer: int) -> None:
        """After fork: who reads a page must not see what the other side still writes without a fault."""
        if not answer:
            return
        frame = frame_of(answer, operation.vpn, self._hpage_order)
        for at, retired in enumerate(self.facts.retired):
            shared = retired.parts & WRITE and retired.parts & OWN and retired.mm != operation.mm
            if shared and 0 <= frame - retired.frame < retired.pages:
                missing = self.facts.missing(at, cpu, reading=True)
                if missing:
                    what = f"{_where(operation)} uses frame {retired.frame}, which may still be written"
                    self._report(SHARED, cpu, retired, missing, what)
                    self.facts.replace(at, parts=retired.parts & ~OWN)

    def _uncached(self, cpu: int, operation: ops.FilemapRemove, answer: bool) -> None:
        if answer:
            self._emptied[operation.file, operation.pgoff] = (operation.pfn, operation.refs <= 0)

    def _cached(self, cpu: int, operation: ops.FilemapAdd, answer: int) -> None:
        """Hansen's second rule: a slot whose old page is still owed a flush is not refilled before it.

        After reclaim the new page has the old one's content, which then is a read copy like any: it must
        be gone before the new page can be written. After a truncation it has not.
        """
        slot = (operation.file, operation.pgoff)
        if answer >= 0 or slot not in self._emptied:
            return
        old, truncated = self._emptied.pop(slot)
        for at, retired in enumerate(self.facts.retired):
            if retired.page != old or not retired.parts & READ:
                continue
            if REFILLED_EARLY in self._strict:
                what = f"page {slot[1]} of file {slot[0]} gets frame {operation.pfn}"
                self._judge(at, cpu, REFILLED_EARLY, what)
            if truncated:
                what = f"page {slot[1]} of file {slot[0]} is read anew into frame {operation.pfn}"
                self._judge(at, cpu, REFILLED, what)
            else:
                self.facts.replace(at, page=operation.pfn)

    def _mapped_area(self, cpu: int, operation: ops.VmaInsert, answer: bool) -> None:
        if not answer:
            return
        for at, retired in enumerate(self.facts.retired):
            before = operation.end <= retired.vpn
            after = retired.vpn + retired.pages <= operation.start
            if retired.mm == operation.mm and not before and not after and retired.parts & READ:
                what = f"an area of pages {operation.start:#x} to {operation.end - 1:#x} is mapped"
                self._judge(at, cpu, RANGE, what)

    def _install(self, cpu: int, operation: Any, new: int) -> None:
        if not pte_present(new):
            return
        pfn = pte_pfn(new)
        pages = pte_pages(new, self._hpage_order)
        self._first_use(cpu, pfn, operation)
        for at, retired in enumerate(self.facts.retired):
            # Where the two overlap, and what is cached and what is mapped there: by their first pages.
            first = operation.vpn - retired.vpn
            here = retired.mm == operation.mm and -pages < first < retired.pages
            same = -pages < pfn - retired.page < retired.pages and retired.page != NONE
            if REWRITTEN in self._strict and here and retired.parts & READ:
                self._judge(at, cpu, REWRITTEN, f"{_where(operation)} is written: frame {pfn}")
            if here and pfn - first == retired.frame:
                # The page is back where it was: what is cached is what is mapped, as far as that goes.
                if new & PRESENT:
                    self.facts.replace(at, parts=0 if new & RW else retired.parts & ~READ)
            elif retired.parts & READ and here and pfn - first != retired.page:
                # "A page-table entry whose flush is deferred is not rewritten before that flush", or one CPU
                # uses the old page there while others use the new one.
                what = f"{_where(operation)} maps frame {pfn} anew"
                self._judge(at, cpu, RANGE, what)
            elif retired.parts & READ and new & RW and same and retired.page != retired.frame:
                what = f"{_where(operation)} makes frame {pfn} writable, with read copy {retired.frame}"
                self._judge(at, cpu, WRITABLE, what)

    def finish(self) -> None:
        """The machine has come to rest: report each flush that no CPU which may need it has done by now.

        Nobody has reused anything, but the owner of a translation that is gone, or of a right that was taken
        away, goes on as if it were not. Only asked of machines that perform what they owe before they rest.
        """
        known = 0
        for cpu in range(self._cpus):
            known |= self.facts.known(cpu)
        for at, retired in enumerate(self.facts.retired):
            missing = retired.holders & ~self.facts.dropped(at, known) if retired.parts else 0
            if missing:
                self._report(OWED, retired.cpu, retired, missing, "the run is over")

    # --- calls ---------------------------------------------------------------------------------------

    def _called(self, cpu: int, operation: ops.Lock | ops.DownRead, answer: Any) -> None:
        """A system call on an mm begins: all that take something away hold its mmap_lock to their end."""
        if operation.name.startswith(_MMAP_LOCK):
            self._calls[cpu] = ()

    def _returned(self, cpu: int, operation: ops.Unlock | ops.UpRead, answer: Any) -> None:
        """It ends: nobody may go on using what it has taken."""
        if not operation.name.startswith(_MMAP_LOCK):
            return
        mm = int(operation.name[len(_MMAP_LOCK) :])
        for vpn, frame, retirer, parts in self._calls.pop(cpu, ()):
            for at, retired in enumerate(self.facts.retired):
                same = retired[:4] == (mm, vpn, frame, retirer)
                missing = self.facts.missing(at, cpu) if same and retired.parts & parts else 0
                if missing:
                    self._report(
                        RETURNED, cpu, retired, missing, f"a call on page {vpn:#x} of mm {mm} returns"
                    )
                    self.facts.replace(at, parts=retired.parts & ~parts)

    def _unmapped_area(self, cpu: int, operation: ops.VmaRemove, answer: Any) -> None:
        self._take_area(cpu, operation, READ | WRITE)

    def _protected_area(self, cpu: int, operation: ops.VmaProtect, answer: Any) -> None:
        accessible = operation.flags & VM_ACCESS_FLAGS
        lost = (0 if operation.flags & VM_WRITE else WRITE) | (0 if accessible else READ)
        self._take_area(cpu, operation, lost)

    def _take_area(self, cpu: int, area: ops.VmaRemove | ops.VmaProtect, parts: int) -> None:
        """The call takes what others have retired there and may not have flushed for, too."""
        for retired in self.facts.retired if cpu in self._calls else ():
            here = retired.vpn < area.end and area.start < retired.vpn + retired.pages
            if retired.mm == area.mm and here and retired.parts & parts:
                self._take(cpu, Withdrawn(retired.vpn, retired.frame, retired.cpu, parts))

    def _take(self, cpu: int, taken: Withdrawn) -> None:
        if taken not in self._calls[cpu]:
            self._calls[cpu] += (taken,)

    # --- page-table entries --------------------------------------------------------------------------

    def _changed(self, cpu: int, operation: Any, old: int, new: int) -> None:
        self._install(cpu, operation, new)
        self.facts.retire(cpu, operation.mm, operation.vpn, old, new)
        if old & PRESENT and cpu in self._calls:
            self._take(cpu, Withdrawn(operation.vpn, pte_pfn(old), cpu, READ | WRITE))
        if self.sides is not None and old & PRESENT:
            self.sides.retired(cpu, operation, pte_pfn(old))
        if new & PRESENT:
            self._entries[operation.mm, operation.vpn] = _as_stored_over(new)
        else:
            self._entries.pop((operation.mm, operation.vpn), None)

    def _exchange(self, cpu: int, operation: ops.XchgPte | ops.ZapPte | ops.XchgPteIn, answer: int) -> None:
        self._changed(cpu, operation, answer, operation.pte)

    def _compare(self, cpu: int, operation: ops.CmpxchgPte, answer: int) -> None:
        if answer == operation.old:
            self._changed(cpu, operation, answer, operation.new)

    def _unmap(self, cpu: int, operation: ops.TryToMigratePte, answer: int) -> None:
        if answer:
            self._changed(cpu, operation, answer, make_migration_entry(answer))

    def _set(self, cpu: int, operation: ops.SetPte, answer: Any) -> None:
        old = self._entries.get((operation.mm, operation.vpn), 0)
        self._changed(cpu, operation, old, operation.pte)

    # --- the whole as a value --------------------------------------------------------------------

    def state(self) -> tuple[Any, ...]:
        """All that later judgements depend on, as a hashable value."""
        return (
            self.facts.state(),
            frozenset(self._entries.items()),
            frozenset(self._copies.items()),
            frozenset(self._emptied.items()),
            frozenset(self._calls.items()),
        )

    def restore(self, state: tuple[Any, ...]) -> None:
        """Put back what `state` answered; violations found so far stay."""
        facts, entries, copies, emptied, calls = state
        self.facts.restore(facts)
        self._entries = dict(entries)
        self._copies = dict(copies)
        self._emptied = dict(emptied)
        self._calls = dict(calls)
