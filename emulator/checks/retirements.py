"""Which translations are retired, who may have them cached, and what is known of the flushes.

The one idea: each retired translation has one event "it was retired" and one per CPU "this CPU has dropped
it, knowing that it was retired". A flush by a CPU that does not know of the retirement is no such event: it
is not ordered after the change of the entry, so the walker may have brought the old one back.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from emulator.checks.happens_before import HappensBefore
from emulator.hardware import operations as ops
from emulator.hardware.operations.places import Key
from emulator.hardware.pte import DIRTY, EXCLUSIVE, PRESENT, RW, pte_pages, pte_pfn
from emulator.kernel.kvm import KVM_VCPU_FLUSH_TLB, preempted_word
from emulator.kernel.percpu import (
    LOADED_MM_SWITCHING,
    TLB_NR_DYN_ASIDS,
    cpumask_word,
    flushing_word,
    global_asid_word,
    is_lazy_word,
    loaded_mm_word,
    tlb_flush_batched_word,
    tlb_gen_word,
)

READ = 1  # a stale translation reads the frame
WRITE = 2  # and writes it
OWN = 4  # the page was one mm's alone, and is not any more: what is written there others must not see
NONE = -1
_ANY = -1  # the mm whose generation the CPU reads next

_CPUMASK = cpumask_word(0)[:-1]
TLB_GEN = tlb_gen_word(0)[:-1]
_GLOBAL_ASID = global_asid_word(0)[:-1]
_BATCHED = tlb_flush_batched_word(0)[:-1]


def _asked(sender: int, at: int = 0) -> Key:
    """What a CPU knew when it asked for an invalidation, of several the one at this position. Like what a
    generation carries it is kept exactly: whether it knew of an event is asked when all others may know of it
    by now."""
    return "word", f"{TLB_GEN}asked.{sender}.{at}"


def _done(sender: int) -> Key:
    """Who has dropped what for it."""
    return "invlpgb", sender


class Retired(NamedTuple):
    """A translation that page tables no longer grant, but that CPUs `holders` may have cached.

    `parts`: what it still grants that matters, READ | WRITE, and OWN besides WRITE if the page was one mm's
    alone. `page`: the frame that the page behind it is in by now, NONE once that page is gone. `handed`:
    first frame of the allocation that `frame` went out with, NONE while it has not been handed out.
    `deferred`: who retired it has moved the page before the flushes.
    """

    mm: int
    vpn: int
    frame: int
    cpu: int  # who retired it
    parts: int
    holders: int
    page: int
    handed: int = NONE
    deferred: bool = False
    pages: int = 1  # how many the translation covers, from `vpn` and `frame` on


class Retirements:
    """The retired translations of a machine with `cpus` CPUs, and their events in `before`.

    `masks`: mm to the CPUs that run it at the start. With `by_loading` no mask says who runs an mm: who loads
    it does, until it loads another. A huge entry covers 2**hpage_order pages. The bits of
    the n-th translation start at bit n * (cpus + 1): first "retired", then "dropped" by CPU. Translations
    stay sorted and the bits of a forgotten one are taken out everywhere, so that the same situation always
    looks the same. Operations are handed to its methods between what their CPU learns and what it publishes.
    """

    def __init__(
        self,
        cpus: int,
        before: HappensBefore,
        masks: Mapping[int, int],
        hpage_order: int = 0,
        by_loading: bool = False,
    ) -> None:
        self._hpage_order = hpage_order
        self._by_loading = by_loading
        # Sender -> of each invalidation that is under way, oldest first, the CPUs that have not done it.
        self._under_way: dict[int, tuple[int, ...]] = {}
        self.before = before
        self.retired: list[Retired] = []
        self.replaced = False  # in this transition
        self._cpus = cpus
        self._width = cpus + 1
        # CPUs whose user accesses may go through the mm's translations. A CPU in lazy TLB mode is none: the
        # kernel leaves it out of flushes because it runs no user code, and what it kept it drops on leaving
        # lazy mode if the generation has moved on (switch_mm_irqs_off).
        self._users = dict(masks)
        self._loaded = [0] * cpus
        for mm, mask in masks.items():
            for cpu in range(cpus):
                if mask >> cpu & 1:
                    self._loaded[cpu] = mm
        # A CPU that has put itself into the mask or left lazy mode, until it has read the generation.
        self._joining = [0] * cpus
        self._pcids = [0] * cpus  # as loaded, if it is the same on all CPUs; else 0
        # What a CPU on its way into an mm has found as the number of all CPUs; NONE before it has looked.
        self._found = [NONE] * cpus
        # What loads brought that decide what the CPU does next, see `_load`.
        self._decided = [0] * cpus
        self._lazy_words = {is_lazy_word(cpu): cpu for cpu in range(cpus)}
        self._flushing_words = {flushing_word(cpu): cpu for cpu in range(cpus)}
        self._preempted_words = {preempted_word(cpu): cpu for cpu in range(cpus)}
        # Where masks are lazy, these say who has left an mm, and who is on its way into one.
        self._loaded_words = {loaded_mm_word(cpu): cpu for cpu in range(cpus)}

    # --- bookkeeping of bits ---------------------------------------------------------------------

    def _bit(self, at: int, cpu: int) -> int:
        """The event that CPU `cpu` has dropped the translation."""
        return 1 << at * self._width + 1 + cpu

    def missing(self, at: int, cpu: int, reading: bool = False) -> int:
        """Holders of the translation at this position whose flush need not come before what CPU `cpu` does
        now, as a mask. `reading`: it does not store, so that only barriers have ordered it."""
        known = self.before.now[cpu] if reading else self.known(cpu)
        return self.retired[at].holders & ~self.dropped(at, known)

    def known(self, cpu: int) -> int:
        """The events that happen before what the CPU stores next."""
        return self.before.now[cpu] | self._decided[cpu]

    def dropped(self, at: int, known: int) -> int:
        """Who has dropped the translation at this position, as far as `known` tells; a mask, with other bits
        above the CPUs'."""
        return known >> at * self._width + 1

    def replace(self, at: int, **fields: Any) -> None:
        """Change fields of the translation at this position; not those that it is sorted by."""
        self.retired[at] = self.retired[at]._replace(**fields)
        self.replaced = True

    def forget(self) -> None:
        """Drop what nothing can break any more: no part left, or all flushes known to every CPU."""
        width = self._width
        dropped = self.before.known_to_all() >> 1
        over = []
        for at, retired in enumerate(self.retired):
            if not retired.parts or not retired.holders & ~dropped:
                over.append(at)
            dropped >>= width
        while over:
            # Neighbours go together.
            at = over.pop()
            del self.retired[at]
            count = width
            while over and over[-1] == at - 1:
                at = over.pop()
                del self.retired[at]
                count += width
            first = at * width
            self.before.remove_bits(first, count)
            low = (1 << first) - 1
            for cpu, bits in enumerate(self._decided):
                self._decided[cpu] = bits & low | bits >> first + count << first

    def retire(self, cpu: int, mm: int, vpn: int, old: int, new: int) -> None:
        """The entry changes: note what a cached copy of `old` grants and `new` does not."""
        if not old & PRESENT:
            return
        gone = not new & PRESENT or pte_pfn(new) != pte_pfn(old)
        parts = READ if gone else 0
        # A cached entry that is not dirty lets nobody write: the CPU walks again to set the bit, and the walk
        # finds the new entry (Intel SDM vol. 3A, 4.8; RISC-V privileged ISA, Svadu).
        if old & (RW | DIRTY) == RW | DIRTY and (gone or not new & RW):
            parts |= WRITE
            if not gone and old & EXCLUSIVE and not new & EXCLUSIVE:
                parts |= OWN
        holders = self._users.get(mm, 0)
        if not parts or not holders:
            return
        frame = pte_pfn(old)
        pages = pte_pages(old, self._hpage_order)
        entry = Retired(mm, vpn, frame, cpu, parts, holders, frame, pages=pages)
        at = 0
        while at < len(self.retired) and self.retired[at][:3] <= entry[:3]:
            at += 1
        self.retired.insert(at, entry)
        first = at * self._width
        self.before.insert_bits(first, self._width)
        low = (1 << first) - 1
        for one, bits in enumerate(self._decided):
            self._decided[one] = bits & low | bits >> first << first + self._width
        self.before.now[cpu] |= 1 << first

    # --- flushes -----------------------------------------------------------------------------------

    def _drop(self, cpu: int, mm: int, vpn: int | None = None, anyway: bool = False) -> None:
        """CPU `cpu` drops its translations of the mm. Those whose retirement it does not know of may come
        back: its flush is not ordered after the change of the entry, unless it stops using any (`anyway`)."""
        known = self.known(cpu)
        for at, retired in enumerate(self.retired):
            if (
                retired.mm == mm
                and retired.holders >> cpu & 1
                and (vpn is None or retired.vpn <= vpn < retired.vpn + retired.pages)
                and (anyway or known >> at * self._width & 1)
            ):
                if anyway:
                    self.before.stopped(cpu, self._bit(at, cpu))
                else:
                    self.before.now[cpu] |= self._bit(at, cpu)

    def _flush(
        self, cpu: int, operation: ops.FlushTlb | ops.FlushTlbOne | ops.FlushTlbAll, answer: Any
    ) -> None:
        vpn = operation.vpn if isinstance(operation, ops.FlushTlbOne) else None
        self._drop(cpu, self._loaded[cpu], vpn)

    def _load_cr3(self, cpu: int, operation: ops.LoadCr3, answer: Any) -> None:
        shared = operation.pcid if operation.pcid > TLB_NR_DYN_ASIDS else 0
        # What it has under its own number it does not use any more once it has loaded the one of all CPUs.
        leaves = shared and not self._pcids[cpu] and self._loaded[cpu] == operation.mm
        if self._by_loading and self._loaded[cpu] != operation.mm:
            self._leave(cpu, self._loaded[cpu])
            self._join(cpu, operation.mm)
        self._loaded[cpu] = operation.mm
        self._pcids[cpu] = shared
        self._found[cpu] = NONE
        if operation.flush or leaves:
            self._drop(cpu, operation.mm)

    def _join(self, cpu: int, mm: int) -> None:
        """From here on its accesses go through the mm's translations, also those that it may have kept."""
        if not mm:
            return
        self._users[mm] = self._users.get(mm, 0) | 1 << cpu
        for at, retired in enumerate(self.retired):
            if retired.mm == mm:
                self.replace(at, holders=retired.holders | 1 << cpu)

    def _broadcast(self, cpu: int, operation: ops.Invlpgb, answer: Any) -> None:
        """What other CPUs drop for this one they drop for what it knows of by now."""
        self._carry(_asked(operation.sender), self.known(cpu))
        self._carry(_done(operation.sender), 0)

    def _tlbi(self, cpu: int, operation: ops.Tlbi, answer: Any) -> None:
        """The same of each of several."""
        asked = self._under_way.get(cpu, ())
        self._carry(_asked(cpu, len(asked)), self.known(cpu))
        self._under_way[cpu] = (*asked, operation.mask)

    def _signalled(self, cpu: int, operation: ops.SendRar, answer: Any) -> None:
        self._carry(_asked(operation.sender), self.known(cpu))
        self._carry(_done(operation.sender), 0)

    def invalidated(self, cpu: int, operation: ops.Invalidate, answer: tuple[int, ...]) -> None:
        """The TLB of a CPU has dropped what another one has asked. Its program learns nothing of that, and
        who has asked only by waiting. Entries of another PCID than is named stay, which counts where the CPU
        runs the mm under another one, or is about to: it has looked for the number before there was one."""
        pcid, mm, start, end, *_ = answer
        known = self._does_oldest(cpu, operation.sender)
        found = 0
        for at, retired in enumerate(self.retired):
            asked = pcid < 0 or (
                retired.mm == mm
                and (end < 0 or (retired.vpn < end and start < retired.vpn + retired.pages))
                and (self._pcids[cpu] == pcid if self._loaded[cpu] == mm else self._found[cpu] != 0)
            )
            if asked and known >> at * self._width & 1:
                found |= self._bit(at, cpu) if self._by_loading or retired.holders >> cpu & 1 else 0
        done = _done(operation.sender)
        self._carry(done, self.before.clocks.get(done, 0) | found)

    def _does_oldest(self, cpu: int, sender: int) -> int:
        """A CPU does what another one has asked, of its TLBIs the oldest that it has not done: what that one
        knew when it asked."""
        if sender not in self._under_way:
            return self.before.clocks.get(_asked(sender), 0)
        asked = list(self._under_way[sender])
        at = next(at for at, mask in enumerate(asked) if mask >> cpu & 1)
        known = self.before.clocks.get(_asked(sender, at), 0)
        asked[at] &= ~(1 << cpu)
        if not asked[at]:
            del asked[at]
            for one in range(at, len(asked) + 1):
                self._carry(_asked(sender, one), self.before.clocks.get(_asked(sender, one + 1), 0))
        if asked:
            self._under_way[sender] = tuple(asked)
        else:
            del self._under_way[sender]
        return known

    def _synced(self, cpu: int, operation: ops.Tlbsync, answer: Any) -> None:
        """All have: the CPU that has asked knows."""
        self.before.now[cpu] |= self.before.clocks.pop(_done(operation.sender), 0)
        self.before.clocks.pop(_asked(operation.sender), None)

    def _dsb(self, cpu: int, operation: ops.Dsb, answer: Any) -> None:
        """Those that it has waited for have, which may be its own TLB alone."""
        done = self.before.clocks.get(_done(operation.sender), 0)
        if operation.sender in self._under_way:
            these = [one for one in range(self._cpus) if operation.mask >> one & 1]
            done &= sum(self._bit(at, one) for at in range(len(self.retired)) for one in these)
        else:
            self._carry(_done(operation.sender), 0)
        self.before.now[cpu] |= done

    def _carry(self, carrier: Key, bits: int) -> None:
        if bits:
            self.before.clocks[carrier] = bits
        else:
            self.before.clocks.pop(carrier, None)

    def begins_with(self, pcids: Sequence[int]) -> None:
        """The PCID that each CPU has loaded at the start, of those that are the same on all of them."""
        self._pcids[:] = pcids

    def _stop(self, cpu: int) -> None:
        """The CPU makes no user access before it has flushed for what it knows of; whether it then does flush
        a stale access tells, which is coherence's to see."""
        known = self.known(cpu)
        for at, retired in enumerate(self.retired):
            if (
                retired.mm == self._loaded[cpu]
                and retired.holders >> cpu & 1
                and known >> at * self._width & 1
            ):
                self.before.stopped(cpu, self._bit(at, cpu))

    def _leave(self, cpu: int, mm: int) -> None:
        """No user access of this CPU goes through the mm's translations from here on."""
        self._users[mm] = self._users.get(mm, 0) & ~(1 << cpu)
        self._joining[cpu] = 0
        self._drop(cpu, mm, anyway=True)

    def tells_users(self, word: str) -> bool:
        """It says which CPUs use an mm."""
        return word.startswith(_CPUMASK) or any(
            word in words
            for words in (
                self._lazy_words,
                self._loaded_words,
                self._preempted_words,
                self._flushing_words,
            )
        )

    def _or(self, cpu: int, operation: ops.AtomicOr, answer: int) -> None:
        if operation.word.startswith(_CPUMASK) and operation.mask >> cpu & 1:
            self._joining[cpu] = int(operation.word[len(_CPUMASK) :])

    def _and(self, cpu: int, operation: ops.AtomicAnd, answer: int) -> None:
        if operation.word.startswith(_CPUMASK) and not operation.mask >> cpu & 1:
            self._leave(cpu, int(operation.word[len(_CPUMASK) :]))

    def _noted(self, cpu: int, operation: ops.AtomicCmpxchg, answer: int) -> None:
        """A virtual CPU that does not run is told to flush first: it has none of what is known here."""
        other = self._preempted_words.get(operation.word)
        if other is None or answer != operation.old or not operation.new & KVM_VCPU_FLUSH_TLB:
            return
        known = self.known(cpu)
        for at, retired in enumerate(self.retired):
            if retired.holders >> other & 1 and known >> at * self._width & 1:
                self.before.now[cpu] |= self._bit(at, other)

    def _store(self, cpu: int, operation: ops.Store, answer: Any) -> None:
        if self._lazy_words.get(operation.word) == cpu:
            if operation.value:
                self._leave(cpu, self._loaded[cpu])
            else:
                self._joining[cpu] = self._loaded[cpu]
        elif self._loaded_words.get(operation.word) == cpu and operation.value == LOADED_MM_SWITCHING:
            self._leave(cpu, self._loaded[cpu])
            self._joining[cpu] = _ANY
        elif self._flushing_words.get(operation.word) == cpu and operation.value:
            self._stop(cpu)

    def _load(self, cpu: int, operation: ops.Load, answer: Any) -> None:
        """A CPU reads one of the words that decide whether it flushes, or whom it asks to.

        What is carried out only because of a value comes after the load of it even where a plain load orders
        nothing: later stores (RVWMO, preserved program order rule 11), and a flush, which orders what the
        hart sees already (SFENCE.VMA) and is not executed ahead of the branch that leads to it. Later loads
        do need a barrier, and so does a flush that comes in any case.
        """
        word = operation.word
        if word.startswith(_GLOBAL_ASID) and self._switches_to(cpu, int(word[len(_GLOBAL_ASID) :])):
            self._found[cpu] = answer
        decides = (
            word.startswith((TLB_GEN, _CPUMASK))
            or word in self._lazy_words
            or word in self._loaded_words
            # A TLBI comes after what its execution depends on (herd's aarch64hwreqs.cat: ctrl; [TLBI]).
            or (self._by_loading and word.startswith(_BATCHED))
        )
        if answer is None or not decides:
            return
        told = self.before.carried_by(word)
        self._decided[cpu] |= told
        if not word.startswith(TLB_GEN):
            return
        mm = int(operation.word[len(TLB_GEN) :])
        if self._joining[cpu] not in (mm, _ANY) or not mm:
            return
        # From here on it relies on being interrupted: also for changes made before, of which the generation
        # does not tell it yet, because it may have kept their translations from an earlier stay. (What
        # it held when it left counts as dropped even so; a stale access after that is coherence's to see.)
        self._joining[cpu] = 0
        self._users[mm] = self._users.get(mm, 0) | 1 << cpu
        for at, retired in enumerate(self.retired):
            if retired.mm == mm and not told >> at * self._width & 1:
                self.replace(at, holders=retired.holders | 1 << cpu)

    def _switches_to(self, cpu: int, mm: int) -> bool:
        """It is a user of the mm already, and has not loaded it yet."""
        return self._loaded[cpu] != mm and bool(self._users.get(mm, 0) >> cpu & 1)

    # --- the whole as a value --------------------------------------------------------------------

    def state(self) -> tuple[Any, ...]:
        """All of it, what CPUs know included, as a hashable value."""
        return (
            self.before.state(),
            tuple(self.retired),
            frozenset([item for item in self._users.items() if item[1]]),
            tuple(self._loaded),
            tuple(self._pcids),
            tuple(self._found),
            tuple(self._joining),
            frozenset(self._under_way.items()),
            tuple([bits & ~now for bits, now in zip(self._decided, self.before.now, strict=True)]),
        )

    def restore(self, state: tuple[Any, ...]) -> None:
        """Put back what `state` answered."""
        before, retired, users, loaded, pcids, found, joining, under_way, decided = state
        self.before.restore(before)
        self.retired = list(retired)
        self._users = dict(users)
        self._loaded = list(loaded)
        self._pcids = list(pcids)
        self._found = list(found)
        self._joining = list(joining)
        self._under_way = dict(under_way)
        self._decided = list(decided)
