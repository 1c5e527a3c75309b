"""x86 whose munmap and madvise have others flush later (LATR: Lazy Translation Coherence, ASPLOS 2018).

Kumar, Maass and others; sslab-gatech/latr, on Linux 4.10. Who gives pages up flushes its own TLB, saves a
*state* (what, and which CPUs) in an array of its own, and returns. At every tick of the scheduler and before
every switch a CPU sweeps the arrays of all CPUs, flushes for states that name it and takes itself out. Frames
and the range are given back when two ticks have gone by, which is when everybody has swept: nobody looks at
states for that. If the array is full, CPUs are interrupted as on x86, and so they are for all other changes.

Departures: "two ticks have gone by" is here that every CPU of the state has ticked twice, which ticks of the
same length mean, and CPUs tick every so many accesses. A CPU that stops its tick is interrupted
(`stop_tick`): 4.10 as patched has no such CPU. AutoNUMA's unmapping, which LATR makes lazy as well, is not;
nor are gathers that free page tables.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from emulator.hardware.operations import (
    AtomicAdd,
    AtomicAnd,
    FolioPut,
    Load,
    LocalIrqDisable,
    LocalIrqEnable,
    Series,
    SmpMb,
    SmpWmb,
    Store,
)
from emulator.kernel.mmu.x86 import X86
from emulator.kernel.mmu_gather import MmuGather
from emulator.kernel.percpu import PerCpu, cpumask_word, is_lazy_word
from emulator.kernel.smp import cpus_of
from emulator.kernel.tlb import TLB_FLUSH_ALL, FlushTlbInfo

SAVED: Final = "latr_states_saved"
"""Counter: per flush that was left to the sweeps of others."""
FULL: Final = "latr_fallback_ipis"
"""Counter: per flush for which there was no free state."""
GIVEN_BACK: Final = "latr_given_back"
"""Counter: per lazy free that has come to its end."""
MOST_KEPT: Final = "latr_pages_kept"
"""Counter: per page that a CPU keeps more than ever before; of all CPUs, what they keep at most."""
TICKS: Final = 2
"""After so many ticks of every CPU all have swept."""


def live_word(cpu: int) -> str:
    """Which states of a CPU's array are in use, one bit each; written by that CPU."""
    return f"latr_live.{cpu}"


def state_word(cpu: int, slot: int, field: str) -> str:
    """A field of a state: its mm, its pages from `start` to `end`, the generation, and the CPUs that have yet
    to flush (`mask`)."""
    return f"latr_state.{cpu}.{slot}.{field}"


def ticks_word(cpu: int) -> str:
    """How many ticks a CPU has had: what jiffies are to each."""
    return f"latr_ticks.{cpu}"


def tick_stopped_word(cpu: int) -> str:
    """tick_stopped of a CPU (nohz_full): it runs user code and has no ticks."""
    return f"tick_stopped.{cpu}"


def kept_word(mm: int, vpn: int) -> str:
    """The page is in a range that is kept until it is given back: whether a new area may lie there."""
    return f"latr_kept.{mm}.{vpn}"


class Kept(NamedTuple):
    """Frames and a range [start, end) of `mm` that wait, for `age` ticks of this CPU by now, for those of the
    CPUs of `mask`, which had had `ticks` at its first one."""

    mm: int
    folios: tuple[int, ...]
    mask: int
    start: int = 0
    end: int = 0
    age: int = 0
    ticks: tuple[int, ...] = ()


class Latr(X86):
    """As x86, but for frames and ranges that are given up; what waits is in the CPU's own object."""

    name = "latr"
    description = (
        "as x86; munmap and madvise leave flushes to the others' next tick or switch (LATR, ASPLOS'18)"
    )
    frees_lazily = True

    def __init__(self) -> None:
        self.live = 0  # as the CPU's word
        self.lazily = False
        self.saved = 0
        self.kept: tuple[Kept, ...] = ()

    # --- giving up ---------------------------------------------------------------------------------------

    async def flush_zapped(self, cpu: PerCpu, tlb: MmuGather) -> None:
        """tlb_flush_mmu: flush lazily, and keep the frames until that is done."""
        self.lazily, self.saved = True, 0
        await super().flush_zapped(cpu, tlb)
        self.lazily = False
        if self.saved:
            tlb.put_off = True
            folios, tlb.folios = tuple(tlb.folios), []
            await self.keep(cpu, Kept(tlb.mm, folios, self.saved))

    async def keep(self, cpu: PerCpu, kept: Kept) -> None:
        """update_lazy_list."""
        self.kept += (kept,)
        pages = sum(len(one.folios) for one in self.kept)
        cpu.count_most(MOST_KEPT, pages)

    async def keep_range(self, cpu: PerCpu, mm: int, start: int, end: int) -> None:
        """munmap is through with [start, end): no other area is put there before the frames are free."""
        if not self.kept:
            return
        last = self.kept[-1]
        self.kept = (*self.kept[:-1], last._replace(start=start, end=end))
        for vpn in range(start, end):
            await Store(kept_word(mm, vpn), 1)

    async def range_is_kept(self, cpu: PerCpu, mm: int, start: int, end: int) -> bool:
        """get_unmapped_area finds the old area still there."""
        found = await Series(tuple([Load(kept_word(mm, vpn)) for vpn in range(start, end)]))
        return any(found)

    async def flush_users(self, cpu: PerCpu, info: FlushTlbInfo, freed_tables: bool) -> None:
        """native_flush_tlb_others: save a state instead of interrupting, for what is given up."""
        mm = info.mm
        if not self.lazily or freed_tables:
            await super().flush_users(cpu, info, freed_tables)
            return
        others = await Load(cpumask_word(mm)) & ~cpu.bit
        if others and not await self.save_state(cpu, others, info):
            await self.fall_back(cpu, info)
            return
        if cpu.tlbstate.loaded_mm == mm:
            await LocalIrqDisable()
            await self.flush_tlb_func(cpu, info)
            await LocalIrqEnable()
        if others:
            cpu.count(SAVED)
            self.saved = others
            await self.interrupt_tickless(cpu, others, info)

    async def fall_back(self, cpu: PerCpu, info: FlushTlbInfo) -> None:
        """native_flush_tlb_others: "No free entries available", so interrupt."""
        cpu.count(FULL)
        await super().flush_users(cpu, info, False)

    async def save_state(self, cpu: PerCpu, mask: int, info: FlushTlbInfo) -> bool:
        """native_flush_save_state: false if all states are in use, as far as this CPU's last sweep knows."""
        slot = self.free_slot(cpu)
        if slot < 0:
            return False
        number = cpu.number
        fields = {"mm": info.mm, "start": info.start, "end": info.end, "gen": info.new_tlb_gen, "mask": mask}
        await Series(tuple([Store(state_word(number, slot, one), value) for one, value in fields.items()]))
        await SmpWmb()
        self.live |= 1 << slot
        await Store(live_word(number), self.live)
        return True

    def free_slot(self, cpu: PerCpu) -> int:
        """The first state that is not in use, -1 if there is none."""
        return next((one for one in range(cpu.parameters.latr_states) if not self.live >> one & 1), -1)

    async def interrupt_tickless(self, cpu: PerCpu, others: int, info: FlushTlbInfo) -> None:
        """Who has stopped its tick before it could see the state is interrupted; who does so later sweeps."""
        await SmpMb()
        stopped = await Series(tuple([Load(tick_stopped_word(other)) for other in cpus_of(others)]))
        mask = sum(1 << other for other, flag in zip(cpus_of(others), stopped, strict=True) if flag)
        if mask:
            await self.flush_tlb_multi(cpu, mask, info, False)

    # --- sweeping ----------------------------------------------------------------------------------------

    async def sweep(self, cpu: PerCpu) -> None:
        """native_flush_saved_states, with interrupts off: flush for every state that names this CPU."""
        cpus = cpus_of(cpu.parameters.all_cpus & ~cpu.parameters.beside)
        live = await Series(tuple([Load(live_word(other)) for other in cpus]))
        for other, bits in zip(cpus, live, strict=True):
            for slot in cpus_of(bits):
                mask = await Load(state_word(other, slot, "mask"))
                if other == cpu.number and not mask:
                    self.live &= ~(1 << slot)
                elif mask & cpu.bit:
                    await self.flush_state(cpu, other, slot)
        if live[cpus.index(cpu.number)] != self.live:
            await Store(live_word(cpu.number), self.live)

    async def flush_state(self, cpu: PerCpu, other: int, slot: int) -> None:
        """flush_tlb_func of what a state says, then out of its mask; who is the last makes it free."""
        fields = tuple([Load(state_word(other, slot, one)) for one in ("mm", "start", "end", "gen")])
        mm, start, end, gen = await Series(fields)
        if mm == cpu.tlbstate.loaded_mm:
            await self.flush_tlb_func(cpu, FlushTlbInfo(mm, start, end, gen, cpu.number))
        await AtomicAnd(state_word(other, slot, "mask"), cpu.parameters.all_cpus ^ cpu.bit)

    async def tick(self, cpu: PerCpu) -> None:
        """scheduler_tick, an interrupt: sweep, then give back what has waited long enough."""
        await LocalIrqDisable()
        await self.sweep(cpu)
        await AtomicAdd(ticks_word(cpu.number), 1)
        await LocalIrqEnable()
        if self.kept:
            await self.give_back(cpu)

    async def stop_tick(self, cpu: PerCpu) -> None:
        """tick_nohz_stop_tick: from here on others interrupt; what they have saved before is flushed for."""
        await LocalIrqDisable()
        await Store(tick_stopped_word(cpu.number), 1)
        await SmpMb()
        await self.sweep(cpu)
        await LocalIrqEnable()

    # --- giving back -------------------------------------------------------------------------------------

    async def give_back(self, cpu: PerCpu) -> None:
        """background_lazy_memory: frames and ranges whose two ticks are over, in the order of time."""
        left: tuple[Kept, ...] = ()
        waiting, self.kept = self.kept, ()
        for one in waiting:
            kept = one._replace(age=one.age + 1)
            others = cpus_of(kept.mask)
            if kept.age == 1:
                now = await Series(tuple([Load(ticks_word(other)) for other in others]))
                left += (kept._replace(ticks=tuple(now)),)
            elif await self.is_over(cpu, kept):
                await self.free(cpu, kept)
            else:
                left += (kept,)
        self.kept = left + self.kept

    async def is_over(self, cpu: PerCpu, kept: Kept) -> bool:
        """Two ticks of everybody have gone by. Who is lazy or has no ticks has none to wait for."""
        for other, before in zip(cpus_of(kept.mask), kept.ticks, strict=True):
            if await Load(tick_stopped_word(other)) or await Load(is_lazy_word(other)):
                continue
            if await Load(ticks_word(other)) < before + TICKS:
                return False
        return True

    async def free(self, cpu: PerCpu, kept: Kept) -> None:
        """lazy_free_pages, lazy_remove_vma_list."""
        for pfn in kept.folios:
            await FolioPut(pfn)
        for vpn in range(kept.start, kept.end):
            await Store(kept_word(kept.mm, vpn), 0)
        cpu.count(GIVEN_BACK)

    async def finish(self, cpu: PerCpu) -> None:
        """The CPU has no ticks any more. What still waits here is flushed for at once (__mmput: `force`)."""
        await self.stop_tick(cpu)
        waiting, self.kept = self.kept, ()
        for mm in dict.fromkeys(kept.mm for kept in waiting):
            await self.flush_tlb_mm_range(cpu, mm, 0, TLB_FLUSH_ALL, True, 1)
        for kept in waiting:
            await self.free(cpu, kept)
