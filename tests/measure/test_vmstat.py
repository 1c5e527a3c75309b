"""Counters add up, and none can get lost under a wrong name."""

import pytest

from emulator.measure import vmstat


def test_counters_of_several_cpus_add_up() -> None:
    total = vmstat.merge(
        [{vmstat.PGFAULT: 2}, {vmstat.PGFAULT: 3, vmstat.NR_TLB_REMOTE_FLUSH_RECEIVED: 1}, {}],
    )
    assert total[vmstat.PGFAULT] == 5
    assert total[vmstat.NR_TLB_REMOTE_FLUSH_RECEIVED] == 1


def test_every_counter_is_reported_in_order_even_if_nothing_ticked() -> None:
    assert list(vmstat.merge([]).items()) == [(name, 0) for name in vmstat.COUNTERS]


def test_merging_can_be_done_in_stages() -> None:
    parts = [{vmstat.PGFREE: 1}, {vmstat.PGFREE: 2, vmstat.PGMIGRATE_FAIL: 7}, {vmstat.DTLB_WALKS: 4}]
    assert vmstat.merge([vmstat.merge(parts[:2]), vmstat.merge(parts[2:])]) == vmstat.merge(parts)


def test_a_misspelt_counter_is_refused() -> None:
    with pytest.raises(ValueError, match="'pgfualt' is no counter"):
        vmstat.merge([{"pgfualt": 1}])


def test_names_are_unique() -> None:
    assert len(set(vmstat.COUNTERS)) == len(vmstat.COUNTERS)
