"""What arm64 promises of walks, TLBI and DSB, and what it does not: small programs, all interleavings.

The shapes are message passing from a page-table change to a use of the page (herd's MP.RT family, in our own
words): each barrier is needed, and with all of them the old entry is not used.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest

from emulator.explore.exhaustive import exhaust
from emulator.explore.learned import LearnedMachine
from emulator.hardware.operations import (
    BeginLoad,
    Dsb,
    DsbIshst,
    EndLoad,
    Load,
    SetPte,
    SmpRmb,
    SmpWmb,
    Store,
    Tlbi,
    Translate,
    WaitFor,
)
from emulator.hardware.ordering import ARCHITECTURES
from emulator.kernel.mmu.arm64 import tag
from emulator.kernel.percpu import PerCpu
from emulator.kernel.smp import ipi_function, smp_call_function
from emulator.machine.litmus import MM, Forbidden, Litmus, LitmusMachine
from emulator.policies.immediate import Immediate
from scenarios.litmus.arm64 import (
    FLAG,
    OLD_TRANSLATION,
    old_translation,
    sees_and_reads,
    shoots_down,
)
from scenarios.litmus.starts import PAGE, pages

Step = Callable[[PerCpu], Awaitable[object]]


def broken(*programs: Step) -> bool:
    """The old entry can be used behind the flag."""
    litmus = Litmus(
        name="walks",
        question="",
        programs=programs,
        setup=pages(PAGE, cached=(1,)),
        expected=(),
        drain=False,
        frugal=False,
        speculated=(PAGE,),
        mmu="arm64",
    )
    found = exhaust(LearnedMachine(LitmusMachine(litmus, ARCHITECTURES["arm64"], Immediate)), all_rules=True)
    assert found.complete
    assert all(not rule.startswith("no permission") for rule in found.rules)
    return OLD_TRANSLATION in found.rules


def everybody(cpu: PerCpu) -> int:
    return cpu.parameters.all_cpus


async def tlbi(cpu: PerCpu, mask: int) -> None:
    await Tlbi(cpu.number, mask, tag(1), MM, PAGE, PAGE + 1, 1, True)


async def changes(cpu: PerCpu) -> None:
    """All barriers, as flush_tlb_page has them."""
    await SetPte(MM, PAGE, 0)
    await DsbIshst()
    await tlbi(cpu, everybody(cpu))
    await Dsb(cpu.number, everybody(cpu))
    await Store(FLAG, 1)


async def no_dsb_before(cpu: PerCpu) -> None:
    await SetPte(MM, PAGE, 0)
    await tlbi(cpu, everybody(cpu))
    await Dsb(cpu.number, everybody(cpu))
    await Store(FLAG, 1)


async def dmb_before(cpu: PerCpu) -> None:
    await SetPte(MM, PAGE, 0)
    await SmpWmb()
    await tlbi(cpu, everybody(cpu))
    await Dsb(cpu.number, everybody(cpu))
    await Store(FLAG, 1)


async def no_dsb_after(cpu: PerCpu) -> None:
    await SetPte(MM, PAGE, 0)
    await DsbIshst()
    await tlbi(cpu, everybody(cpu))
    await SmpWmb()
    await Store(FLAG, 1)


async def dsb_ishst_after(cpu: PerCpu) -> None:
    await SetPte(MM, PAGE, 0)
    await DsbIshst()
    await tlbi(cpu, everybody(cpu))
    await DsbIshst()
    await Store(FLAG, 1)


async def dsb_nsh_after(cpu: PerCpu) -> None:
    await SetPte(MM, PAGE, 0)
    await DsbIshst()
    await tlbi(cpu, everybody(cpu))
    await Dsb(cpu.number, cpu.bit)
    await Store(FLAG, 1)


async def not_broadcast(cpu: PerCpu) -> None:
    await SetPte(MM, PAGE, 0)
    await DsbIshst()
    await tlbi(cpu, cpu.bit)
    await Dsb(cpu.number, everybody(cpu))
    await Store(FLAG, 1)


async def issues(cpu: PerCpu) -> None:
    """The TLBI alone; CPU 2 is told and waits for it, in vain."""
    await SetPte(MM, PAGE, 0)
    await DsbIshst()
    await tlbi(cpu, everybody(cpu))
    await Store("issued", 1)


async def waits_for_it(cpu: PerCpu) -> None:
    await WaitFor("issued", 1)
    await Dsb(cpu.number, everybody(cpu))
    await Store(FLAG, 1)


@ipi_function
async def invalidate_unsynced(cpu: PerCpu, arguments: tuple[int, ...]) -> None:
    await tlbi(cpu, cpu.bit)


async def shoots_down_unsynced(cpu: PerCpu) -> None:
    await SetPte(MM, PAGE, 0)
    await Dsb(cpu.number, everybody(cpu))
    await smp_call_function(cpu, invalidate_unsynced)
    await Dsb(cpu.number, everybody(cpu))
    await Store(FLAG, 1)


async def reads_late(cpu: PerCpu) -> None:
    """Nothing keeps the read of the flag before the use of the page."""
    flag = await BeginLoad(Load(FLAG))
    entry = await Translate(PAGE, False)
    if await EndLoad(flag) and entry:
        raise Forbidden(OLD_TRANSLATION, "used before the flag was read")


async def reads_behind_dmb(cpu: PerCpu) -> None:
    flag = await BeginLoad(Load(FLAG))
    await SmpRmb()
    await old_translation(cpu, await EndLoad(flag))


@pytest.mark.parametrize(
    ("programs", "allowed"),
    [
        ((shoots_down, sees_and_reads), False),
        ((shoots_down_unsynced, reads_behind_dmb), True),
        ((shoots_down, reads_behind_dmb), False),
        ((shoots_down_unsynced, sees_and_reads), False),  # the reader's DSB is that of the issuer
        ((changes, sees_and_reads), False),
        ((no_dsb_before, sees_and_reads), True),
        ((dmb_before, sees_and_reads), True),
        ((no_dsb_after, sees_and_reads), True),
        ((dsb_ishst_after, sees_and_reads), True),
        ((dsb_nsh_after, sees_and_reads), True),
        ((not_broadcast, sees_and_reads), True),
        ((issues, sees_and_reads, waits_for_it), True),
        ((changes, reads_late), True),
        ((changes, reads_behind_dmb), False),
    ],
    ids=lambda value: "+".join(one.__name__ for one in value) if isinstance(value, tuple) else "",
)
def test_the_old_entry_is_used_where_a_barrier_is_missing(programs: tuple[Step, ...], allowed: bool) -> None:
    assert broken(*programs) is allowed
