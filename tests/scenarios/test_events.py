"""Events of runs: told alike by every engine, kept in files, and written for other people's tools."""

from __future__ import annotations

import csv
import gzip
import json
import re
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgpack
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from perfetto.protos.perfetto.trace.perfetto_trace_pb2 import Trace, TrackEvent

from scenarios.events.event import Event, Reason, What
from scenarios.events.event_file import EventHeader, read, written
from scenarios.events.ftrace_text import write_ftrace
from scenarios.events.interleaving import MOST_STEPS, NotDrawn, write_page
from scenarios.usage import UsageProblem
from scenarios.verbs.export import FORMATS
from tests.live.shell import settings as small

Migrc = Callable[..., int]
Captured = pytest.CaptureFixture[str]

SMALL = ("--cpus", "2", *small("threads.accesses=6000"))
HEADER = EventHeader(title="a run", cpus=2, unit="ns")
TOO_EARLY = ("early-ack-reuse", "--policy", "mistake:acknowledges-and-returns", "--arch", "x86")


@pytest.fixture(scope="module")
def timed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """The events of a small timed run under `migrc`, and its document."""
    from click.testing import CliRunner

    from scenarios.verbs.cli import migrc

    folder = tmp_path_factory.mktemp("timed")
    arguments = ["run", "tiering", "--engine", "timed", "--policy", "migrc", "--quiet", "--json", *SMALL]
    told = CliRunner().invoke(migrc, [*arguments, "--events", str(folder / "e.mev")])
    assert told.exit_code == 0, told.output
    plain = CliRunner().invoke(migrc, arguments)
    document, other = (json.loads(one.stdout)["runs"][0] for one in (told, plain))
    events = Path(document.pop("events"))
    # Whoever listens changes nothing, not by a ns.
    assert document.pop("wall_s") and other.pop("wall_s") and document == other
    return events, document


@pytest.fixture
def witness(migrc: Migrc, tmp_path: Path, capsys: Captured) -> Path:
    assert migrc("check", *TOO_EARLY, "--save", str(tmp_path)) == 0
    capsys.readouterr()
    (path,) = tmp_path.glob("*.mpk")
    return path


def test_functions_are_nested_and_calls_are_as_many_as_were_counted(
    timed: tuple[Path, dict[str, Any]],
) -> None:
    path, document = timed
    header, events = read(path)
    open_: list[list[str]] = [[] for _ in range(header.cpus)]
    counts: Counter[What] = Counter()
    flushes: Counter[int] = Counter()
    last: dict[str, int] = {}
    sent: dict[tuple[int, int], int] = {}
    for at, cpu, what, name, values in events:
        counts[what] += 1
        if what is What.ENTER:
            open_[cpu].append(name)
        elif what is What.LEAVE:
            assert open_[cpu].pop() == name
        elif what is What.SEND:
            sent[cpu, values[0]] = at
        elif what is What.TAKE:
            assert sent[values[0], values[1]] <= at
        elif what is What.FLUSH:
            flushes[values[0]] += 1
            assert values[0] == Reason.REMOTE_SEND_IPI or name in open_[cpu] or name == "switch_mm_irqs_off"
        elif what is What.COUNTER:
            last[name] = values[0]
    assert not any(open_)
    received = document["vmstat"]["nr_tlb_remote_flush_received"]
    assert counts[What.ACK] == received > 0
    assert counts[What.ACKED] == flushes[Reason.REMOTE_SEND_IPI] > 0
    assert counts[What.MOVED] == document["vmstat"]["pgmigrate_success"] >= counts[What.FREED] > 0
    assert flushes[Reason.REMOTE_SHOOTDOWN] <= received
    pending = last.pop("pending pages", 0)
    assert pending <= document["pending_peak"]
    assert last == {name: count for name, count in document["vmstat"].items() if count}


def test_each_flush_is_a_flow_from_its_sender_to_the_handler_and_back(
    timed: tuple[Path, dict[str, Any]], migrc: Migrc, tmp_path: Path
) -> None:
    path, document = timed
    out = tmp_path / "trace.pftrace"
    assert migrc("export", str(path), "--perfetto", str(out)) == 0
    trace = Trace()
    trace.ParseFromString(out.read_bytes())
    tracks = {one.track_descriptor.uuid: one.track_descriptor for one in trace.packet}
    flows: dict[int, list[tuple[int, str, str]]] = defaultdict(list)
    depth: Counter[int] = Counter()
    for packet in trace.packet:
        event = packet.track_event
        if event.type == TrackEvent.TYPE_SLICE_BEGIN:
            depth[event.track_uuid] += 1
        elif event.type == TrackEvent.TYPE_SLICE_END:
            depth[event.track_uuid] -= 1
            assert depth[event.track_uuid] >= 0
        for flow in (*event.flow_ids, *event.terminating_flow_ids):
            flows[flow].append((packet.timestamp, tracks[event.track_uuid].name, event.name))
    whole = [one for one in flows.values() if one[0][2] == "send flush_tlb_func"]
    assert len(whole) == document["vmstat"]["nr_tlb_remote_flush_received"]
    for flow in whole:
        times, cpus, names = zip(*flow, strict=True)
        assert names == ("send flush_tlb_func", "take flush_tlb_func", "acknowledge", "all acknowledged")
        assert cpus[0] == cpus[3] != cpus[1] == cpus[2]
        assert list(times) == sorted(times)
    assert {f"CPU {cpu}" for cpu in range(2)} <= {track.name for track in tracks.values()}
    assert all(not left for uuid, left in depth.items() if tracks[uuid].name.startswith("CPU"))


LINE = re.compile(r" *(\S+)-(\d+) +\[(\d{3})\] [d.]\.[h.][1.]\. +(\d+\.\d{9}): (\w+): (.*)")


def test_ftrace_has_the_tracepoints_of_the_kernel_in_the_order_of_time(
    timed: tuple[Path, dict[str, Any]], migrc: Migrc, tmp_path: Path
) -> None:
    path, document = timed
    out = tmp_path / "trace.txt"
    assert migrc("export", str(path), "--ftrace", str(out)) == 0
    lines = [line for line in out.read_text().splitlines() if not line.startswith("#")]
    found = [LINE.fullmatch(line) for line in lines]
    assert all(found), lines[found.index(None)] if None in found else ""
    parts = [one.groups() for one in found if one]
    times = [float(one[3]) for one in parts]
    assert times == sorted(times)
    counts = Counter(one[4] for one in parts)
    assert counts["csd_function_entry"] == counts["csd_function_exit"] > 0
    assert (
        counts["call_function_entry"]
        == counts["call_function_exit"]
        == sum(one[4] == "call_function_entry" and one[5] == "vector=252" for one in parts)
    )
    remote = [one for one in parts if one[4] == "tlb_flush" and "remote shootdown (1)" in one[5]]
    assert remote and all(re.match(r"pages:-?\d+ reason:", one[5]) for one in remote)
    sent = sum(one[4] == "csd_queue_cpu" and "func=flush_tlb_func" in one[5] for one in parts)
    assert sent == document["vmstat"]["nr_tlb_remote_flush_received"]
    # A task's line is the one that it leaves the CPU by.
    for comm, pid, *_, kind, text in parts:
        if kind == "sched_switch":
            assert f"prev_comm={comm} prev_pid={pid} " in text


def test_bitmaps_are_as_the_kernel_prints_them() -> None:
    import io

    out = io.StringIO()
    header = EventHeader(title="wide", cpus=40, unit="ns")
    write_ftrace(header, [Event(1, 0, What.SEND, "flush_tlb_func", (1, 1, 1, 33, 39))], out)
    assert "cpumask=82,00000002 " in out.getvalue()


def test_a_witness_is_a_page_without_network_where_tlbs_turn_stale(
    witness: Path, migrc: Migrc, tmp_path: Path, capsys: Captured
) -> None:
    page, table = tmp_path / "page.html", tmp_path / "table.csv"
    assert migrc("export", str(witness), "--html", str(page), "--csv", str(table), "--json") == 0
    document = json.loads(capsys.readouterr().out)
    text = page.read_text()
    steps = document["written"][0]["events"]
    assert steps == text.count('class="row"') > 10
    assert document["unit"] == "steps" and "access to a free frame" in document["title"]
    assert not re.search(r"(src|href)=|url\((?!#)|@import|fetch\(", text)
    assert "access to a free frame: read of page" in text
    arrows = json.loads(re.search(r"const arrows = (.*);", text)[1])  # type: ignore[index]
    assert [kind for _, _, kind in arrows] == ["call", "ack"]
    assert all(start < end <= steps for start, end, _ in arrows)
    changes = json.loads(re.search(r"const changes = (.*);", text)[1])  # type: ignore[index]
    stale = [entry for step in changes for entry in step.get("1", ())]
    # What CPU 1 has cached is good first, and has turned stale when it reads through it.
    assert [flag for _, flag in stale] == [0, 1]
    with table.open() as file:
        rows = list(csv.DictReader(file))
    assert sum(row["what"] == "step" for row in rows) == steps
    assert sum(row["what"] == "violation" for row in rows) == 1


def test_what_is_no_interleaving_is_not_drawn(tmp_path: Path) -> None:
    page = tmp_path / "p.html"
    with page.open("w") as file, pytest.raises(NotDrawn, match="it has no steps"):
        write_page(HEADER, [], file)
    steps = [Event(at, 0, What.STEP, "Cycle()") for at in range(MOST_STEPS + 1)]
    with page.open("w") as file, pytest.raises(NotDrawn, match="more than 3,000 steps"):
        write_page(HEADER, steps, file)


@given(data=st.data())
@settings(max_examples=40)
def test_what_was_written_is_read(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    times = st.lists(st.integers(0, 2**61), max_size=20).map(sorted)
    kinds = st.sampled_from(
        [(What.STEP, ()), (What.COUNTER, (-(2**62),)), (What.SEND, (1, 0, 1)), (What.TLB, (1, 0))]
    )
    events = []
    for at in data.draw(times):
        what, values = data.draw(kinds)
        cpu = data.draw(st.integers(-1 if what is What.COUNTER else 0, 1))
        events.append(Event(at, cpu, what, data.draw(st.text(max_size=20)), values))
    path = tmp_path_factory.mktemp("events") / "e.mev"
    with written(path, HEADER) as emit:
        for event in events:
            emit(event)
    header, again = read(path)
    assert (header, list(again)) == (HEADER, events)


@given(
    values=st.lists(st.integers(-(2**40), 2**40) | st.integers(-2, 4), max_size=4).map(tuple),
    what=st.sampled_from(What),
    cpu=st.integers(-2, 3),
)
@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_event_of_a_file_surprises_who_shows_it(
    values: tuple[int, ...], what: What, cpu: int, migrc: Migrc, tmp_path: Path, capsys: Captured
) -> None:
    path = tmp_path / "e.mev"
    path.write_bytes(zipped(GOOD | {"unit": "steps"}, "a", (0, 0, 2, 0, ()), (1, cpu, int(what), 0, values)))
    outs = [word for name in FORMATS for word in (f"--{name}", str(tmp_path / name))]
    assert migrc("export", str(path), *outs) in (0, 2)
    assert capsys.readouterr().err.count("\n") <= 1


def zipped(*items: Any) -> bytes:
    return gzip.compress(b"".join(msgpack.packb(item) for item in items), mtime=0)


GOOD = HEADER.model_dump()


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "magic: Field required|Input should be"),
        (b"\x1f\x8b", "event"),
        (gzip.compress(b"\xc1", mtime=0), "event"),
        (zipped(GOOD)[:-9], "ended before the end-of-stream"),
        (zipped([1]), "Input should be"),
        (zipped(GOOD | {"cpus": 0}), "cpus"),
        (zipped(GOOD | {"format": 2}), "format"),
        (zipped(GOOD | {"more": 1}), "more"),
        (zipped(GOOD, (0, 0, 2, 0, ())), "event 1: there is no name 0"),
        (zipped(GOOD, "a", (0, 7, 2, 0, ())), "event 1: there is no CPU 7"),
        (zipped(GOOD, "a", (0, 0, 99, 0, ())), "event 1: 2: Input should be"),
        (zipped(GOOD, "a", (5, 0, 2, 0, ()), (4, 0, 2, 0, ())), "event 2: its time 4 does not come after 5"),
        (zipped(GOOD, "a", (0, 0, 2, 0, (b"x",))), "event"),
        (zipped(GOOD, "a", (0, 0, 1, 0, ())), "function a ends, which had not begun last"),
        (zipped(GOOD, "a", (0, 0, 3, 0, (1, 1, 2**31))), "SEND names a CPU that there is not"),
        (zipped(GOOD, {"a": {}}), "event 1"),
        (zipped(GOOD, "a" * (1 << 17)), "event"),
    ],
    ids=str,
)
def test_a_bad_file_is_told_in_one_line(
    content: bytes, says: str, migrc: Migrc, tmp_path: Path, capsys: Captured
) -> None:
    path = tmp_path / "e.mev"
    path.write_bytes(content)
    with pytest.raises(UsageProblem, match=says):
        list(read(path)[1])
    out = tmp_path / "out.csv"
    assert migrc("export", str(path), "--csv", str(out)) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert not out.exists()


def test_outputs_are_looked_at_before_anything_is_done(
    witness: Path, migrc: Migrc, tmp_path: Path, capsys: Captured
) -> None:
    def refused(*arguments: str) -> str:
        assert migrc("export", *arguments) == 2
        (line,) = capsys.readouterr().err.splitlines()
        return line

    mine = tmp_path / "mine.txt"
    mine.write_text("precious")
    assert "no format; one or more of --perfetto OUT" in refused(str(witness))
    assert "would be lost" in refused(str(witness), "--csv", str(mine))
    assert "no such directory" in refused(str(witness), "--csv", str(tmp_path / "no" / "x"))
    assert "a directory" in refused(str(witness), "--csv", str(tmp_path))
    assert "No such file" in refused(str(tmp_path / "none"), "--csv", str(tmp_path / "x"))
    assert mine.read_text() == "precious"


def test_events_are_of_timed_runs(migrc: Migrc, tmp_path: Path, capsys: Captured) -> None:
    assert migrc("run", "tiering", "--events", str(tmp_path / "e.mev")) == 2
    assert "--record FILE, then migrc export FILE" in capsys.readouterr().err
