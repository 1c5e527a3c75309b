"""What threads access is what `random.randrange` would draw, plainly written down."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from scenarios.workloads.settings import Workload
from scenarios.workloads.tiering import HEAP_BASE, TABLE_BASE
from scenarios.workloads.users import CHUNK
from scenarios.workloads.workload_file import load_workload


def drawn(workload: Workload, seed: int, thread: int) -> Iterator[int]:
    """One thread's accesses, one after the other."""
    settings = workload.threads
    rng = random.Random(f"{seed}/{thread}")
    heap_share = settings.heap_share
    if not settings.table_pages:
        heap_share = 1.0
    elif not settings.heap_pages:
        heap_share = 0.0
    for made in range(settings.accesses):
        window = made // settings.drift_every * settings.drift_pages
        in_heap = rng.random() < heap_share
        pages = settings.heap_pages if in_heap else settings.table_pages
        if rng.random() < settings.hot_share:
            page = (window + rng.randrange(min(settings.hot_pages, pages))) % pages
        else:
            page = rng.randrange(pages)
        if in_heap:
            yield (HEAP_BASE + page) << 1 | (rng.random() < settings.write_share)
        else:
            yield (TABLE_BASE + page) << 1


@pytest.mark.parametrize(
    "overrides",
    [
        (),
        ("threads.heap_share=0.5", "threads.write_share=0.5"),
        ("threads.heap_pages=0", "threads.heap_share=0"),
        ("threads.table_pages=0", "threads.heap_share=1", "threads.hot_pages=64"),
        # More hot pages than the heap has.
        ("threads.heap_pages=3", "threads.hot_pages=100", "threads.heap_share=0.5"),
        ("threads.heap_pages=1", "threads.hot_pages=1", "threads.heap_share=0.5"),
        ("threads.hot_share=0",),
        ("threads.hot_share=1", "threads.drift_every=333", "threads.drift_pages=1000"),
        ("threads.accesses=1",),
    ],
)
def test_the_accesses_are_those_that_randrange_draws(overrides: tuple[str, ...]) -> None:
    workload = load_workload(
        "tiering",
        ("threads.per_cpu=2", "threads.processes=2", "threads.accesses=4321", *overrides),
    )
    user = workload.user_space(2, 5, None)
    threads = [thread for cpu in range(2) for thread in user.threads(cpu)]
    assert [thread.mm for thread in threads] == [1, 2, 1, 2]
    for number, thread in enumerate(threads):
        chunks = [list(chunk) for chunk in thread.chunks()]
        assert max(map(len, chunks)) <= CHUNK
        assert [access for chunk in chunks for access in chunk] == list(drawn(workload, 5, number))
