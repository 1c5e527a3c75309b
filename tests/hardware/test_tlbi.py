"""TLBI and DSB: who has dropped what when, and what orders it."""

from __future__ import annotations

from typing import Any

import pytest

from emulator.hardware.cpu import Cpu
from emulator.hardware.operations import (
    EVERYTHING,
    Dsb,
    DsbIshst,
    Invalidate,
    Load,
    LoadCr3,
    Order,
    SetPte,
    Store,
    Tlbi,
    WriteFrame,
    handlers_of,
)
from emulator.hardware.ordering import ARCHITECTURES, PendingLoad, Window
from emulator.hardware.pte import PRESENT, mk_pte
from emulator.hardware.tlb import TlbShape
from emulator.hardware.walker_cache import WalkerTlb
from emulator.memory.blocked import BLOCKED
from emulator.memory.words import Words

ARM64 = ARCHITECTURES["arm64"]
SHAPE = TlbShape(16, 4, 16, 4)
BOTH = 0b11


def do(words: Words, cpu: int, operation: Any) -> Any:
    return handlers_of(words)[type(operation)](cpu, operation)


def of_page(sender: int, vpn: int, mask: int = BOTH) -> Tlbi:
    return Tlbi(sender, mask, 7, 1, vpn, vpn + 1, 1, True)


def test_a_dsb_waits_for_its_own_cpus_tlbis_and_for_all_of_them() -> None:
    words = Words()
    do(words, 0, of_page(0, 16))
    do(words, 0, of_page(0, 17))
    assert do(words, 0, Dsb(0, BOTH)) is BLOCKED
    assert do(words, 1, Dsb(1, BOTH)) is None, "another's are no business of this one's"
    assert do(words, 0, Invalidate(0, 0))[2] == 16 and do(words, 0, Invalidate(0, 0))[2] == 17
    assert do(words, 0, Invalidate(0, 0)) is BLOCKED, "both done here"
    assert do(words, 0, Dsb(0, 0b01)) is None, "Non-shareable: this CPU has done them"
    assert do(words, 0, Dsb(0, BOTH)) is BLOCKED
    assert do(words, 1, Invalidate(0, 1))[2] == 16
    assert do(words, 0, Dsb(0, BOTH)) is BLOCKED
    assert do(words, 1, Invalidate(0, 1))[2] == 17
    assert do(words, 0, Dsb(0, BOTH)) is None


def test_one_of_this_cpu_alone_is_done_behind_those_before_it() -> None:
    words = Words()
    do(words, 0, of_page(0, 16))
    do(words, 0, of_page(0, 17, 0b01))
    assert [do(words, 0, Invalidate(0, 0))[2] for _ in range(2)] == [16, 17]
    assert do(words, 1, Invalidate(0, 1))[2] == 16
    assert do(words, 1, Invalidate(0, 1)) is BLOCKED and not words.under_way(0)


@pytest.mark.parametrize(
    ("pending", "order", "waits"),
    [
        (SetPte(1, 16, 0), Order.BROADCAST, False),
        (SetPte(1, 16, 0), Order.TLB, False),
        (SetPte(1, 16, 0), Order.DSB_ST, True),
        (PendingLoad(Load("a"), 0), Order.DSB_ST, False),
        (PendingLoad(Load("a"), 0), Order.MB, True),
    ],
)
def test_nothing_but_a_dsb_puts_stores_before_an_invalidation(
    pending: Any, order: Order, waits: bool
) -> None:
    window = Window(ARM64)
    window.pending.append(pending)
    assert window.blocks(order) is waits


def test_a_tlb_drops_nothing_before_what_users_stored_through_it_is_performed() -> None:
    cpu = Cpu(0, ARM64, SHAPE, lambda batch: None)  # type: ignore[arg-type,return-value]
    cpu.window.pending.append(Store("a", 1))
    assert cpu.may_invalidate(), "the kernel's own store is none of it"
    cpu.window.pending.append(WriteFrame(1, 16, 3, 5))
    assert not cpu.may_invalidate()


@pytest.mark.parametrize(("last_level", "left"), [(True, {16, 1040}), (False, {1040})])
def test_by_address_goes_what_walkers_have_of_that_address(last_level: bool, left: set[int]) -> None:
    cpu = Cpu(0, ARM64, SHAPE, lambda batch: None, walker_caches=True)  # type: ignore[arg-type,return-value]
    assert isinstance(cpu.tlb, WalkerTlb)
    for vpn in (16, 1040):
        cpu.tlb.insert(7, vpn, mk_pte(1, PRESENT))
        cpu.tlb.insert_pmd(7, vpn, 99)
    cpu.invalidate((7, 1, 16, 17, 1, last_level))
    assert [vpn for _, vpn, _ in cpu.tlb.entries()] == [1040]
    assert {vpn for vpn in (16, 1040) if cpu.tlb.pmd(7, vpn)} == left
    cpu.invalidate((EVERYTHING, 0, 0, -1, 1, False))
    assert not cpu.tlb.pmd(7, 1040) and not len(cpu.tlb)


def test_another_asid_keeps_its_entries() -> None:
    cpu = Cpu(0, ARM64, SHAPE, lambda batch: None)  # type: ignore[arg-type,return-value]
    for asid in (7, 8):
        cpu.tlb.insert(asid, 16, mk_pte(1, PRESENT))
    cpu.invalidate((7, 1, 0, -1, 1, False))
    assert [asid for asid, _, _ in cpu.tlb.entries()] == [8]
    cpu.carry_out(LoadCr3(1, 7, False))
    assert [asid for asid, _, _ in cpu.tlb.entries()] == [8], "switching flushes nothing"
    cpu.carry_out(DsbIshst())
