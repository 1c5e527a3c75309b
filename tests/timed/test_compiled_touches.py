"""User accesses on the compiled side beside the reference in Python: the same ns, counters and TLBs."""

from __future__ import annotations

from hashlib import sha256
from importlib.resources import files
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emulator.checks.coherence import FILL, Coherence
from emulator.checks.onlooker import Check, takes_walks_together
from emulator.hardware.operations import (
    AllocPages,
    AtomicAdd,
    FlushTlb,
    FolioPut,
    LocalIrqDisable,
    LocalIrqEnable,
    SetPte,
    SmpMb,
    Touch,
    Walk,
)
from emulator.hardware.pte import ACCESSED, DIRTY, PRESENT, PSE, RW, mk_pte
from emulator.hardware.refills import CountingTlb
from emulator.hardware.tlb import TlbShape, TouchPrice
from emulator.measure.costs import Costs
from emulator.memory.memory import Memory
from emulator.timed.compiled.compiled_tlb import CompiledTlb
from emulator.timed.compiled.touches import Touches, fits
from emulator.timed.engine import TimedEngine
from scenarios.workloads.workload_file import load_workload
from tests.timed.test_engine import COSTS, PROGRAMS, engine_for, everything, program_of, small
from tests.timed.timed_lab import Lab

pytest.importorskip("wasmtime")

SHAPES = st.sampled_from([TlbShape(4, 2, 8, 2), TlbShape(4, 4, 8, 1), TlbShape(2, 1, 12, 3)])
PMD_ORDER = 3
PRICE = TouchPrice(3, 7, 2, 100 << 12)

PCIDS = st.integers(1, 2)
PAGES = st.integers(0, 40)
ENTRIES = st.sampled_from(
    [
        mk_pte(pfn, PRESENT | ACCESSED | flags)
        for pfn in (90, 110)
        for flags in (0, RW, RW | DIRTY, PSE | RW | DIRTY)
    ]
)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("insert"), PCIDS, PAGES, ENTRIES),
        st.tuples(st.just("lookup"), PCIDS, PAGES),
        st.tuples(st.sampled_from(["flush_one", "fault", "peek"]), PCIDS, PAGES),
        st.tuples(st.just("flush_pcid"), PCIDS, PCIDS),
        st.tuples(st.just("touch_for"), PCIDS, st.lists(st.integers(0, 80)), st.integers(1, 40)),
        st.tuples(st.just("touch"), PCIDS, st.lists(st.integers(0, 80))),
        st.tuples(st.just("flush_all")),
    ),
    max_size=60,
)


@given(SHAPES, STEPS)
def test_a_compiled_tlb_is_a_tlb(shape: TlbShape, steps: list[tuple[Any, ...]]) -> None:
    counted: dict[str, int] = {}
    counters: dict[str, int] = {}
    touches = Touches(2, shape, PMD_ORDER, PRICE, 100, 0, True)
    tlb = CountingTlb(shape, counted, PMD_ORDER)
    compiled = CompiledTlb(touches, 1, shape, counters, PMD_ORDER)
    for name, *arguments in steps:
        answers = []
        for one in (tlb, compiled):
            if name.startswith("touch"):
                pcid, accesses, *budget = arguments
                rest = (*budget, PRICE) if budget else ()
                answers.append(getattr(one, name)(pcid, accesses, 0, len(accesses), *rest))
            else:
                answers.append(getattr(one, name)(*arguments))
        assert answers[0] == answers[1]
        assert compiled.state() == tlb.state()
    compiled.settle()
    assert counters == counted
    assert list(compiled.entries()) == list(tlb.entries())
    assert touches.ways(0, True, 1) == [((1 << 64) - 1, 0)]  # another CPU's


@given(PROGRAMS, COSTS, st.booleans())
def test_programs_that_interrupt_each_other_come_out_the_same(
    programs: list[list[tuple[str, int]]], costs: Costs, lookahead: bool
) -> None:
    outcomes = []
    for compiled in (False, True):
        log: list[tuple[Any, ...]] = []
        lab = Lab([program_of(steps, len(programs), log) for steps in programs], TlbShape(4, 2, 8, 2))
        engine = TimedEngine(lab, costs, lookahead=lookahead, compiled=compiled)
        outcomes.append((everything(engine), sorted(log, key=lambda line: line[0])))
        assert type(engine.cpus[0].tlb).__name__ == ("CompiledTlb" if compiled else "Tlb")
    assert outcomes[0] == outcomes[1]


@pytest.mark.parametrize(
    ("name", "policy", "cpus", "seed", "overrides"),
    [
        ("tiering", "immediate", 4, 0, ()),
        ("tiering", "migrc:rfc2", 3, 1, ("threads.per_cpu=2", "threads.processes=2")),
        ("tiering", "migrc", 2, 2, ("kernel.pcid=false", "threads.per_cpu=2", "threads.processes=2")),
        ("tiering", "migrc:v9", 1, 3, ("costs.sockets=1", "tlb.l1_entries=8", "tlb.l2_entries=48")),
        ("huge-pages", "migrc:v3", 4, 4, ("threads.accesses=4000",)),
        ("full-flushes", "immediate", 4, 5, ("threads.accesses=3000",)),
        ("write-heavy", "migrc", 4, 6, ("threads.accesses=3000",)),
    ],
)
def test_workloads_come_out_the_same(
    name: str, policy: str, cpus: int, seed: int, overrides: tuple[str, ...]
) -> None:
    workload = small(*overrides) if name == "tiering" else load_workload(name, overrides)
    slow = everything(engine_for(workload, policy, cpus, seed, compiled=False))
    engine = engine_for(workload, policy, cpus, seed)
    assert everything(engine) == slow
    assert isinstance(engine.cpus[0].tlb, CompiledTlb)
    assert sum(cpu.walks for cpu in engine.cpus) > 100


def test_a_mistake_breaks_the_same_rules() -> None:
    workload = small(
        "threads.write_share=0.1",
        "threads.drift_every=200",
        "kernel.numa_scan_period_accesses=300",
        "checks.sample_every=1",
    )
    found = [
        everything(engine_for(workload, "mistake:interrupt-to-nobody", 4, compiled=compiled))
        for compiled in (False, True)
    ]
    assert found[0] == found[1]
    assert found[0]["violations"]


def test_a_walk_that_finds_a_free_frame_is_shown_to_the_checks() -> None:
    class Checked(Lab):
        def checks(self, memory: Memory) -> list[Any]:
            return [Coherence(memory)]

    async def program(cpu: Any) -> None:
        pfn = await AllocPages(0, 0, 0, 0)
        await SetPte(1, 5, mk_pte(pfn, PRESENT | ACCESSED))
        for free in (False, True):
            if free:
                await FolioPut(pfn)
            await FlushTlb()
            assert await Touch([10] * 50, 0, 50) == 50

    found = [
        everything(TimedEngine(Checked([program], TlbShape()), Costs(), compiled=compiled))
        for compiled in (False, True)
    ]
    assert found[0] == found[1]
    assert [violation.rule for violation in found[0]["violations"]] == [FILL]
    assert found[0]["state"]


def test_a_check_that_wants_every_walk_sees_it() -> None:
    class Counts(Check):
        walks = 0

        def observe(self, cpu: int, operation: Any, answer: Any) -> None:
            self.walks += type(operation) is Walk and answer != 0

    seen = []
    for compiled in (False, True):
        engine = engine_for(small(), "immediate", 2, compiled=compiled)
        counts = Counts()
        assert not takes_walks_together(counts)
        assert all(map(takes_walks_together, engine.checks))
        engine.checks.append(counts)
        result = engine.run()
        assert counts.walks > 100
        seen.append((counts.walks, result.memory, result.cpus))
    assert seen[0] == seen[1]


def test_a_walk_finds_the_entry_as_it_is_now() -> None:
    async def program(cpu: Any) -> None:
        pfn = await AllocPages(0, 0, 0, 0)
        for entry, hits in ((PRESENT | ACCESSED, 5), (0, 0), (PRESENT | ACCESSED, 5), (ACCESSED, 0)):
            await SetPte(1, 5, mk_pte(pfn, entry) if entry else 0)
            await FlushTlb()
            assert await Touch([10] * 5, 0, 5) == hits

    found = [
        everything(TimedEngine(Lab([program], TlbShape()), Costs(), compiled=compiled))
        for compiled in (False, True)
    ]
    assert found[0] == found[1]


def test_a_list_may_be_filled_anew_and_is_not_read_beyond_its_end() -> None:
    async def program(cpu: Any) -> None:
        await SmpMb()
        cpu.tlb.insert(1, 5, mk_pte(7, PRESENT | ACCESSED))
        accesses = [10] * 5
        assert await Touch(accesses, 0, 5) == 5
        accesses[2] = 14
        assert await Touch(accesses, 0, 5) == 2
        await Touch([10] * 5, 3, 6)

    for compiled in (False, True):
        with pytest.raises(IndexError):
            TimedEngine(Lab([program], TlbShape()), Costs(), compiled=compiled).run()


def test_a_run_may_last_for_months() -> None:
    async def program(cpu: Any) -> None:
        await SmpMb()
        cpu.tlb.insert(1, 5, mk_pte(7, PRESENT | ACCESSED))
        for _ in range(8):
            each = 500 - 70 * cpu.number
            assert await Touch([10] * each, 0, each) == each
            order.append((cpu.number, await AtomicAdd("x", 1)))

    found = []
    orders: list[list[tuple[int, int]]] = []
    for compiled in (False, True):
        orders.append(order := [])
        engine = TimedEngine(Lab([program] * 3, TlbShape()), Costs(fast_ns=10**14), compiled=compiled)
        found.append(everything(engine))
    assert found[0] == found[1]
    assert orders[0] == orders[1]
    assert found[0]["elapsed_ns"] > 1 << 54


def test_touches_with_interrupts_off_are_made_in_python() -> None:
    async def program(cpu: Any) -> None:
        await SmpMb()
        cpu.tlb.insert(1, 5, mk_pte(7, PRESENT | ACCESSED))
        await LocalIrqDisable()
        assert await Touch([10] * 50, 0, 50) == 50
        await LocalIrqEnable()
        assert await Touch([10] * 50, 0, 50) == 50
        await FlushTlb()

    found = [
        everything(TimedEngine(Lab([program], TlbShape()), Costs(), compiled=compiled))
        for compiled in (False, True)
    ]
    assert found[0] == found[1]


def test_what_does_not_fit_stays_in_python() -> None:
    class Own(CountingTlb):
        pass

    shape = TlbShape(4, 2, 8, 2)
    assert fits(shape, [CountingTlb(shape, {})])
    assert not fits(shape, [Own(shape, {})])
    more_sets_in_front = TlbShape(8, 1, 8, 4)
    assert not fits(more_sets_in_front, [CountingTlb(more_sets_in_front, {})])
    full = CountingTlb(shape, {})
    full.insert(1, 1, mk_pte(1, PRESENT))
    assert not fits(shape, [full])


def test_what_is_shipped_was_made_from_this_source() -> None:
    folder = files("emulator.timed.compiled")
    source = b"".join(folder.joinpath(name).read_bytes() for name in ("caches.c", "touches.c"))
    assert folder.joinpath("touches.source").read_text().strip() == sha256(source).hexdigest(), (
        "the C files have changed: run emulator/timed/compiled/build-touches"
    )
