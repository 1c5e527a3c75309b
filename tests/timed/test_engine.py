"""The order of time: running ahead changes nothing, and the same machine gives the same run to the ns."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from array import array
from dataclasses import asdict
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emulator.hardware.cpu import Cpu
from emulator.hardware.operations import (
    AtomicAdd,
    Cycle,
    FlushTlb,
    LocalIrqDisable,
    LocalIrqEnable,
    Lock,
    SendIpi,
    Touch,
    Translate,
    Unlock,
    WaitAcks,
    WaitFor,
)
from emulator.hardware.pte import ACCESSED, DIRTY, PRESENT, RW, mk_pte
from emulator.hardware.tlb import Tlb, TlbShape, TouchPrice
from emulator.measure.costs import Costs
from emulator.timed.engine import TimedEngine
from emulator.timed.result import TimedResult
from scenarios.subjects.policies import policy_factory
from scenarios.subjects.workload_machine import build_machine
from scenarios.workloads.settings import Workload
from scenarios.workloads.workload_file import load_workload
from tests.timed.timed_lab import Lab

ENTRY = PRESENT | RW | ACCESSED | DIRTY
PAGES = 8

# What a random program does next: the kind, and a number that it makes something of.
STEP = st.tuples(
    st.sampled_from(("touch", "call", "lock", "off", "word", "relax", "flush")), st.integers(0, 400)
)
PROGRAMS = st.lists(st.lists(STEP, max_size=12), min_size=2, max_size=4)
COSTS = st.builds(
    Costs,
    sockets=st.integers(1, 3),
    ipi_send_ns=st.integers(0, 40),
    ipi_deliver_ns=st.integers(0, 300),
    ipi_deliver_hop_ns=st.integers(0, 90),
    interrupt_ns=st.integers(0, 50),
    flush_ns=st.integers(0, 9),
    cache_misses_per_1000=st.integers(0, 40),
)


def program_of(steps: list[tuple[str, int]], cpus: int, log: list[tuple[Any, ...]]) -> Any:
    """User accesses, calls, locks and words; the log gets what the program sees."""

    async def program(cpu: Cpu) -> None:
        number = cpu.number
        for kind, amount in steps:
            if kind == "touch":
                # As user mode does it: accesses, and a fill of what is not cached.
                accesses = array("Q", [(at * 7 + amount) % PAGES << 1 for at in range(amount)])
                at = 0
                while at < amount:
                    at = await Touch(accesses, at, amount)
                    if at < amount:
                        page = accesses[at] >> 1
                        if not await Translate(page, False):
                            log.append((number, "miss", at))
                            cpu.tlb.insert(1, page, mk_pte(1 + page * 20, ENTRY))
                        at += 1
            elif kind == "call":
                others = tuple(other for other in range(cpus) if other != number and amount >> other & 1)
                await WaitAcks(await SendIpi(others, "flush", (), True))
            elif kind == "lock":
                await Lock("l")
                for _ in range(amount % 50):
                    await Cycle()
                await Unlock("l")
            elif kind == "off":
                await LocalIrqDisable()
                for _ in range(amount):
                    await Cycle()
                await LocalIrqEnable()
            elif kind == "word":
                log.append((number, "word", await AtomicAdd("x", 1)))
            elif kind == "flush":
                await FlushTlb()
            else:
                for _ in range(amount % 70):
                    await Cycle()
        # Nobody leaves while others may still call.
        await AtomicAdd("through", 1)
        await WaitFor("through", cpus)

    return program


def everything(engine: TimedEngine) -> dict[str, Any]:
    """All of a result, and what the TLBs hold."""
    result: TimedResult = engine.run()
    found = {name: getattr(result, name) for name in TimedResult.__slots__}
    for name in ("delivery", "handler", "round_trip"):
        found[name] = found[name].encode()
    return found | {"tlbs": [cpu.tlb.state() for cpu in engine.cpus], "state": engine.memory.state()}


@given(PROGRAMS, COSTS)
def test_running_ahead_changes_nothing(programs: list[list[tuple[str, int]]], costs: Costs) -> None:
    outcomes = []
    for lookahead in (True, False):
        log: list[tuple[Any, ...]] = []
        lab = Lab([program_of(steps, len(programs), log) for steps in programs], TlbShape(4, 2, 8, 2))
        found = everything(TimedEngine(lab, costs, lookahead=lookahead))
        # Each CPU's own story: two CPUs that run ahead may tell theirs in another order.
        outcomes.append((found, sorted(log, key=lambda line: line[0])))
        assert found["violations"] == []
    assert outcomes[0] == outcomes[1]


SMALL = (
    "threads.accesses=6000",
    "threads.table_pages=192",
    "threads.heap_pages=64",
    "threads.hot_pages=24",
    "threads.drift_every=500",
    "threads.drift_pages=16",
    "threads.hot_share=0.95",
    "memory.fast_pages=160",
    "memory.slow_pages=512",
    "memory.min_free_pages=24",
    "kernel.numa_scan_pages=128",
    "kernel.numa_scan_period_accesses=700",
    "checks.sample_every=50",
)


def small(*overrides: str) -> Workload:
    return load_workload("tiering", (*SMALL, *overrides))


def engine_for(workload: Workload, policy: str, cpus: int, seed: int = 0, **options: Any) -> TimedEngine:
    user = workload.user_space(cpus, seed, None)
    machine = build_machine(workload, cpus, "x86", policy_factory(policy), user)
    return TimedEngine(machine, workload.costs.prices(), **options)


@pytest.mark.parametrize("policy", ["immediate", "migrc", "migrc:rfc2"])
@pytest.mark.parametrize(
    ("cpus", "overrides"),
    [
        (2, ()),
        (4, ("threads.per_cpu=2", "threads.processes=3")),
        (6, ("costs.sockets=3", "costs.ipi_deliver_ns=20", "costs.ipi_send_ns=0")),
    ],
)
def test_running_ahead_changes_nothing_in_a_workload(
    policy: str, cpus: int, overrides: tuple[str, ...]
) -> None:
    workload = small(*overrides)
    ahead, behind = (
        everything(engine_for(workload, policy, cpus, lookahead=lookahead)) for lookahead in (True, False)
    )
    assert ahead == behind
    counters = [cpu["vmstat"] for cpu in ahead["cpus"]]
    assert sum(counter.get("nr_tlb_remote_flush", 0) for counter in counters) > 10
    assert sum(counter.get("pgdemote_kswapd", 0) for counter in counters) > 10
    assert ahead["accesses"] == 6000 * cpus * workload.threads.per_cpu
    assert ahead["violations"] == []


def test_the_watchers_judge_the_same_run() -> None:
    plain = everything(engine_for(small(), "migrc", 3))
    watched = everything(engine_for(small(), "migrc", 3, watched=True))
    assert plain.pop("transitions") is None
    assert watched.pop("transitions") > 1_000
    assert plain == watched


@pytest.mark.parametrize("watched", [False, True])
def test_a_mistake_is_seen(watched: bool) -> None:
    """Nobody is interrupted: stale reads show on virtual time too, and the missing order even more."""
    workload = small(
        "threads.accesses=20000",
        "threads.write_share=0.1",
        "threads.drift_every=200",
        "kernel.numa_scan_period_accesses=300",
        "checks.sample_every=1",
    )
    result = engine_for(workload, "mistake:interrupt-to-nobody", 4, watched=watched).run()
    rules = {violation.rule for violation in result.violations}
    # Whether what was freed is in use again when it is read is chance.
    stale = {"read of a frame that is not the page's", "access to a free frame"}
    assert rules & ({"grace period: frame reused"} if watched else stale)


@pytest.mark.parametrize("policy", ["immediate", "migrc:rfc2"])
def test_no_more_is_refilled_than_full_flushes_dropped(policy: str) -> None:
    for counters in (cpu["vmstat"] for cpu in engine_for(small(), policy, 3).run().cpus):
        assert 0 < counters["tlb_refills_full"] <= counters["tlb_entries_flushed_full"]
        assert counters["tlb_flushes_full"] > 0


def test_another_seed_is_another_run() -> None:
    one, other = (everything(engine_for(small(), "immediate", 2, seed)) for seed in (1, 2))
    assert one["clocks_ns"] != other["clocks_ns"]


COMMAND = """
import json, sys
from scenarios.verbs.cli import main
try:
    main(sys.argv[1:])
finally:
    assert "ray" not in sys.modules, "Ray was imported"
"""


def test_the_same_seed_gives_the_same_bytes_without_ray() -> None:
    arguments = ["run", "tiering", "--engine", "timed", "--json", "--quiet", "--seed", "3", "--cpus", "3"]
    arguments += [word for text in SMALL for word in ("--set", text)]
    documents = []
    for hash_seed in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-c", COMMAND, *arguments],
            capture_output=True,
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            check=True,
        )
        document = json.loads(done.stdout)
        for found in document["runs"]:
            assert found.pop("wall_s") >= 0
        documents.append(json.dumps(document))
    assert documents[0] == documents[1]
    assert json.loads(documents[0])["costs"] == asdict(Costs())


# --- touches with a price ----------------------------------------------------------------------------------

ACCESSES = st.lists(st.integers(0, 63), max_size=80)
HUGE = st.booleans()


@given(ACCESSES, st.lists(st.integers(0, 31), max_size=20), st.integers(1, 60), HUGE)
def test_a_priced_touch_is_a_touch(accesses: list[int], cached: list[int], budget: int, huge: bool) -> None:
    shape = TlbShape(8, 2, 16, 4)
    price = TouchPrice(3, 7, 2, 100 << 12)
    plain, priced = Tlb(shape), Tlb(shape)
    for tlb in (plain, priced):
        for page in cached:
            tlb.insert(1, page, mk_pte(90 + page, ENTRY if page % 3 else PRESENT))
        if huge:
            tlb.insert(1, 0, mk_pte(512, ENTRY | 1 << 7))
    end = plain.touch(1, accesses, 0, len(accesses))
    at = total = 0
    while True:
        at, spent = priced.touch_for(1, accesses, at, len(accesses), budget, price)
        total += spent
        assert spent < budget + price.slow + price.second
        if spent < budget:
            break
    assert at == end
    assert priced.state() == plain.state()
    assert 3 * at <= total <= 9 * at + 2
