"""The table of operations: every class has its row and what performs it, and the document says the same."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path
from typing import Any

import pytest

from actors.meetings import accesses_of
from emulator.checks.grace_period import NEVER_MATTER, GracePeriod
from emulator.hardware import operations as ops
from emulator.hardware.cpu import Cpu
from emulator.hardware.operations import CLASSES, NUMBERS, TABLE, Order, Where
from emulator.hardware.ordering import ARCHITECTURES
from emulator.hardware.tlb import TlbShape
from emulator.measure.costs import Costs
from emulator.memory.folios import Tier
from emulator.memory.held_entries import MemoryAndEntries
from emulator.memory.memory import Memory
from emulator.memory.zone import Watermarks
from emulator.timed.codes import CODES
from emulator.timed.pricing import local_prices, memory_prices

DOCS = Path(__file__).parents[2] / "docs"
OF_MEMORY = [kind for kind, row in TABLE.items() if row.where is Where.MEMORY]


def new_memory() -> Memory:
    return Memory([Tier(4, Watermarks(0, 0, 0))])


def made(kind: type[Any]) -> Any:
    """One with plain numbers in its fields, all different and none 0."""
    return kind(*range(1, len(kind._fields) + 1))


def test_every_class_that_can_be_awaited_is_in_the_table() -> None:
    rooms = {sys.modules[kind.__module__] for kind in TABLE}
    classes = {value for room in rooms for value in vars(room).values() if isinstance(value, type)}
    assert {one for one in classes if hasattr(one, "_fields") and hasattr(one, "__await__")} == set(TABLE)
    assert all(getattr(ops, kind.__name__) is kind for kind in TABLE)


def test_numbers_follow_the_table() -> None:
    assert [NUMBERS[kind] for kind in CLASSES] == list(range(len(TABLE)))


def test_memory_performs_its_operations_and_no_others() -> None:
    memory: Any = Memory([Tier(4, Watermarks(0, 0, 0))], walker_caches=True)
    with_entries: Any = MemoryAndEntries([Tier(4, Watermarks(0, 0, 0))])
    assert set(memory._handlers) | set(with_entries._handlers) == set(OF_MEMORY)


def test_a_cpu_performs_its_own() -> None:
    cpu: Any = Cpu(0, ARCHITECTURES["sc"], TlbShape(), lambda batch: pytest.fail("no interrupt"))
    own = {kind for kind, row in TABLE.items() if row.where is Where.CPU}
    assert set(cpu._local) == own - {ops.BeginLoad}, "BeginLoad is taken apart before it gets there"


def test_the_timed_engine_knows_what_to_do_with_each() -> None:
    assert set(TABLE) - set(CODES) == {ops.Series}
    engine = {kind for kind, row in TABLE.items() if row.where is Where.IPI}
    costs = Costs()
    priced = set(local_prices(costs)) | set(memory_prices(costs, 1, new_memory()))
    assert set(TABLE) - priced == engine | {ops.Series, ops.Walk, ops.Translate, ops.Touch, ops.Iret}


def test_what_the_grace_period_looks_at_is_told_to_it() -> None:
    check: Any = GracePeriod(1, True, {}, lambda frame: 0)
    assert not NEVER_MATTER & set(check._handlers)


@pytest.mark.parametrize("kind", TABLE)
def test_an_operation_has_a_place_or_says_why_not(kind: type[Any]) -> None:
    place = TABLE[kind].place
    assert bool(place.reads or place.writes) is (not place.why)
    if place.why:
        assert TABLE[kind].where is not Where.MEMORY and accesses_of(made(kind)) == []
    else:
        assert accesses_of(made(kind))


def test_plain_loads_read_and_stores_and_atomics_write() -> None:
    for kind in OF_MEMORY:
        row = TABLE[kind]
        if row.order in (Order.LOAD, Order.WALK):
            assert row.place.reads and not row.place.writes
        elif kind not in (ops.FolioRmap, ops.Tlbsync, ops.Dsb):  # which look, too
            assert row.place.writes, f"{kind.__name__} changes something"


def test_a_plain_store_is_forwarded_by_its_last_field() -> None:
    for kind, row in TABLE.items():
        if row.location is not None and row.order is Order.STORE:
            assert kind._fields[-1] in ("value", "pte")


@pytest.mark.parametrize(
    ("operation", "accesses"),
    [
        (ops.FilemapRemove(1, 2, 3, 0), ["w cache 1 2", "w references 3"]),
        (ops.FolioMapping(3), ["r references 3"]),
        (ops.WritePage(1, 2, 3), ["r frame 3", "w cache 1 2"]),
        (ops.FolioCopy(3, 4), ["r frame 3", "w frame 4"]),
        (ops.FolioRmap(3), ["r rmap 3"]),
        (ops.SetPte(1, 5, 3 << 12), ["w pte 1 5", "w rmap 3"]),
        (ops.XchgPte(1, 5, 0), ["w pte 1 5"]),
        (ops.LruAdd(3, True), ["w lru"]),
        (ops.IsolateLru(0, True, 8, False), ["w lru"]),
        (ops.SendIpi((1,), "f", (), True), ["w calls"]),
        (ops.SmpMb(), []),
    ],
)
def test_where_cpus_meet(operation: Any, accesses: list[str]) -> None:
    assert accesses_of(operation) == accesses


def test_the_document_is_made_from_the_table() -> None:
    made_now = runpy.run_path(str(DOCS / "operations.py"))["text"]()
    assert (DOCS / "operations.md").read_text() == made_now, "run: python docs/operations.py"
