"""The window of pending effects against a model that only knows pairs: what must come before what."""

from __future__ import annotations

from itertools import permutations
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emulator.hardware.operations import (
    AckIpi,
    GetPte,
    Load,
    Order,
    ReadFrame,
    SetPte,
    SmpWmb,
    Store,
    Unlock,
    WriteFrame,
)
from emulator.hardware.ordering import ARCHITECTURES, PendingLoad, Window

RISCV = ARCHITECTURES["riscv"]
X86 = ARCHITECTURES["x86"]

STORES = st.one_of(
    st.builds(Store, st.sampled_from("ab"), st.just(1)),
    st.builds(SetPte, st.just(1), st.sampled_from([16, 17]), st.just(0)),
    st.builds(WriteFrame, st.just(1), st.just(16), st.sampled_from([1, 2]), st.just(5)),
    st.just(AckIpi(0, 1)),
    st.just(Unlock("l")),
)
LOADS = st.one_of(
    st.builds(Load, st.sampled_from("ab")),
    st.builds(GetPte, st.just(1), st.sampled_from([16, 17])),
    st.builds(ReadFrame, st.just(1), st.just(16), st.sampled_from([1, 2])),
)
ISSUED = st.lists(
    st.one_of(STORES, LOADS.map(lambda load: PendingLoad(load, 0)), st.just(SmpWmb())), max_size=5
)


def place(effect: Any) -> Any:
    operation = effect.load if isinstance(effect, PendingLoad) else effect
    if isinstance(operation, (Load, Store)):
        return "word", operation.word
    if isinstance(operation, (GetPte, SetPte)):
        return "pte", operation.vpn
    if isinstance(operation, (ReadFrame, WriteFrame)):
        return "frame", operation.pfn
    return type(operation), operation


def ordered(issued: list[Any], first: int, second: int) -> bool:
    """RVWMO, as far as the window has it: must `first` be performed before the later issued `second`?"""
    a, b = issued[first], issued[second]
    if isinstance(b, (AckIpi, Unlock)) or place(a) == place(b):
        return True
    fenced = any(type(between) is SmpWmb for between in issued[first:second])
    return fenced and not isinstance(a, PendingLoad) and not isinstance(b, PendingLoad)


def fill(window: Window, issued: list[Any]) -> None:
    for number, effect in enumerate(issued):
        if isinstance(effect, PendingLoad):
            window.pending.append(PendingLoad(effect.load, number))
        elif type(effect) is not SmpWmb or window.marks(Order.WMB):
            window.pending.append(effect)


@given(ISSUED)
def test_riscv_performs_in_exactly_the_orders_that_the_model_allows(issued: list[Any]) -> None:
    effects = [number for number, effect in enumerate(issued) if type(effect) is not SmpWmb]
    allowed = {
        order
        for order in permutations(effects)
        if not any(
            ordered(issued, a, b) and order.index(a) > order.index(b)
            for a in effects
            for b in effects
            if a < b
        )
    }

    def performed(done: tuple[int, ...]) -> set[tuple[int, ...]]:
        """All orders that the window can go on with after these positions were removed one by one."""
        window = Window(RISCV)
        fill(window, issued)
        alive = list(effects)
        names = []
        for at in done:
            pending = [n for n, effect in enumerate(window.pending) if type(effect) is not SmpWmb]
            names.append(alive.pop(pending.index(at)))
            window.remove(at)
        choices = window.performable()
        if not choices:
            assert not window.pending
            return {tuple(names)}
        return set().union(*[performed((*done, at)) for at in choices])

    assert performed(()) == allowed


@given(st.lists(STORES, min_size=1, max_size=6))
def test_x86_performs_stores_in_the_order_of_their_issue(issued: list[Any]) -> None:
    window = Window(X86)
    fill(window, issued)
    for effect in issued:
        assert window.performable() == (0,)
        removed = window.remove(0)
        assert (type(removed), removed) == (type(effect), effect)
    assert window.performable() == ()


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_what_may_wait(name: str) -> None:
    window = Window(ARCHITECTURES[name])
    assert window.keeps(Order.STORE) == window.keeps(Order.ACK) == (name != "sc")
    assert not window.keeps(Order.LOAD) and not window.keeps(Order.LOCKED)
    assert window.architecture.loads_wait == (name in ("riscv", "arm64"))


@pytest.mark.parametrize("order", Order)
def test_an_empty_window_holds_nothing_up(order: Order) -> None:
    for architecture in ARCHITECTURES.values():
        assert not Window(architecture).blocks(order)


@pytest.mark.parametrize(
    ("order", "x86", "riscv"),
    [
        (Order.MB, True, True),
        (Order.LOCKED, True, True),
        (Order.IPI_SEND, True, True),
        (Order.IPI_TAKE, True, True),
        (Order.AFTER_ATOMIC, False, True),
        (Order.TLB, True, False),
        (Order.IRET, True, False),
        (Order.RMB, False, False),
        (Order.WMB, False, False),
        (Order.LOAD, False, False),
        (Order.STORE, False, False),
        (Order.ACK, False, False),
        (Order.WALK, False, False),
    ],
)
def test_what_waits_for_a_pending_store(order: Order, x86: bool, riscv: bool) -> None:
    for architecture, expected in ((X86, x86), (RISCV, riscv)):
        window = Window(architecture)
        window.pending.append(Store("a", 1))
        assert window.blocks(order) == expected, architecture.name


def test_sfence_waits_for_the_harts_own_page_table_stores_only() -> None:
    window = Window(RISCV)
    window.pending.append(SetPte(1, 16, 0))
    assert window.blocks(Order.TLB)


def test_smp_rmb_waits_for_pending_loads() -> None:
    window = Window(RISCV)
    window.begin(Load("a"))
    assert window.blocks(Order.RMB)
    assert not window.blocks(Order.WMB)
    assert not window.marks(Order.WMB)


@given(st.lists(STORES, max_size=5), LOADS)
def test_a_load_sees_the_newest_own_store_to_its_place(issued: list[Any], load: Any) -> None:
    window = Window(X86)
    fill(window, issued)
    newest = None
    for effect in issued:
        if place(effect) == place(load):
            newest = {Store: "value", SetPte: "pte", WriteFrame: "value"}[type(effect)]
            newest = getattr(effect, newest)
    assert window.forward(load) == newest


@given(st.lists(st.sampled_from(["begin", "keep", "end"]), max_size=12))
def test_handles_of_begun_loads_are_never_shared(actions: list[str]) -> None:
    window = Window(RISCV)
    out: set[int] = set()
    for action in actions:
        if action == "end":
            if window.values:
                handle = min(window.values)
                del window.values[handle]
                out.discard(handle)
            continue
        handle = window.begin(Load("a")) if action == "begin" else window.keep_value(3)
        assert handle not in out
        out.add(handle)


def test_a_cpu_sees_the_newest_of_its_own_stores() -> None:
    window = Window(X86)
    window.pending += [Store("a", 1), Store("b", 5), Store("a", 2)]
    assert (window.forward(Load("a")), window.forward(Load("b")), window.forward(Load("c"))) == (2, 5, None)


def test_a_load_does_not_overtake_an_older_one_of_the_same_place() -> None:
    window = Window(RISCV)
    window.begin(Load("a"))
    assert window.holds_load_of(Load("a")) and not window.holds_load_of(Load("b"))
