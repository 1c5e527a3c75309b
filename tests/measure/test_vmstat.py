"""Counters add up, and none can get lost under a wrong name."""

import re
from pathlib import Path

from emulator.measure import vmstat


def test_counters_of_several_cpus_add_up() -> None:
    total = vmstat.merge(
        [{"pgfault": 2}, {"pgfault": 3, "nr_tlb_remote_flush_received": 1}, {}],
    )
    assert total["pgfault"] == 5
    assert total["nr_tlb_remote_flush_received"] == 1


def test_every_counter_is_reported_in_order_even_if_nothing_ticked() -> None:
    assert list(vmstat.merge([]).items()) == [(name, 0) for name in vmstat.COUNTERS]


def test_merging_can_be_done_in_stages() -> None:
    parts = [{"pgscan": 1}, {"pgscan": 2, "pgmigrate_fail": 7}, {"dtlb_walks": 4}]
    assert vmstat.merge([vmstat.merge(parts[:2]), vmstat.merge(parts[2:])]) == vmstat.merge(parts)


def test_a_counter_of_somebodys_own_comes_last() -> None:
    total = vmstat.merge([{"zeal": 1, "pgfault": 1}, {"eager_flushes": 2}, {"zeal": 3}])
    assert list(total.items())[-2:] == [("eager_flushes", 2), ("zeal", 4)]
    assert total["pgfault"] == 1


def test_every_counter_that_the_emulator_ticks_is_known() -> None:
    sources = Path(vmstat.__file__).parent.parent.rglob("*.py")
    ticked = {name for file in sources for name in re.findall(r'\.count\(\s*"(\w+)"', file.read_text())}
    assert ticked
    assert ticked <= set(vmstat.COUNTERS)


def test_names_are_unique() -> None:
    assert len(set(vmstat.COUNTERS)) == len(vmstat.COUNTERS)
