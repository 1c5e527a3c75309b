"""The lookups of XSBench: who writes, who reads what, and sizes that are divided together."""

from __future__ import annotations

from pathlib import Path

import pytest

from emulator.kernel.user import ParallelFor
from emulator.policies.immediate import Immediate
from emulator.timed.engine import TimedEngine
from scenarios.subjects.workload_machine import build_machine
from scenarios.usage import UsageProblem
from scenarios.workloads.workload_file import load_workload
from scenarios.workloads.xsbench import BASE, XsbenchUserSpace

TEXT = """
name = "mine"
kind = "xsbench"
scale = 4
[memory]
fast_pages = 1000
slow_pages = 4000
min_free_pages = 3
[kernel]
numa_scan_pages = 401
swap_cluster_max = 8
[threads]
per_cpu = 2
[xsbench]
grid_pages = 40
index_pages = 400
lookups = 1200
lookups_at_once = 29
grid_reads = 3
"""


@pytest.fixture
def user(tmp_path: Path) -> XsbenchUserSpace:
    path = tmp_path / "mine.toml"
    path.write_text(TEXT)
    return XsbenchUserSpace(load_workload(str(path)), 2, 5)


def test_scale_divides_sizes_and_counts_and_nothing_else(user: XsbenchUserSpace) -> None:
    workload = user.workload
    assert workload.scale == 1
    # What is kept free is not divided: of 1000 pages 6 (steps of one page above min), of 248 it is min alone.
    assert (workload.memory.fast_pages, workload.memory.slow_pages) == (3 + 248, 1000)
    assert workload.memory.min_free_pages == 3
    assert workload.kernel.numa_scan_pages == 100
    assert workload.kernel.swap_cluster_max == 8
    assert workload.kernel.numa_scan_period_accesses == 5000, "what was not given is not divided"
    tables = workload.xsbench
    assert (tables.grid_pages, tables.index_pages, tables.lookups, tables.grid_reads) == (10, 100, 300, 3)
    assert tables.lookups_at_once == 7
    assert workload.memory.divided_by == 4
    assert build_machine(workload, 2, "x86", Immediate, user).parameters.memory_scale == 4


def test_one_thread_writes_every_page_once_before_all_others_read(user: XsbenchUserSpace) -> None:
    (mm, (area,)) = next(iter(user.areas().items()))
    threads = [thread for cpu in range(2) for thread in user.threads(cpu)]
    assert len(threads) == user.thread_count() == 4
    written = []
    for thread in threads:
        assert thread.mm == mm and thread.before is not None
        written.append([access for chunk in thread.before() for access in chunk])
    assert written[0] == [page << 1 | 1 for page in range(area.start, area.end)]
    assert written[1:] == [[], [], []]


def loop_of(user: XsbenchUserSpace) -> ParallelFor:
    """The loop that all threads share."""
    loops = [thread.chunks for cpu in range(2) for thread in user.threads(cpu)]
    assert all(loop == loops[0] for loop in loops)
    assert isinstance(loops[0], ParallelFor)
    return loops[0]


def test_lookups_read_the_grids_and_one_row(user: XsbenchUserSpace) -> None:
    loop = loop_of(user)
    # 1200 lookups of 4 threads each, divided by 4, and 7 at once.
    assert (loop.parts, loop.accesses_each) == (172, 7)
    reads = [[access for chunk in loop.accesses(part) for access in chunk] for part in range(loop.parts)]
    assert [len(accesses) for accesses in reads] == [7 * 4] * 171 + [3 * 4]
    assert sum(map(len, reads)) + user.pages() == user.expected_accesses()
    pages = [(access >> 1) - BASE for accesses in reads for access in accesses]
    assert not any(access & 1 for accesses in reads for access in accesses)
    assert all(10 <= page < 110 for page in pages[3::4])
    assert all(page < 10 for at in range(3) for page in pages[at::4])
    assert set(pages) == set(range(110))
    assert reads[0] != reads[1], "parts are drawn differently"
    assert [access for chunk in loop.accesses(3) for access in chunk] == reads[3], "from the seed alone"
    other = XsbenchUserSpace(user.workload, 2, 6)
    assert [access for chunk in other.threads(0)[0].chunks.accesses(3) for access in chunk] != reads[3]  # type: ignore[union-attr]


def test_a_lookup_of_many_reads_is_a_chunk_of_its_own(user: XsbenchUserSpace) -> None:
    tables = user.workload.xsbench.model_copy(update={"grid_reads": 700})
    long = XsbenchUserSpace(user.workload.model_copy(update={"xsbench": tables}), 2, 5)
    assert [len(chunk) for chunk in loop_of(long).accesses(0)] == [701] * 7


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("index_pages = 400", "index_pages = 40000", "xsbench.index_pages: the tables have"),
        ("per_cpu = 2", "heap_pages = 8", "threads.heap_pages: xsbench says itself"),
        ('kind = "xsbench"', 'kind = "tiering"', 'xsbench: has no meaning for kind = "tiering"'),
        ("scale = 4", "scale = 0", "scale: 0 is too small; 1 or more"),
    ],
)
def test_what_does_not_fit_is_said(tmp_path: Path, old: str, new: str, problem: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(TEXT.replace(old, new))
    with pytest.raises(UsageProblem, match=problem):
        load_workload(str(path))


FILLS = (
    *("memory.fast_pages=3000", "memory.slow_pages=9000", "memory.min_free_pages=64"),
    *(
        "xsbench.index_pages=8192",
        "xsbench.grid_pages=8",
        "xsbench.lookups=29",
        "threads.per_cpu=1",
        "scale=1",
    ),
)


@pytest.mark.parametrize("tables_cost_frames", [False, True])
def test_page_tables_wake_kswapd_on_an_idle_cpu_while_the_tables_are_written(
    tables_cost_frames: bool, tmp_path: Path
) -> None:
    """User memory alone goes on in the slow tier; a page table cannot. And who waits leaves its CPU."""
    path = tmp_path / "mine.toml"
    path.write_text(TEXT)
    frames = f"kernel.page_table_frames={str(tables_cost_frames).lower()}"
    workload = load_workload(str(path), (*FILLS, frames))
    machine = build_machine(workload, 2, "x86", Immediate, XsbenchUserSpace(workload, 2, 5))
    result = TimedEngine(machine, workload.costs.prices()).run()
    assert not result.violations
    counts = {
        name: sum(cpu["vmstat"].get(name, 0) for cpu in result.cpus)
        for name in ("pgdemote_kswapd", "kswapd_wakeups")
    }
    assert (counts["pgdemote_kswapd"] > 200) is tables_cost_frames
    assert (counts["kswapd_wakeups"] > 3) is tables_cost_frames
    # All of it on CPU 1, which interrupts CPU 0 for it.
    assert (result.tlb_interrupts[0] > 5) is tables_cost_frames
