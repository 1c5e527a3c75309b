"""The recorded tiering program without QEMU: what its guest hands over, the file, and the comparison."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from scenarios.linux.recorder.tiers import Program, counted
from scenarios.linux.recorder.traced import BrokenTrace
from scenarios.linux.tier_counts import (
    Beside,
    TierRecording,
    beside,
    ratios,
    read_tiers,
    recorded_tiers,
    tiers_path,
    tiers_text,
)
from scenarios.usage import UsageProblem

Migrc = Callable[..., int]

NAMES = (
    *("pgdemote_kswapd", "pgdemote_direct", "pgpromote_success", "pgpromote_candidate", "numa_pte_updates"),
    *("numa_hint_faults", "numa_pages_migrated", "pgmigrate_success", "pgmigrate_fail", "pgactivate"),
    *("pgdeactivate", "allocstall_normal", "pageoutrun", "pgscan_kswapd", "pgscan_direct"),
)


def snapshot(phase: str, factor: int) -> str:
    lines = [f"FILE vmstat {phase}", *(f"{name} {factor * number}" for number, name in enumerate(NAMES, 1))]
    lines += [f"FILE interrupts {phase}", f"TLB: {factor} {2 * factor} 0 0   TLB shootdowns"]
    lines += [f"FILE kswapd {phase}", f"{factor}000000 5 6", f"FILE zoneinfo {phase}"]
    lines += [
        "Node 0, zone    DMA32",
        "  pages free     71188",
        "        min      559",
        "        managed  82704",
    ]
    return "\n".join(lines) + "\n"


def event(task: str, time: float, text: str) -> str:
    return f"     {task}-7     [001] .....     {time:.6f}: {text}\n"


TRACE = (
    "FILE trace whole\n# tracer: nop\n"
    + event("kswapd0", 1.0, "batched: (arch_tlbbatch_flush+0x4/0x100)")
    + event("kswapd0", 1.1, "tlb_flush: pages:-1 reason:remote ipi send (4)")
    + event("kswapd0", 1.3, "flushed: (try_to_unmap_flush+0x1/0x2 <- arch_tlbbatch_flush)")
    + event("init", 2.0, "tracing_mark_write: lookups")
    + event("init", 2.1, "scan: (task_numa_work+0x4/0x920)")
    + event("init", 2.2, "ranged: (flush_tlb_mm_range+0x4/0x1c0) start=0x0 end=0xffffffffffffffff")
    + event("init", 2.2, "tlb_flush: pages:-1 reason:remote ipi send (4)")
    + event("init", 2.3, "scanned: (task_work_run+0x59/0x90 <- task_numa_work)")
    + event("init", 2.4, "batched: (arch_tlbbatch_flush+0x4/0x100)")
    + event("init", 2.4, "tlb_flush: pages:-1 reason:remote ipi send (4)")
    + event("kcompactd0", 2.5, "tlb_flush: pages:-1 reason:remote ipi send (4)")
    + event("init", 3.0, "tracing_mark_write: part")
    + event("init", 4.0, "tracing_mark_write: over")
)
LINE = "".join(snapshot(phase, factor) for phase, factor in (("start", 1), ("tables", 3), ("lookups", 8)))


def test_what_the_guest_hands_over_becomes_counts() -> None:
    run = counted((LINE + TRACE + "OVER 0\n").splitlines(keepends=True))
    tables, lookups = run.phases["tables"], run.phases["lookups"]
    assert tables["pgdemote_kswapd"] == 2 and lookups["pgdemote_kswapd"] == 5
    assert tables["pgscan"] == 2 * (14 + 15)
    assert (tables["nr_tlb_remote_flush_received"], lookups["nr_tlb_remote_flush_received"]) == (6, 15)
    assert tables["tlb_remote_flush_demotion"] == tables["nr_tlb_remote_flush"] == 1
    assert tables["batch_flush_us"] == 200_000
    reasons = {
        name: lookups[f"tlb_remote_flush_{name}"] for name in ("scan", "promotion", "compaction", "demotion")
    }
    assert reasons == {"scan": 1, "promotion": 1, "compaction": 1, "demotion": 0}
    assert (lookups["numa_scans"], lookups["scan_us"], lookups["guest_ms"]) == (1, 200_000, 1000)
    assert run.zones == {"node 0 DMA32": "free 71188, min 559, managed 82704"}


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (LINE + TRACE, "did not come to its end"),
        (LINE + TRACE + "OVER 256\n", "status 256"),
        (TRACE + "OVER 0\n", "no counters"),
        (LINE + TRACE.replace("over", "other") + "OVER 0\n", "no end"),
        (LINE + TRACE.replace("scan: (", "scan (") + "OVER 0\n", "no event"),
    ],
)
def test_what_is_not_whole_is_no_recording(text: str, problem: str) -> None:
    with pytest.raises(BrokenTrace, match=problem):
        counted(text.splitlines(keepends=True))


def test_the_guest_is_told_the_workload() -> None:
    assert Program(7371, 186725, 2_000_000, 100, 4, 8192).settings(3) == (
        "7371 186725 2000000 100 4 600 3 32 500 12000 1500 500\n"
    )


@pytest.mark.parametrize("kernel", recorded_tiers())
def test_recordings_are_read_and_written(kernel: str, tmp_path: Path) -> None:
    recording = read_tiers(tiers_path(kernel))
    copy = tmp_path / "copy.tsv"
    copy.write_text(tiers_text(recording))
    assert read_tiers(copy) == recording
    assert len(recording.runs) >= 3
    assert recording.about["kernel"].startswith(f"{kernel}.")
    # Linux beside itself.
    assert all(one.near for one in beside(recording, recording.whole()))


@pytest.mark.parametrize(
    "text", ["", "pgscan\ttables\n", "pgscan\tsomewhere\t1\n", "a\ttables\t1\n", "a\ttables\tx\n"]
)
def test_what_is_no_recording_is_one_line(text: str, tmp_path: Path) -> None:
    path = tmp_path / "broken.tsv"
    path.write_text(text)
    with pytest.raises(UsageProblem, match="migrc compare tiers --record"):
        read_tiers(path)


def test_near_is_within_a_fifth_of_some_run() -> None:
    assert Beside("ratio", 1.0, 0.5, 1.5, 0.41).near
    assert not Beside("ratio", 1.0, 0.5, 1.5, 0.39).near
    assert Beside("ratio", 1.0, 0.5, 1.5, 1.79).near
    assert not Beside("ratio", 1.0, 0.5, 1.5, 1.81).near


def test_ratios_do_not_depend_on_the_size_of_counts() -> None:
    (run, *_) = read_tiers(tiers_path("6.12")).whole()
    larger = TierRecording({}, ()), {name: 8 * value for name, value in run.items()}
    assert ratios(larger[1]) == pytest.approx(ratios(run))


def test_a_version_that_was_not_recorded(migrc: Migrc, capsys: pytest.CaptureFixture[str]) -> None:
    assert migrc("compare", "tiers", "--kernel", "6.6") == 2
    assert "not recorded" in capsys.readouterr().err
