"""Captures of real kernels: read exactly, beside our own runs, and as costs of ours.

`captures/` has what a thread pinned to CPU 0 did that unmapped 1, 8, 32 and 200 pages in turn, 60 times,
while another one of its process ran on CPU 1: Linux 6.18 as a guest with two CPUs, `perf script --ns` and
/sys/kernel/tracing/trace, lines of that process only.
"""

from __future__ import annotations

import json
import random
import re
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from emulator.measure.costs import Costs
from emulator.measure.histogram import Histogram
from scenarios.events.capture import CaptureProblem, read_capture
from scenarios.events.event import Event, What
from scenarios.runs.event_figures import Figures
from tests.live.shell import settings as small

Migrc = Callable[..., int]
Captured = pytest.CaptureFixture[str]

HERE = Path(__file__).parent / "captures"
PERF, FTRACE = HERE / "perf.txt", HERE / "ftrace.txt"
HEAD = "  storm-7  [000] d..1. "
FLUSH = "tlb_flush: pages:1 reason:flush on task switch (0)"


def figures(migrc: Migrc, capsys: Captured, kind: str, path: Path, *more: str) -> list[dict[str, Any]]:
    assert migrc("trace", "import", kind, str(path), "--json", *more) == 0
    found: list[dict[str, Any]] = json.loads(capsys.readouterr().out)["columns"]
    return found


@pytest.mark.parametrize(("kind", "path"), [("perf", PERF), ("ftrace", FTRACE)])
def test_a_capture_has_what_a_count_of_its_lines_has(
    migrc: Migrc, capsys: Captured, kind: str, path: Path
) -> None:
    (real,) = figures(migrc, capsys, kind, path)
    text = path.read_text()
    assert real["counters"]["nr_tlb_remote_flush"] == text.count("remote IPI send (4)") == 60
    # Another task ran where one call was taken, whose lines are not there.
    taken = len(re.findall(r"csd_function_entry: func=flush_tlb_func, csd=0*x?[0-9a-f]*[1-9a-f]", text))
    assert real["interrupts"]["TLB"] == [0, taken] and taken == 59
    assert real["counters"]["tlb_flush_on_task_switch"] == text.count("flush on task switch (0)")
    assert {kind: one["count"] for kind, one in real["ipi_latency_ns"].items()} == {
        "delivery": 59,
        "handler": 59,
        "round_trip": 59,
    }
    # By hand, from the first request of the capture in microseconds: queued at 651385, taken at 651405.
    assert 18_000 < real["ipi_latency_ns"]["delivery"]["p50"] < 22_000
    assert real["taken_before_sent"] == 0


def test_the_first_request_of_a_capture_is_what_one_reads_there() -> None:
    capture = read_capture(FTRACE.read_text().splitlines())
    first = capture.events[0].at
    mine = [event for event in capture.events if event.values[-2:] == (0, 1) or event.what is What.SEND][:3]
    assert [(event.at - first, event.cpu, event.what, event.values) for event in mine] == [
        (1_000, 0, What.SEND, (1, 1, 1)),
        (21_000, 1, What.TAKE, (0, 1)),
        (23_000, 1, What.ACK, (0, 1)),
    ]
    assert (capture.cpus, capture.lost, capture.coarse, capture.ignored) == (2, 0, True, 12)


def test_trace_cmds_report_is_read_too() -> None:
    """It has no flags column without -l, and the event's name is followed by spaces."""
    lines = [
        re.sub(r"\] \S+ +(\d+\.\d+): (\w+): ", r"]  \1: \2:            ", line)
        for line in FTRACE.read_text().splitlines()
        if not line.startswith("#")
    ]
    assert read_capture(lines).events == read_capture(FTRACE.read_text().splitlines()).events


def test_our_own_text_of_ftrace_comes_back_as_what_the_run_counted(
    migrc: Migrc, tmp_path: Path, capsys: Captured
) -> None:
    events, text = tmp_path / "e.mev", tmp_path / "ftrace.txt"
    run = ("run", "tiering", "--engine", "timed", "--cpus", "4", "--policy", "migrc", "--quiet", "--json")
    assert migrc(*run, *small("threads.accesses=8000"), "--events", str(events)) == 0
    counted = json.loads(capsys.readouterr().out)["runs"][0]
    assert migrc("export", str(events), "--ftrace", str(text), "--quiet") == 0
    capsys.readouterr()
    real, ours = figures(migrc, capsys, "ftrace", text, "--beside", str(events))
    assert ours["name"] == "e"
    for name in ("nr_tlb_remote_flush", "nr_tlb_remote_flush_received", "tlb_flush_on_task_switch"):
        assert real["counters"].get(name, 0) == ours["counters"].get(name, 0) == counted["vmstat"][name], name
    assert real["interrupts"]["TLB"] == counted["interrupts"]["TLB"]
    # A function without a single operation has no beginning in our events, and takes no time in the text.
    assert real["ipi_latency_ns"]["delivery"] == ours["ipi_latency_ns"]["delivery"]
    # The word of the last acknowledgement goes to the sender, which no tracepoint tells.
    trips = [one["ipi_latency_ns"]["round_trip"] for one in (real, ours)]
    assert trips[0]["max"] == trips[1]["max"] - Costs().line_ns and trips[0]["count"] == trips[1]["count"]
    assert real["ipi_latency_hdr"]["delivery"] == counted["ipi_latency_hdr"]["delivery"]
    assert real["ipi_latency_ns"]["delivery"]["count"] > 10


def test_a_delivery_to_several_is_none_of_one_and_none_is_before_its_call() -> None:
    figures = Figures(3)
    figures.feed(
        [
            Event(10, 0, What.SEND, "flush_tlb_func", (1, 1, 1, 2)),
            Event(12, 1, What.TAKE, "flush_tlb_func", (0, 1)),
            Event(20, 1, What.SEND, "flush_tlb_func", (1, 1, 2)),
            Event(25, 2, What.TAKE, "flush_tlb_func", (1, 1)),
            Event(30, 2, What.SEND, "flush_tlb_func", (1, 1, 0)),
            # Its clock is behind the sender's, by the least that can be seen.
            Event(29, 0, What.TAKE, "flush_tlb_func", (2, 1)),
        ]
    )
    assert figures.single == [5] and figures.early == 1
    assert figures.interrupts == [1, 1, 1] and len(figures.latencies["delivery"]) == 2


def test_its_events_are_exported_like_ours(migrc: Migrc, tmp_path: Path, capsys: Captured) -> None:
    events, page, trace = tmp_path / "real.mev", tmp_path / "real.html", tmp_path / "real.pftrace"
    assert migrc("trace", "import", "perf", str(PERF), "-o", str(events)) == 0
    told = capsys.readouterr().out
    assert "60" in told and "IPI delivery" in told and f"{events}: " in told
    assert migrc("export", str(events), "--html", str(page), "--perfetto", str(trace), "--json") == 0
    assert page.read_text().count("flush_tlb_func") and trace.stat().st_size > 10_000
    again = read_capture(PERF.read_text().splitlines())
    assert json.loads(capsys.readouterr().out)["written"][0]["events"] == len(again.events)


def test_costs_are_medians_and_a_workload_takes_them(migrc: Migrc, tmp_path: Path, capsys: Captured) -> None:
    assert migrc("calibrate", str(PERF)) == 0
    costs = tomllib.loads(capsys.readouterr().out)["costs"]
    assert costs.keys() == {"ipi_deliver_ns", "invlpg_ns"}
    assert 15_000 < costs["ipi_deliver_ns"] < 25_000 and 50 < costs["invlpg_ns"] < 200
    assert migrc("calibrate", str(PERF), "--ipi-send-ns", "0", "--json") == 0
    document = json.loads(capsys.readouterr().out)
    whole = {one["key"]: one["ns"] for one in document["costs"]}
    assert abs(whole["ipi_deliver_ns"] - costs["ipi_deliver_ns"] - 120) <= 1
    assert document["missing"] == ["flush_ns: 15 samples, 30 are needed"]
    settings = [part for key, ns in costs.items() for part in ("--set", f"costs.{key}={ns}")]
    run = ("run", "tiering", "--engine", "timed", "--cpus", "2", "--policy", "immediate", "--json", "--quiet")
    assert migrc(*run, *settings, *small("threads.accesses=4000")) == 0
    ours = json.loads(capsys.readouterr().out)["runs"][0]["ipi_latency_ns"]["delivery"]["p50"]
    (real,) = figures(migrc, capsys, "perf", PERF)
    assert abs(ours / real["ipi_latency_ns"]["delivery"]["p50"] - 1) < 0.1


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "no line is an event; perf record -a"),
        ("nothing\nof the kind\n", "no line is an event"),
        (f"{HEAD}1.000001: sched_wakeup: comm=a pid=1\n", "no tlb_flush and no csd_* among its events"),
        (f"{HEAD}12345: {FLUSH}\n", "line 1: its time is 12345; seconds with 6 or 9"),
        (
            f"{HEAD}1.000002: tlb_flush: pages:1 reason:x (9)\n",
            "(9)' is no tlb_flush that is known",
        ),
        (
            f"{HEAD}1.000002: {FLUSH}\n{HEAD}1.000001: {FLUSH}\n",
            "line 2: time goes back on CPU 0",
        ),
        (f"{HEAD}1.000001: csd_queue_cpu: cpu=1 func=f\n", "line 1: no csd= in 'cpu=1 func=f'"),
        (f"{HEAD}1.000001: csd_queue_cpu: cpu=x func=f csd=1\n", "line 1: 'x' is no CPU"),
        (f"{HEAD}1.000001: csd_queue_cpu: cpu=99999 func=f csd=1\n", "more than 4,096 CPUs"),
        (f"  a-1 [99999] d..1. 1.000001: {FLUSH}\n", "more than 4,096 CPUs"),
        ("x" * 5000, "line 1: it is longer than any event's"),
    ],
)
def test_what_is_no_capture_is_told_in_a_line(
    migrc: Migrc, tmp_path: Path, capsys: Captured, text: str, told: str
) -> None:
    path = tmp_path / "c.txt"
    path.write_text(text)
    for verb in (("trace", "import", "ftrace"), ("calibrate",)):
        assert migrc(*verb, str(path)) == 2
        out, error = capsys.readouterr()
        assert told in error and error.count("\n") == 1 and not out


def test_lost_events_and_clocks_that_disagree_are_told(
    migrc: Migrc, tmp_path: Path, capsys: Captured
) -> None:
    path = tmp_path / "c.txt"
    call = "func=flush_tlb_func csd=00000000de6eb726"
    begun = call.replace(" csd", ", csd")
    path.write_text(
        "CPU:1 [LOST 33 EVENTS]\n"
        f"{HEAD}2.000001: csd_queue_cpu: cpu=1 callsite=x {call}\n"
        f"  storm-7  [001] d.h1. 1.999999: csd_function_entry: {begun}\n"
        f"  storm-7  [001] d.h1. 2.000003: csd_function_exit: {begun}\n"
    )
    assert migrc("trace", "import", "ftrace", str(path)) == 0
    told = capsys.readouterr().out
    assert "The kernel lost 33 events" in told
    assert migrc("calibrate", str(path)) == 2
    assert "too few samples for any cost" in capsys.readouterr().err


def test_mutated_captures_are_read_or_refused() -> None:
    """Whatever bytes are changed: events that a file of events takes, or CaptureProblem."""
    from scenarios.events.event import Judge

    rng = random.Random(5)
    lines = PERF.read_text().splitlines()[:60]
    for _ in range(400):
        mine = list(lines)
        for _ in range(rng.choice((1, 1, 3, 8))):
            place = rng.randrange(len(mine))
            line = mine[place]
            cut = rng.randrange(len(line) + 1)
            mine[place] = rng.choice(
                (
                    line[:cut],
                    line[:cut] + rng.choice("0-9[:=. ,(x") + line[cut + 1 :],
                    mine[rng.randrange(60)],
                )
            )
        try:
            capture = read_capture(mine)
        except CaptureProblem:
            continue
        judge = Judge(capture.cpus)
        for event in capture.events:
            judge.look(event)


def test_a_curve_of_a_capture_is_the_histogram_it_was(migrc: Migrc, capsys: Captured) -> None:
    (real,) = figures(migrc, capsys, "perf", PERF)
    again = Histogram.from_hdr(real["ipi_latency_hdr"]["handler"], real["ipi_latency_ns"]["handler"]["max"])
    assert again.summary() == real["ipi_latency_ns"]["handler"]
