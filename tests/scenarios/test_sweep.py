"""Sweeps and timed runs on the command line: grids, resuming, refusals, and Ctrl-C in the middle."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from scenarios.runs import timed
from scenarios.runs.document import Run
from scenarios.runs.grid import run_point
from scenarios.subjects.subject import Subject
from scenarios.verbs import sweep as sweep_command

ROOT = Path(__file__).parents[2]

Migrc = Callable[..., int]

SMALL = (
    "--set",
    "threads.accesses=2000",
    "--set",
    "memory.fast_pages=256",
    "--set",
    "memory.min_free_pages=32",
    "--policy",
    "immediate",
)
SWEEP = ("sweep", "tiering", "--vary", "cpus=2,3", "--vary", "sockets=1,2", *SMALL)


def timeless(document: dict[str, Any]) -> dict[str, Any]:
    for point in document["points"]:
        del point["run"]["wall_s"]
    return document


def output(migrc: Migrc, capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    assert migrc(*arguments, "--json") == 0
    return timeless(json.loads(capsys.readouterr().out))


class Counting:
    """Counts points as they are run, and interrupts before one of them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, interrupt_at: int = -1) -> None:
        self.points: list[Subject] = []
        self.interrupt_at = interrupt_at
        monkeypatch.setattr(sweep_command, "run_point", self.run)

    def run(self, subject: Subject, watched: bool) -> Run:
        if len(self.points) == self.interrupt_at:
            raise KeyboardInterrupt
        self.points.append(subject)
        return run_point(subject, watched)


def test_every_point_of_the_grid_is_run_in_order(migrc: Migrc, capsys: pytest.CaptureFixture[str]) -> None:
    document = output(migrc, capsys, *SWEEP, "--policy", "migrc")
    found = [(point["values"], point["policy"]) for point in document["points"]]
    assert found == [
        ({"cpus": cpus, "sockets": sockets}, policy)
        for cpus in ("2", "3")
        for sockets in ("1", "2")
        for policy in ("immediate", "migrc")
    ]
    assert [len(point["run"]["clocks_ns"]) for point in document["points"]] == [2] * 4 + [3] * 4
    assert document["engine"] == "timed"


def test_the_table_has_a_line_for_each(migrc: Migrc, capsys: pytest.CaptureFixture[str]) -> None:
    assert migrc(*SWEEP) == 0
    out, err = capsys.readouterr()
    lines = out.splitlines()
    assert lines[0] == "tiering: timed engine, kernel 6.12, x86, 4 CPUs, seed 0, unless varied"
    assert lines[2].split()[:4] == ["cpus", "sockets", "policy", "elapsed"]
    assert [line.split()[:3] for line in lines[3:7]] == [
        [cpus, sockets, "immediate"] for cpus in "23" for sockets in "12"
    ]
    # So short a study says nothing of migration, and says so.
    assert lines[8].startswith("With care: at 4 of 4 nothing migrated; at 4 of 4 there were fewer than 30")
    assert err.splitlines()[0].startswith("migrc: 1 of 4: cpus=2 sockets=1 immediate: ")


def test_an_axis_may_be_so_many_for_each_of_another(
    migrc: Migrc, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    counting = Counting(monkeypatch)
    out = str(tmp_path / "out.jsonl")
    asked = ("sweep", "tiering", "--vary", "cpus=1,2", "--vary", "memory.fast_pages=300*cpus,256", *SMALL)
    document = output(migrc, capsys, *asked, "--out", out)
    assert [(one.cpus, one.workload.memory.fast_pages) for one in counting.points] == [
        *((1, 300), (1, 256), (2, 600), (2, 256))
    ]
    # As it was given, so that the sweep can go on.
    assert document["points"][2]["values"] == {"cpus": "2", "memory.fast_pages": "300*cpus"}
    output(migrc, capsys, *asked, "--out", out)
    assert len(counting.points) == 4
    for wrong, told in (
        ("memory.fast_pages=2*seed", "seed is no other axis with numbers; cpus"),
        ("memory.fast_pages=2*memory.fast_pages", "memory.fast_pages is no other axis with numbers; cpus"),
        ("memory.fast_pages=0*cpus", "memory.fast_pages"),
        ("cpus=2*cpus", "cpus is no other axis with numbers; a number, or vary something else too"),
    ):
        assert migrc("sweep", "tiering", "--vary", wrong) == 2
        error = capsys.readouterr().err
        assert told in error and error.count("\n") == 1


def test_a_sweep_goes_on_where_it_ended(
    migrc: Migrc, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    whole = output(migrc, capsys, *SWEEP)
    file = tmp_path / "results.jsonl"
    counting = Counting(monkeypatch, interrupt_at=2)
    assert migrc(*SWEEP, "--out", str(file), "--json") == 130
    out, err = capsys.readouterr()
    assert err.splitlines()[-1] == "migrc: interrupted, 2 of 4 runs are through"
    part = timeless(json.loads(out))
    assert part.pop("interrupted")
    assert part["points"] == whole["points"][:2]
    # A kill in the middle of writing leaves a line without its end.
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join(lines[:2]) + lines[2][:-9])
    counting = Counting(monkeypatch)
    assert output(migrc, capsys, *SWEEP, "--out", str(file)) == whole
    assert [(one.cpus, one.workload.costs.sockets) for one in counting.points] == [(2, 2), (3, 1), (3, 2)]
    counting = Counting(monkeypatch)
    assert output(migrc, capsys, *SWEEP, "--out", str(file)) == whole
    assert counting.points == []
    assert len(file.read_bytes().splitlines()) == 5


def test_a_kill_while_the_first_line_was_written(
    migrc: Migrc, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = tmp_path / "results.jsonl"
    whole = output(migrc, capsys, *SWEEP, "--out", str(file))
    file.write_bytes(file.read_bytes()[:20])
    assert output(migrc, capsys, *SWEEP, "--out", str(file)) == whole


@pytest.mark.parametrize(
    ("change", "key"),
    [
        (("--seed", "1"), "seed"),
        (("--cpus", "5"), "cpus"),
        (("--policy", "migrc"), "policies"),
        (("--vary", "costs.flush_ns=1,2"), "vary"),
        (("--set", "costs.flush_ns=7"), "settings"),
        (("--arch", "sc"), "arch"),
    ],
)
def test_the_file_of_another_sweep_is_refused(
    change: tuple[str, ...], key: str, migrc: Migrc, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = tmp_path / "results.jsonl"
    short = ("sweep", "tiering", "--vary", "sockets=1", *SMALL, "--out", str(file))
    assert migrc(*short) == 0
    before = file.read_bytes()
    capsys.readouterr()
    assert migrc(*short, *change) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line == (
        f"migrc: error: --out {file}: holds another sweep ({key} differs); another file, or the same command"
    )
    assert file.read_bytes() == before


@pytest.mark.parametrize("content", ["hello", "hello\n", "[1]\n", '{"points": []}\n'])
def test_a_file_that_is_something_else_is_left_alone(
    content: str, migrc: Migrc, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = tmp_path / "mine.txt"
    file.write_text(content)
    assert migrc(*SWEEP, "--out", str(file)) == 2
    assert "not the result of a sweep" in capsys.readouterr().err
    assert file.read_text() == content


def test_a_damaged_line_is_named(migrc: Migrc, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "results.jsonl"
    assert migrc(*SWEEP, "--out", str(file)) == 0
    lines = file.read_bytes().splitlines(keepends=True)
    for damaged in (b"{}\n", lines[1].replace(b'"TLB"', b'"TLBx"', 1)):
        assert damaged != lines[1]
        file.write_bytes(lines[0] + damaged + lines[2])
        capsys.readouterr()
        assert migrc(*SWEEP, "--out", str(file)) == 2
        assert "line 2 is damaged" in capsys.readouterr().err
    file.unlink()
    assert migrc(*SWEEP, "--out", str(tmp_path)) == 2
    assert "Is a directory" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--vary", "cpus"), "--vary cpus: not understood; KEY=a,b,c, such as cpus=4,16,64"),
        (("--vary", "cpus=1,,2"), "--vary cpus=1,,2: not understood"),
        (("--vary", "cpus=2,2"), "--vary cpus=2,2: 2 is given twice"),
        (("--vary", "cpus=0"), "--vary cpus: 0 is out of range"),
        (("--vary", "cpus=many"), "--vary cpus: many is no whole number"),
        (("--vary", "seed=-1"), "--vary seed: -1 is out of range"),
        (("--vary", "speed=1"), "speed is no key; cpus, sockets, seed or section.key"),
        (("--vary", "sockets=1", "--vary", "sockets=2"), "sockets is varied twice"),
        (("--vary", "sockets=1", "--vary", "costs.sockets=2"), "are the same; one of them"),
        (("--vary", "costs.flush=1"), "--vary costs.flush: unknown key; did you mean flush_ns?"),
        (("--vary", "costs.flush_ns=-1"), "--vary costs.flush_ns: -1 is too small; 0 or more"),
        (("--vary", "sockets=65"), "--vary costs.sockets: 65 is too large; 64 or less"),
        (("--vary", "sockets=1", "--set", "costs.walk_ns=x"), "--set costs.walk_ns: 'x' is no whole number"),
        (("--vary", "sockets=1", "--policy", "none"), "--policy: unknown policy 'none'"),
        (("--vary", "sockets=1", "--policy", "migrc", "--policy", "migrc"), "migrc is given twice"),
        (
            ("--vary", "memory.fast_pages=64,1024", "--set", "memory.min_free_pages=16", "--cpus", "8"),
            "64 pages are too few to boot 8 CPUs",
        ),
    ],
)
def test_bad_input_is_one_line_before_anything_runs(
    arguments: tuple[str, ...], said: str, migrc: Migrc, capsys: pytest.CaptureFixture[str]
) -> None:
    assert migrc("sweep", "tiering", *arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert len(err.splitlines()) == 1
    assert said in err


@pytest.mark.parametrize("device", ["/dev/null", "/dev/full"])
def test_a_device_is_no_result_file(device: str, migrc: Migrc, capsys: pytest.CaptureFixture[str]) -> None:
    assert migrc(*SWEEP, "--out", device) == 2
    out, err = capsys.readouterr()
    assert (out, err) == (
        "",
        f"migrc: error: --out {device}: no regular file; the path of one, or of a new one\n",
    )


# --- migrc run --engine timed ------------------------------------------------------------------------------


def test_a_timed_run_has_the_document_of_a_live_one(migrc: Migrc, capsys: pytest.CaptureFixture[str]) -> None:
    assert migrc("run", "tiering", "--engine", "timed", "--json", "--cpus", "3", *SMALL) == 0
    document = json.loads(capsys.readouterr().out)
    (run,) = document["runs"]
    live = {
        "vmstat",
        "interrupts",
        "ipi_latency_ns",
        "accesses",
        "pending_peak",
        "violations",
        "check_sampling",
    }
    assert live < set(run)
    assert document["engine"] == "timed"
    assert run["accesses"] == 6000
    assert run["elapsed_ns"] == max(run["clocks_ns"]) == round(run["elapsed_s"] * 1e9)
    assert 0 < run["shootdown_share"] < 1
    assert run["violations"] == []


def test_the_report_shows_what_shootdowns_took(migrc: Migrc, capsys: pytest.CaptureFixture[str]) -> None:
    assert migrc("run", "tiering", "--engine", "timed", *SMALL) == 0
    out, err = capsys.readouterr()
    assert out.startswith("tiering: timed engine, kernel 6.12, x86, 4 CPUs, seed 0\n")
    assert "time in shootdowns, of all CPUs" in out
    assert err.startswith("migrc: immediate: 8,000 accesses, ")


def test_ctrl_c_keeps_the_policies_that_are_through(
    migrc: Migrc, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = timed.timed_run

    def once(subject: Subject, *rest: Any) -> Any:
        if subject.policy == "migrc":
            raise KeyboardInterrupt
        return real(subject, *rest)

    monkeypatch.setattr(timed, "timed_run", once)
    both = ("run", "tiering", "--engine", "timed", *SMALL, "--policy", "migrc")
    assert migrc(*both, "--json") == 130
    out, err = capsys.readouterr()
    document = json.loads(out)
    assert [run["policy"] for run in document["runs"]] == ["immediate"]
    assert document["interrupted"] is True
    assert err.splitlines()[-1] == "migrc: interrupted"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--set", "costs.flush=1"), "--set costs.flush: unknown key; did you mean flush_ns?"),
        (("--set", "costs.access_ns=0"), "--set costs.access_ns: 0 is too small; 1 or more"),
        (("--set", "costs.cache_misses_per_1000=1001"), "1001 is too large; 1000 or less"),
        (("--set", "costs.slow_ns=50"), "costs.slow_ns: 50 ns is less than the fast tier's 100; 100 or more"),
        (("--set", "costs=1"), "1 where a section belongs; [costs] with keys"),
        (("--address", "a:1"), "--address: a timed run has no use for it; leave it out, or --engine live"),
        (("--record", "x.mrec"), "--record: a timed run has no use for it"),
        (("--dashboard",), "--dashboard: a timed run has no use for it"),
        (("--cpus", "1000"), "1000 is not in the range"),
    ],
)
def test_what_a_timed_run_refuses(
    arguments: tuple[str, ...], said: str, migrc: Migrc, capsys: pytest.CaptureFixture[str]
) -> None:
    assert migrc("run", "tiering", "--engine", "timed", *arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert len(err.splitlines()) == 1
    assert said in err


def test_a_policy_that_raises_is_one_line(
    folder: Path, migrc: Migrc, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "raising_policy.py").write_text(
        "from emulator.policies.immediate import Immediate\n"
        "class Raising(Immediate):\n"
        "    async def pending_pages(self, cpu, node):\n"
        "        raise KeyError('x')\n"
    )
    name = "raising_policy:Raising"
    for verb in (("run", "tiering", "--engine", "timed"), ("sweep", "tiering", "--vary", "cpus=2")):
        assert migrc(*verb, *SMALL[:-1], name) == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert err.startswith(f"migrc: error: policy {name}: CPU ")
        assert err.rstrip().endswith("raising_policy.py:4 in pending_pages)")
        assert len(err.splitlines()) == 1
