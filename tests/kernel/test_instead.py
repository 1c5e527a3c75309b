"""A policy's own method where the kernel calls a function of its own: there, and nowhere else."""

from __future__ import annotations

from contextlib import closing
from typing import Any

import pytest

from emulator.explore.exhaustive import exhaust
from emulator.explore.learned import LearnedMachine
from emulator.explore.search import Limits, search
from emulator.explore.strategies import find_strategy
from emulator.hardware.operations import Load, Lock, Series, Unlock, XchgPte
from emulator.hardware.ordering import ARCHITECTURES
from emulator.kernel import mremap, rmap
from emulator.kernel.instead import WrongCall, instead_of, kernel_function, kernels_own
from emulator.kernel.mmu_gather import (
    MmuGather,
    tlb_finish_mmu,
    tlb_gather_mmu,
    zap_present_ptes,
    zap_pte_range,
)
from emulator.kernel.mprotect import pte_needs_flush
from emulator.kernel.mremap import move_ptes, mremap_to
from emulator.kernel.percpu import PerCpu
from emulator.kernel.rmap import flush_tlb_batched_pending
from emulator.kernel.tlb import flush_tlb_range
from emulator.machine.litmus import MM, Litmus, LitmusMachine
from emulator.machine.referee import Referee
from emulator.policies.immediate import Immediate
from scenarios.litmus.answers import never
from scenarios.litmus.starts import PAGE, pages
from scenarios.litmus.steps import bystander, call, read_if_cached

NEW = PAGE + 0x200
MOVES = call(mremap_to, MM, PAGE, NEW, 1)


class Kept(LitmusMachine):
    """Keeps the kernels that it makes."""

    kernels: list[PerCpu]

    def kernel(self, number: int) -> PerCpu:
        made = super().kernel(number)
        self.kernels = [*getattr(self, "kernels", []), made]
        return made


def counted(policy: type[Immediate], *names: str) -> list[int]:
    """How often a policy counted these in one run of mremap."""
    test = Litmus("t", "?", (MOVES, bystander), pages(PAGE), (never("immediate"),))
    machine = Kept(test, ARCHITECTURES["sc"], policy)
    tally = search(Referee(machine), find_strategy("random")(), 1, Limits(1), lambda: False)
    assert tally.violation is None
    return [sum(kernel.vmstat.get(name, 0) for kernel in machine.kernels[-2:]) for name in names]


class Everywhere(Immediate):
    @instead_of(flush_tlb_batched_pending)
    async def asked(self, cpu: PerCpu, mm: int) -> None:
        cpu.count("asked")
        await flush_tlb_batched_pending(cpu, mm)


class InMovePtes(Immediate):
    @instead_of(flush_tlb_batched_pending, within=move_ptes)
    async def asked(self, cpu: PerCpu, mm: int) -> None:
        cpu.count("asked")


class InZap(Immediate):
    @instead_of(flush_tlb_batched_pending, within=zap_pte_range)
    async def asked(self, cpu: PerCpu, mm: int) -> None:
        cpu.count("asked")


class Both(InMovePtes):
    async def asked(self, cpu: PerCpu, mm: int) -> None:
        cpu.count("there")

    @instead_of(flush_tlb_batched_pending)
    async def elsewhere(self, cpu: PerCpu, mm: int) -> None:
        cpu.count("elsewhere")


class WithoutACpu(Immediate):
    """A function of the kernel that does not take its CPU: it is that of whoever calls."""

    begun = 0

    @instead_of(tlb_gather_mmu)
    async def begins(self, mm: int, fullmm: bool = False) -> MmuGather:
        self.begun += 1
        return await tlb_gather_mmu(mm, fullmm)

    @instead_of(tlb_finish_mmu)
    async def finish(self, cpu: PerCpu, tlb: MmuGather) -> None:
        cpu.count("begun", self.begun)
        self.begun = 0
        await tlb_finish_mmu(cpu, tlb)


def test_wherever_it_is_called() -> None:
    assert counted(Everywhere, "asked") == [1]


def test_only_where_it_is_called() -> None:
    assert counted(InMovePtes, "asked") == [1]
    assert counted(InZap, "asked") == [0]


def test_a_subclass_and_the_nearer_place_win() -> None:
    assert counted(Both, "asked", "there", "elsewhere") == [0, 1, 0]


def test_a_function_without_a_cpu() -> None:
    assert counted(WithoutACpu, "begun") == [1]


def test_the_kernels_own_is_what_others_get() -> None:
    assert counted(Everywhere, "asked") == [1]
    assert counted(Immediate, "asked") == [0]
    assert mremap.flush_tlb_batched_pending is rmap.flush_tlb_batched_pending
    assert kernels_own(mremap.flush_tlb_batched_pending) is kernels_own(flush_tlb_batched_pending)
    assert kernels_own(kernel_function(kernels_own(move_ptes))) is kernels_own(move_ptes)


def test_a_program_that_has_kept_the_function_gets_the_branch() -> None:
    class Whole(Immediate):
        @instead_of(mremap_to)
        async def moves(self, cpu: PerCpu, mm: int, old: int, new: int, pages: int) -> bool:
            cpu.count("moves")
            return await mremap_to(cpu, mm, old, new, pages)

    assert counted(Whole, "moves") == [1]


def test_an_operation_within_one_function() -> None:
    class Without(Immediate):
        @instead_of(Load, within=flush_tlb_batched_pending)
        async def loads(self, word: str) -> int:
            return await Load(word) + 1  # as if something were pending

    class With(Without):
        async def loads(self, word: str) -> int:
            return await Load(word)

    pending = "nr_tlb_remote_flush"
    assert counted(Without, pending)[0] == counted(With, pending)[0] + 1 == counted(Immediate, pending)[0] + 1


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((print,), r"instead_of\(print\): no function of the kernel"),
        ((flush_tlb_range, tlb_finish_mmu), "within=tlb_finish_mmu\\): it is not called there"),
        ((Unlock,), r"instead_of\(Unlock\): within which function"),
        ((Unlock, 3), "within is a function of the kernel"),
    ],
)
def test_what_is_not_there_is_refused(arguments: tuple[Any, ...], says: str) -> None:
    with pytest.raises(TypeError, match=says):
        instead_of(*arguments)


def test_async_stands_for_async() -> None:
    with pytest.raises(TypeError, match="not async, as pte_needs_flush is"):

        @instead_of(pte_needs_flush)
        async def wrong(self: Any, old: int, new: int) -> bool:
            return False


class InASeries(Immediate):
    @instead_of(Lock, within=move_ptes)
    async def locks(self, word: str) -> None:
        await Load("asked")
        await Lock(word)

    @instead_of(XchgPte, within=move_ptes)
    async def exchanges(self, mm: int, vpn: int, pte: int) -> int:
        return await XchgPte(mm, vpn, pte)


def test_a_member_of_a_series_is_replaced_and_every_interleaving_searched() -> None:
    test = Litmus("t", "?", (MOVES, call(read_if_cached)), pages(PAGE), (never("immediate"),))
    found = []
    for policy in (Immediate, InASeries):
        with closing(LearnedMachine(LitmusMachine(test, ARCHITECTURES["sc"], policy))) as explorer:
            done = exhaust(explorer, lambda: False)
            found.append((done.complete, done.violation is None, done.states))
    assert found[0][:2] == found[1][:2] == (True, True)
    assert found[1][2] > found[0][2]  # one Load more for each lock


def test_a_method_that_takes_other_arguments_is_told() -> None:
    with pytest.raises(TypeError, match=r"few takes .*; in the place of move_ptes it takes "):

        @instead_of(move_ptes)
        async def few(self: Any, cpu: PerCpu, mm: int) -> None:
            pass

    class Needed(Immediate):
        """mremap_to is called with what it has a default for."""

        @instead_of(mremap_to)
        async def moves(self, cpu: PerCpu, mm: int, old: int, new: int, pages: int) -> bool:
            return False

    moves = call(mremap_to, MM, PAGE, NEW, 1, 2)
    test = Litmus("t", "?", (moves, bystander), pages(PAGE), (never("immediate"),))
    machine = LitmusMachine(test, ARCHITECTURES["sc"], Needed)
    with pytest.raises(WrongCall, match=r"takes 6 .*; it is called as mremap_to") as told:
        search(Referee(machine), find_strategy("random")(), 1, Limits(1), lambda: False)
    assert told.value.place[0] == __file__ and told.value.place[2] == "moves"


def test_a_series_can_be_replaced_beside_its_members() -> None:
    class Whole(InASeries):
        @instead_of(Series, within=move_ptes)
        async def several(self, members: Any) -> list[Any]:
            return [await one for one in members]

    for policy in (InASeries, Whole, InASeries):
        assert counted(policy, "asked") == [0]


def test_a_method_in_the_place_of_an_operation_may_ask_for_the_cpu() -> None:
    class Asks(Immediate):
        @instead_of(XchgPte, within=move_ptes)
        async def exchanges(self, cpu: PerCpu, mm: int, vpn: int, pte: int) -> int:
            cpu.count(f"on_{cpu.number}")
            return await XchgPte(mm, vpn, pte)

    assert counted(Asks, "on_0", "on_1") == [2, 0]


def test_a_method_of_a_class_of_the_kernel_is_replaced() -> None:
    class Unnoted(Immediate):
        @instead_of(MmuGather.adjust_range, within=zap_present_ptes)
        def notes(self, tlb: MmuGather, start: int, pages: int, stride: int) -> None:
            tlb.adjust_range(start, pages, stride)

    assert counted(Unnoted, "nr_tlb_remote_flush") == counted(Immediate, "nr_tlb_remote_flush")
