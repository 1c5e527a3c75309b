"""Pages that leave the page cache, are written out or read in again before every CPU has flushed them."""

from __future__ import annotations

import pytest

from emulator.checks.grace_period import (
    REFILLED,
    WRITABLE,
    WRITTEN_OUT,
)
from emulator.hardware.operations import (
    CmpxchgPte,
    FilemapAdd,
    FilemapRemove,
    WritePage,
    XchgPte,
)
from emulator.hardware.pte import PRESENT, RW, mk_pte
from tests.checks.grace_lab import RO, VPN, WRITABLE_1, Trace


@pytest.mark.parametrize("flushed", [True, False])
@pytest.mark.parametrize("entry", [RO, WRITABLE_1], ids=["read-only", "writable"])
def test_a_page_is_written_out(entry: int, flushed: bool) -> None:
    """Whoever still has it writable may write after that; who has it read-only may not."""
    trace = Trace()
    trace.step(0, XchgPte(1, VPN, 0), entry)
    if flushed:
        trace.shootdown()
    trace.step(0, WritePage(7, 0, 1))
    assert trace.rules == ([] if flushed or entry == RO else [WRITTEN_OUT])
    trace.step(0, WritePage(7, 0, 1))
    assert len(trace.rules) <= 1, "one missing flush is reported once"


@pytest.mark.parametrize("flushed", [True, False])
@pytest.mark.parametrize("slot", [(7, 0), (7, 1)], ids=["its slot", "another"])
def test_a_truncated_page_s_slot_is_refilled(slot: tuple[int, int], flushed: bool) -> None:
    trace = Trace()
    trace.step(0, XchgPte(1, VPN, 0), RO)
    if flushed:
        trace.shootdown()
    trace.step(0, FilemapRemove(7, 0, 1, 0), True)
    trace.step(1, FilemapAdd(*slot, 2), -1)
    assert trace.rules == ([] if flushed or slot != (7, 0) else [REFILLED])


@pytest.mark.parametrize("flushed", [True, False])
@pytest.mark.parametrize("flags", [PRESENT, PRESENT | RW], ids=["read-only", "writable"])
def test_a_reclaimed_page_is_read_in_again(flags: int, flushed: bool) -> None:
    """The old frame is a read copy of the new one until somebody may write there."""
    trace = Trace()
    trace.step(0, XchgPte(1, VPN, 0), RO)
    trace.step(0, FilemapRemove(7, 0, 1, 2), True)
    trace.step(0, FilemapAdd(7, 0, 2), -1)
    if flushed:
        trace.shootdown()
    trace.step(0, CmpxchgPte(1, VPN, 0, mk_pte(2, flags)), 0)
    assert trace.rules == ([] if flushed or flags == PRESENT else [WRITABLE])


def test_a_folio_that_stays_in_the_cache_is_not_refilled() -> None:
    trace = Trace()
    trace.step(0, XchgPte(1, VPN, 0), RO)
    trace.step(0, FilemapRemove(7, 0, 1, 2), False)
    trace.step(0, FilemapAdd(7, 0, 2), 1)
    trace.step(0, CmpxchgPte(1, VPN, 0, RO), 0)
    assert not trace.rules


def test_the_page_cache_s_part_of_the_state_is_put_back() -> None:
    trace = Trace()
    trace.step(0, XchgPte(1, VPN, 0), RO)
    trace.step(0, FilemapRemove(7, 0, 1, 0), True)
    kept = trace.check.state()
    trace.step(0, FilemapAdd(7, 0, 2), -1)
    assert trace.rules == [REFILLED]
    other = Trace()
    other.check.restore(kept)
    other.step(0, FilemapAdd(7, 0, 2), -1)
    assert other.rules == [REFILLED]
