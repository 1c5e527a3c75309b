"""A trace comes back as it was written, and anything else than a whole trace is refused in one line."""

from __future__ import annotations

from itertools import groupby
from pathlib import Path

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

import scenarios.traces
from scenarios.traces.format import (
    BLOCK_RUNS,
    FETCH,
    MAX_COUNT,
    MAX_PAGE,
    READ,
    WRITE,
    TraceError,
    TraceWriter,
    read_trace,
)

SHIPPED = Path(scenarios.traces.__file__).parent / "data" / "sort.trace"
Run = tuple[int, int, int]
RUNS = st.lists(
    st.tuples(
        st.one_of(st.integers(0, 20), st.integers(0, MAX_PAGE)),
        st.integers(READ, FETCH),
        st.one_of(st.integers(1, 9), st.integers(1, MAX_COUNT)),
    ),
    max_size=60,
)


def write(path: Path, runs: list[Run]) -> Path:
    with TraceWriter(path, {"source": "a test"}) as writer:
        for page, kind, count in runs:
            writer.add(page, kind, count)
    return path


def merged(runs: list[Run]) -> list[tuple[tuple[int, int], int]]:
    groups = groupby(runs, key=lambda run: run[:2])
    return [(key, sum(count for _, _, count in group)) for key, group in groups]


def small(tmp_path: Path) -> Path:
    return write(tmp_path / "small.trace", [(7, READ, 3), (0x7FFE0, WRITE, 1), (7, FETCH, 70_000)])


@given(runs=RUNS)
def test_runs_come_back_in_order_and_add_up(
    tmp_path_factory: pytest.TempPathFactory, runs: list[Run]
) -> None:
    trace = read_trace(write(tmp_path_factory.mktemp("trip") / "out.trace", runs))
    back = list(trace.runs())
    assert merged(back) == merged(runs)
    assert trace.totals.runs == len(back)
    assert trace.totals.accesses == sum(count for _, _, count in runs)
    assert trace.totals.pages == len({page for page, _, _ in runs})
    per_kind = (trace.totals.reads, trace.totals.writes, trace.totals.fetches)
    assert per_kind == tuple(sum(run[2] for run in runs if run[1] == kind) for kind in range(3))
    assert trace.header["source"] == "a test"


def test_blocks_are_bounded_and_parallel(tmp_path: Path) -> None:
    runs = [(page % 5000, page % 3, page % 300 + 1) for page in range(2 * BLOCK_RUNS + 10)]
    trace = read_trace(write(tmp_path / "long.trace", runs))
    blocks = list(trace.blocks())
    assert [len(block.pages) for block in blocks] == [BLOCK_RUNS, BLOCK_RUNS, 10]
    assert [run for block in blocks for run in zip(*block, strict=True)] == runs
    assert trace.block_count == 3


def test_equal_neighbours_become_one_run_until_the_count_is_full(tmp_path: Path) -> None:
    trace = read_trace(write(tmp_path / "a.trace", [(1, READ, 2), (1, READ, 3), (1, WRITE, 1), (1, READ, 1)]))
    assert list(trace.runs()) == [(1, READ, 5), (1, WRITE, 1), (1, READ, 1)]
    trace = read_trace(write(tmp_path / "b.trace", [(1, READ, MAX_COUNT), (1, READ, 2)]))
    assert list(trace.runs()) == [(1, READ, MAX_COUNT), (1, READ, 2)]


def test_the_same_runs_give_the_same_bytes(tmp_path: Path) -> None:
    first = small(tmp_path).read_bytes()
    assert small(tmp_path).read_bytes() == first


@pytest.mark.parametrize(
    "run", [(-1, 0, 1), (MAX_PAGE + 1, 0, 1), (1, 3, 1), (1, -1, 1), (1, 0, 0), (1, 0, 1 << 32)]
)
def test_what_is_no_run_is_refused(tmp_path: Path, run: Run) -> None:
    with pytest.raises(ValueError, match="is not a run"):
        write(tmp_path / "out.trace", [run])


def test_every_truncation_is_told(tmp_path: Path) -> None:
    whole = small(tmp_path).read_bytes()
    cut = tmp_path / "cut.trace"
    for length in range(len(whole)):
        cut.write_bytes(whole[:length])
        with pytest.raises(TraceError) as caught:
            read_trace(cut)
        assert "\n" not in str(caught.value)


def test_every_flipped_bit_is_told(tmp_path: Path) -> None:
    whole = small(tmp_path).read_bytes()
    flipped = tmp_path / "flipped.trace"
    for offset in range(len(whole)):
        for bit in range(8):
            flipped.write_bytes(whole[:offset] + bytes([whole[offset] ^ 1 << bit]) + whole[offset + 1 :])
            with pytest.raises(TraceError):
                read_trace(flipped)


@pytest.mark.parametrize("tail", [b"\x00", b"\xc1", b"\xdb", b"more"])
def test_bytes_after_the_trailer_are_told(tmp_path: Path, tail: bytes) -> None:
    path = small(tmp_path)
    path.write_bytes(path.read_bytes() + tail)
    with pytest.raises(TraceError, match="damaged"):
        read_trace(path)


def test_a_damaged_block_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "out.trace", [(page, READ, 1) for page in range(BLOCK_RUNS + 9)])
    whole = bytearray(path.read_bytes())
    whole[len(whole) // 4] ^= 1
    path.write_bytes(whole)
    with pytest.raises(TraceError, match="block 1 at byte"):
        read_trace(path)


@pytest.mark.parametrize(
    "content", [b"", b"I  04000d70,3\n", b"\x7fELF\x02\x01", b"\xc1", b"\x80", b"\xdf\xff\xff\xff\xff"]
)
def test_a_foreign_file_is_told_what_would_be_right(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "foreign"
    path.write_bytes(content)
    with pytest.raises(TraceError, match=r"not a trace.*migrc trace import"):
        read_trace(path)


def test_another_version_is_told(tmp_path: Path) -> None:
    path = tmp_path / "next.trace"
    path.write_bytes(msgpack.packb({"format": "migrc-trace", "version": 2, "page_size": 4096}))
    with pytest.raises(TraceError, match="version 2; this program reads 1"):
        read_trace(path)


def test_a_failed_writing_leaves_the_old_trace_and_nothing_else(tmp_path: Path) -> None:
    path = small(tmp_path)
    old = path.read_bytes()
    with pytest.raises(RuntimeError), TraceWriter(path, {}) as writer:
        writer.add(1, READ, 1)
        raise RuntimeError
    assert path.read_bytes() == old
    assert list(tmp_path.iterdir()) == [path]


def test_a_trace_that_changes_while_it_is_read_is_told(tmp_path: Path) -> None:
    path = small(tmp_path)
    trace = read_trace(path)
    write(path, [(1, READ, 1)])
    with pytest.raises(TraceError, match="changed"):
        list(trace.runs())


def test_the_shipped_trace_is_small_and_real() -> None:
    trace = read_trace(SHIPPED)
    assert trace.size < 300_000
    assert 300 <= trace.totals.pages <= 1000
    assert sum(count for _, _, count in trace.runs()) == trace.totals.accesses > 10_000_000
    assert len({page for block in trace.blocks() for page in block.pages}) == trace.totals.pages
    assert min(trace.totals.reads, trace.totals.writes, trace.totals.fetches) > 1_000_000
    assert trace.header["window"] == 1024
