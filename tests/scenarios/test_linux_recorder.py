"""The recorder without QEMU: what is planned, what is booted, and how a trace becomes counts."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from scenarios.linux.areas import KINDS
from scenarios.linux.cases import Case, Counted, Recording, read_recording, written
from scenarios.linux.operation import find
from scenarios.linux.operations import CALLS
from scenarios.linux.recorder import booted, initial_files, plan
from scenarios.linux.recorder.initial_files import Kernel
from scenarios.linux.recorder.traced import BrokenTrace, Traced, count_events, majority, read_trace
from scenarios.linux.testbed import CONFIGURATIONS
from scenarios.usage import UsageProblem

Migrc = Callable[..., int]

# A fork while CPU 1 spins, CPU 2 runs another process and CPU 3 is lazy.
FORK = """\
[000] .....           34: tracing_mark_write: op
[000] .....        35: ranged: (flush_tlb_mm_range+0x0/0x1) start=0x0 end=0xffffffffffffffff stride=0 tables=1
[000] ...1.           36: tlb_flush: pages:-1 reason:remote ipi send (4)
[000] d..2.           37: asked: (flush_tlb_func+0x0/0x1f0) by=0
[000] d..2.           38: tlb_flush: pages:-1 reason:local mm shootdown (3)
[001] d.h..           39: asked: (flush_tlb_func+0x0/0x1f0) by=0
[001] d.h..           40: tlb_flush: pages:-1 reason:remote shootdown (1)
[003] d.h1.           41: asked: (flush_tlb_func+0x0/0x1f0) by=0
[003] d.h1.           42: switched: (switch_mm_irqs_off+0x0/0x470) next=0xffffffff82b5a740 task=0x0
[003] d.h1.           43: tlb_flush: pages:-1 reason:flush on task switch (0)
[000] .....           44: tracing_mark_write: wake
[002] d..2.           45: switched: (switch_mm_irqs_off+0x0/0x470) next=0xffff88800000 task=0xffff888004b820c0
[002] d..2.           46: tlb_flush: pages:-1 reason:flush on task switch (0)
[003] d..2.           47: switched: (switch_mm_irqs_off+0x0/0x470) next=0xffff88800000 task=0xffff8880089d0000
[003] d..2.           48: tlb_flush: pages:-1 reason:flush on task switch (0)
[000] .....           49: tracing_mark_write: end
""".splitlines()

RANGED = "[000] .....  2: ranged: (flush_tlb_mm_range+0x0/0x1) start={} end={} stride={} tables={}"
NONE = Counted({}, 0, {}, {}, {})


def test_a_trace_becomes_counts() -> None:
    assert count_events(FORK) == Counted(
        {"full+ft": 1},
        1,
        {"1": {"full": 1}, "3": {"lazy": 1}},
        {"full": 1},
        {"op3": 1, "wake2": 1, "wake3": 1},
    )


@pytest.mark.parametrize(
    ("arguments", "call"),
    [
        (("0x40010000", "0x40018000", "12", "0"), "8"),
        (("0x40010000", "0x40018000", "12", "1"), "8+ft"),
        (("0x40000000", "0x40200000", "21", "0"), "512/pmd"),
        (("0x0", "0xffffffffffffffff", "0", "1"), "full+ft"),
    ],
)
def test_a_call_is_named_by_its_arguments(arguments: tuple[str, ...], call: str) -> None:
    marks = ("[000] ..... 1: tracing_mark_write: op", "[000] ..... 3: tracing_mark_write: end")
    assert count_events((marks[0], RANGED.format(*arguments), marks[1])) == NONE._replace(calls={call: 1})
    assert count_events((RANGED.format(*arguments), *marks)) == NONE


def test_of_an_exit_the_cpu_counts_that_does_it() -> None:
    lines = (
        "[000] ..... 34: tracing_mark_write: op",
        f"[001] ..... 35: {FORK[1].split(': ', 1)[1]}",
        "[001] ...1. 36: tlb_flush: pages:-1 reason:remote ipi send (4)",
        "[000] d.h1. 41: asked: (flush_tlb_func+0x0/0x1f0) by=1",
        "[000] d.h1. 42: switched: (switch_mm_irqs_off+0x0/0x470) next=0xffffffff82b5a740 task=0x0",
        "[000] ..... 49: tracing_mark_write: end",
    )
    exits, others = read_trace(["CASE exit_8 s1", *lines, "DONE 0", "CASE fork s1", *lines, "DONE 0", "OVER"])
    assert exits.counted == Counted({"full+ft": 1}, 1, {"0": {"lazy": 1}}, {}, {})
    assert others.counted == NONE


def test_a_cpu_that_is_asked_and_does_nothing_is_counted_as_such() -> None:
    asked = "[002] d.h.. {}: asked: (flush_tlb_func+0x0/0x1f0) by={}"
    marked = "[000] ..... 1: tracing_mark_write: op"
    assert count_events((marked, asked.format(2, 0), asked.format(3, 0))).recv == {"2": {"none": 2}}
    assert count_events((marked, asked.format(2, 1))) == NONE


def test_every_case_of_a_trace_is_read_and_the_majority_counts() -> None:
    alone = [line for line in FORK if not line.startswith("[003]")]
    lines = [
        *("CASE fork mix", *FORK, "DONE 0"),
        *("CASE fork mix", *alone, "DONE 0"),
        *("CASE fork mix", *FORK, "DONE 0"),
        *("CASE exit_8 k0", "DONE 256"),
        *("CASE fork mix", "DONE 256"),
        "OVER",
    ]
    cases, lost = majority(read_trace(lines))
    assert lost == [("exit_8", "k0")]
    (case,) = cases
    assert case.key == ("fork", "mix") and case.agreed == (2, 3)
    assert case.counted == count_events(FORK)


@pytest.mark.parametrize(
    "lines",
    [
        ["CASE fork mix", *FORK, "DONE 0"],
        [],
        ["CASE fork mix", "Kernel panic - not syncing", "DONE 0", "OVER"],
        ["CASE fork mix", "[000] ..... 1: tlb_flush: of another format", "DONE 0", "OVER"],
    ],
)
def test_a_trace_that_the_guest_does_not_write_is_refused(lines: list[str]) -> None:
    with pytest.raises(BrokenTrace):
        list(read_trace(lines))


def test_what_is_planned_has_a_program() -> None:
    for operation, configuration in plan.planned():
        assert configuration in CONFIGURATIONS
        assert find(operation, CALLS) is not None, operation
    assert len(set(plan.planned())) == len([*plan.planned()]) > 400


def test_the_guest_has_the_same_calls_and_the_same_kinds_of_memory() -> None:
    sources = Path(initial_files.__file__).parent
    calls = re.findall(r'^\t\{ "(\w+)", \w+, \w+[,} ]', (sources / "operations.c").read_text(), re.M)
    kinds = re.findall(r'^\t\{ "(\w*)", \w+, \w+, \w+', (sources / "areas.c").read_text(), re.M)
    assert set(calls) == set(CALLS) and set(kinds) == set(KINDS)
    spelt = re.findall(r'^\t\{ "(\w+)", "(\w+)" \}', (sources / "operations.c").read_text(), re.M)
    for name, meant in spelt:
        assert find(name, CALLS) == find(meant, CALLS) is not None


def test_the_guest_is_a_program_in_c(tmp_path: Path) -> None:
    sources = Path(initial_files.__file__).parent
    for name in ("guest.c", "operations.c", "areas.c"):
        command = ["gcc", "-fsyntax-only", "-Wall", "-Wextra", "-Werror", "-Wno-missing-field-initializers"]
        try:
            done = subprocess.run([*command, str(sources / name)], capture_output=True, text=True)
        except FileNotFoundError:
            pytest.skip("no gcc")
        assert done.returncode == 0, done.stderr


def test_an_archive_has_its_files_at_multiples_of_four() -> None:
    archive = initial_files.cpio([("init", 0o100755, b"abc"), ("dev", 0o040755, b"")])
    heads = [match.start() for match in re.finditer(b"070701", archive)]
    assert len(heads) == 3 and all(at % 4 == 0 for at in heads)
    mode, size = int(archive[14:22], 16), int(archive[54:62], 16)
    assert (mode, size) == (0o100755, 3)
    assert archive[110:115] == b"init\0" and archive[116:119] == b"abc"
    assert b"TRAILER!!!" in archive


def test_the_newest_package_of_the_version_is_taken(tmp_path: Path) -> None:
    for name in ("6.12.9+deb13", "6.12.48+deb13", "6.1.0-53"):
        (tmp_path / f"linux-image-{name}-cloud-amd64_1_amd64.deb").write_bytes(b"")
    found = initial_files.kernel_package("6.12", tmp_path, tmp_path)
    assert "6.12.48" in found.name
    with pytest.raises(UsageProblem, match=r"no linux-image-6\.6"):
        initial_files.kernel_package("6.6", tmp_path, tmp_path)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--record",), "--record: of which version?"),
        (("--record", "--kernel", "6.12", "--operation", "frok", "--cases", "x"), "did you mean fork?"),
        (("--packages", "."), "--packages: only for --record"),
    ],
)
def test_what_cannot_be_recorded_is_told(
    options: tuple[str, ...], told: str, migrc: Migrc, capsys: pytest.CaptureFixture[str]
) -> None:
    assert migrc("compare", "linux", *options) == 2
    assert told in capsys.readouterr().err


@pytest.mark.parametrize("release", ["6.12.1", "6.12.2"])
def test_some_operations_are_recorded_in_place(
    release: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    migrc: Migrc,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def recorded(
        version: str, cases: list[tuple[str, str]], runs: int, *_: object
    ) -> tuple[Recording, list[object]]:
        found = [Case(*key, NONE._replace(send=3), (runs, runs)) for key in cases]
        return Recording(release, False, {"kernel": release, "pcid": "no"}, tuple(found)), []

    path = tmp_path / "6.12.tsv"
    before = (Case("nothing", "k0", NONE, (3, 3)), Case("fork", "k0", NONE, (3, 3)))
    path.write_text(written(Recording("6.12.1", False, {"kernel": "6.12.1", "pcid": "no"}, before)))
    monkeypatch.setattr(booted, "record", recorded)
    monkeypatch.setattr("scenarios.verbs.compare.path_of", lambda version: path)
    monkeypatch.setattr("scenarios.verbs.compare.recording_of", lambda version: read_recording(path))
    code = migrc("compare", "linux", "--record", "--kernel", "6.12", "--operation", "fork", "--quiet")
    sends = {case.key: case.counted.send for case in read_recording(path).cases}
    assert sends["nothing", "k0"] == 0 and code in (1, 2)
    if release == "6.12.2":
        assert "is of 6.12.1, recorded was 6.12.2" in capsys.readouterr().err and sends["fork", "k0"] == 0
    else:
        assert sends["fork", "k0"] == sends["fork", "s3"] == 3


def test_cases_without_a_majority_are_run_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    booted_with: list[list[tuple[str, str]]] = []

    def boot(kernel: object, cases: list[tuple[str, str]], *_: object) -> list[Traced]:
        booted_with.append(cases)
        sends = (1, 2) if len(booted_with) == 1 else (2, 2)
        fork = [Traced("fork", "k0", NONE._replace(send=send)) for send in sends]
        failed = [Traced("exit_8", "k0", None)] * cases.count(("exit_8", "k0"))
        return fork + failed + [Traced("nothing", "k0", NONE)] * cases.count(("nothing", "k0"))

    monkeypatch.setattr(booted, "QEMU", "sh")
    monkeypatch.setattr(booted, "kernel_package", lambda *_: tmp_path)
    monkeypatch.setattr(booted, "unpacked", lambda *_: Kernel("6.12.1", tmp_path, b""))
    monkeypatch.setattr(booted, "_boot", boot)
    cases = [("fork", "k0"), ("nothing", "k0"), ("exit_8", "k0")]
    recording, lost = booted.record("6.12", cases, 2, tmp_path)
    assert booted_with == [cases * 2, [("fork", "k0")] * 2] and lost == [("exit_8", "k0")]
    fork, nothing = recording.cases
    assert fork.counted.send == 2 and fork.agreed == (3, 4) and nothing.agreed == (2, 2)
    assert recording.kernel == "6.12.1" and not recording.pcid


def test_without_qemu_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(booted, "QEMU", "qemu-system-nowhere")
    with pytest.raises(UsageProblem, match="no qemu-system-nowhere here"):
        booted.record("6.12", [("nothing", "k0")], 1, None)
