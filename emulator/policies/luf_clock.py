"""What LUF keeps: one clock, when each CPU has flushed last, and who owes flushes to whom.

Names of words and the arithmetic of `ugen` (mm/rmap.c and arch/x86/mm/tlb.c, the
posting is luf.py's). A struct luf_batch is one word: its lock lets nobody see one half without the other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from emulator.hardware.operations import AtomicAdd, AtomicCmpxchg, Load, Series, SmpMb
from emulator.kernel.policy import Policy
from emulator.kernel.smp import cpus_of

if TYPE_CHECKING:
    from emulator.kernel.percpu import PerCpu

LUF_UGEN: Final = "luf_ugen"  # numbers drawn, from LUF_UGEN_INIT on
LUF_KGEN: Final = "luf_kgen"
LUF_OWED: Final = "luf_owed"  # CPUs that anything was ever put off for, for `drain` only
NR_LUF_PAGES: Final = "nr_luf_pages."
LUF_UGEN_INIT: Final = 2
ZONE_UGEN_INIT: Final = 2
KEY_BITS: Final = 16
_UGEN_BITS: Final = 32  # 64 in the kernel; no run is that long


def ugen_done_word(cpu: int) -> str:
    """per_cpu(ugen_done, cpu); 0 stands for what it starts with, LUF_UGEN_INIT - 1."""
    return f"ugen_done.{cpu}"


class LufBatch(NamedTuple):
    """struct luf_batch: who may still use what was unmapped, and when that was last said."""

    cpus: int
    ugen: int

    @classmethod
    def of(cls, word: int) -> LufBatch:
        """What a word says."""
        return cls(word >> _UGEN_BITS, word & (1 << _UGEN_BITS) - 1)

    @property
    def word(self) -> int:
        """As it is stored."""
        return self.cpus << _UGEN_BITS | self.ugen


async def read_batch(word: str) -> LufBatch:
    """read_lock, both fields, read_unlock; what is read later is not read before."""
    return LufBatch.of(await AtomicAdd(word, 0))


def lock_of(batch: str) -> str:
    """luf_batch.lock."""
    return f"{batch}.lock"


def key_batch(key: int) -> str:
    """luf_batch[key]."""
    return f"luf_batch.{key}"


def mm_batch(mm: int) -> str:
    """mm->luf_batch."""
    return f"luf_mm.{mm}"


def mapping_batch(file: int) -> str:
    """mapping->luf_batch."""
    return f"luf_mapping.{file}"


def zone_word(node: int, field: str) -> str:
    """A field of struct zone: zone_ugen, zone_ugen_done, its lock, or zone_batch, which is with luf_ugen."""
    return f"zone.{node}.{field}"


class LufClock(Policy):
    """The clock and what goes by it; `bits` is the width of what a page keeps."""

    def __init__(self, bits: int = KEY_BITS) -> None:
        self.bits = bits

    async def new_luf_ugen(self) -> int:
        """new_luf_ugen: never one whose low 16 bits are 0."""
        ugen = LUF_UGEN_INIT + await AtomicAdd(LUF_UGEN, 1)
        if not ugen % (1 << self.bits):
            ugen = LUF_UGEN_INIT + await AtomicAdd(LUF_UGEN, 1)
        return ugen

    async def new_luf_key(self) -> int:
        """new_luf_key: a ring of 16 bits without 0."""
        key = (1 + await AtomicAdd(LUF_KGEN, 1)) % (1 << self.bits)
        return key or (1 + await AtomicAdd(LUF_KGEN, 1)) % (1 << self.bits)

    def next_ugen(self, ugen: int) -> int:
        """next_ugen."""
        return ugen + 1 if (ugen + 1) % (1 << self.bits) else ugen + 2

    def prev_ugen(self, ugen: int) -> int:
        """prev_ugen."""
        return ugen - 1 if (ugen - 1) % (1 << self.bits) else ugen - 2

    def page_zone_ugen(self, zone_ugen: int, stamp: int) -> int:
        """page_zone_ugen: what 16 bits of a page mean, the latest that is not after the zone's."""
        if not stamp:
            return 0
        found = zone_ugen >> self.bits << self.bits | stamp % (1 << self.bits)
        return found if found <= zone_ugen else found - (1 << self.bits)

    async def ugens_done(self, mask: int) -> list[tuple[int, int]]:
        """ugen_done of each CPU of the mask, as (CPU, ugen)."""
        cpus = cpus_of(mask)
        done = await Series(tuple([Load(ugen_done_word(one)) for one in cpus])) if cpus else ()
        return [(one, ugen or LUF_UGEN_INIT - 1) for one, ugen in zip(cpus, done, strict=True)]

    async def diet(self, cpu: PerCpu, mask: int, ugen: int) -> int:
        """arch_tlbbatch_diet: the CPUs that have not flushed since `ugen` was drawn; on arm64 none."""
        if cpu.mmu.shared_asids:
            return 0
        for one, done in await self.ugens_done(mask):
            if done >= ugen:
                mask &= ~(1 << one)
        return mask

    async def mark_ugen(self, mask: int, ugen: int) -> None:
        """tlb_flush_end, arch_tlbbatch_mark_ugen: these CPUs have flushed since `ugen` was drawn. Who loses
        the race leaves too small a number."""
        await SmpMb()
        for one, done in await self.ugens_done(mask):
            if done < ugen:
                old = 0 if done == LUF_UGEN_INIT - 1 else done
                await AtomicCmpxchg(ugen_done_word(one), old, ugen)
