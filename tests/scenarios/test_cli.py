"""The command line: what it prints where, its exit codes, and one line for every kind of bad input.

The engine is replaced by one that answers at once, so no test here starts Ray.
"""

import contextlib
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from rich.console import Console
from rich.progress import Progress

from actors.signals import Terminated
from emulator.hardware.ordering import ARCHITECTURES
from emulator.measure.histogram import Histogram
from emulator.measure.vmstat import merge
from scenarios.litmus import LITMUS
from scenarios.mistakes import MISTAKES
from scenarios.subjects.subject import Subject
from scenarios.usage import HostProblem, UsageProblem
from scenarios.verbs.bars import Bars
from scenarios.verbs.cli import main
from scenarios.verbs.offers import described_policies
from scenarios.workloads.workload_file import list_workloads


class Engine:
    """Stands in for `scenarios.runs.live`: each policy has finished before it started."""

    def __init__(self) -> None:
        self.violations: list[str] = []
        self.raises: BaseException | None = None
        self.through = 0  # policies, before it raises

    def run_live(self, subjects: list[Subject], **options: Any) -> None:
        for subject in subjects:
            policy = subject.policy
            if self.raises and len(options["document"]["runs"]) == self.through:
                raise self.raises
            options["progress"](policy, 0.5, "half")
            options["progress"](policy, 1.0, "all accesses done")
            options["progress"](policy, 1.0, "all accesses done")
            options["document"]["runs"].append(
                {
                    "policy": policy,
                    "vmstat": merge([]),
                    "interrupts": {"TLB": [0] * subject.cpus},
                    "ipi_latency_ns": dict.fromkeys(
                        ("delivery", "handler", "round_trip"), Histogram().summary()
                    ),
                    "accesses": 10,
                    "elapsed_ns": 5,
                    "pending_peak": 0,
                    "violations": self.violations,
                }
            )


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Engine:
    engine = Engine()
    module = ModuleType("scenarios.runs.live")
    module.run_live = engine.run_live  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "scenarios.runs.live", module)
    return engine


def exit_code(*arguments: str) -> int:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert isinstance(caught.value.code, int)
    return caught.value.code


def test_json_is_one_document_on_standard_output(engine: Engine, capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code("run", "tiering", "--json", "--seed", "9", "--cpus", "3", "--arch", "sc") == 0
    out, err = capsys.readouterr()
    document = json.loads(out)
    assert [run["policy"] for run in document["runs"]] == ["immediate", "migrc"]
    assert (document["seed"], document["cpus"], document["arch"]) == (9, 3, "sc")
    assert err.splitlines() == [
        "migrc: immediate: all accesses done",
        "migrc: migrc: all accesses done",
    ]


def test_the_report_goes_to_standard_output(engine: Engine, capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code("run", "tiering", "--policy", "migrc:rfc2", "--quiet") == 0
    out, err = capsys.readouterr()
    assert out.startswith("tiering: live engine, kernel 6.12, x86, 4 CPUs, seed 0\n")
    assert "TLB shootdowns (migrc:rfc2)" in out
    assert err == ""


def test_a_violation_is_exit_code_1(engine: Engine, capsys: pytest.CaptureFixture[str]) -> None:
    engine.violations = ["stale read"]
    assert exit_code("run", "tiering", "--json") == 1
    assert json.loads(capsys.readouterr().out)["runs"][0]["violations"] == ["stale read"]
    assert exit_code("run", "tiering") == 1
    assert "  stale read\n" in capsys.readouterr().out


def test_ctrl_c_is_exit_code_130(engine: Engine, capsys: pytest.CaptureFixture[str]) -> None:
    engine.raises = KeyboardInterrupt()
    assert exit_code("run", "tiering", "--json") == 130
    out, err = capsys.readouterr()
    document = json.loads(out)
    assert (document["runs"], document["interrupted"]) == ([], True)
    assert err.strip() == "migrc: interrupted"


@pytest.mark.parametrize(
    ("ending", "code", "stopped", "line"),
    [
        (UsageProblem("a policy raised"), 2, "a policy raised", "migrc: error: a policy raised"),
        (HostProblem("CPU 1 died"), 3, "CPU 1 died", "migrc: error: CPU 1 died"),
        (OSError(28, "full", "/tmp/x"), 3, "OSError: [Errno 28]", "migrc: error: /tmp/x: full"),
        (OSError(13, "denied", "/tmp/x"), 3, "PermissionError: [Errno 13]", "migrc: error: /tmp/x: denied"),
        (KeyError("word"), 70, "KeyError: 'word'", "migrc: internal error: KeyError: 'word'; please report"),
        (KeyboardInterrupt(), 130, "interrupted", "migrc: interrupted"),
        (Terminated(143), 143, "SIGTERM", ""),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
def test_what_is_through_is_told_whatever_ends_the_rest(
    engine: Engine,
    capsys: pytest.CaptureFixture[str],
    ending: BaseException,
    code: int,
    stopped: str,
    line: str,
) -> None:
    engine.raises, engine.through = ending, 1
    assert exit_code("run", "tiering", "--json") == code
    out, err = capsys.readouterr()
    document = json.loads(out)
    assert [run["policy"] for run in document["runs"]] == ["immediate"]
    assert document["stopped"].startswith(stopped)
    assert line in err
    assert exit_code("run", "tiering") == code
    assert "immediate" in capsys.readouterr().out


def test_what_the_engine_refuses_is_bad_input(engine: Engine, capsys: pytest.CaptureFixture[str]) -> None:
    engine.raises = UsageProblem("--address: 10.0.0.1:6379 is\nunreachable")
    assert exit_code("run", "tiering") == 2
    assert capsys.readouterr() == ("", "migrc: error: --address: 10.0.0.1:6379 is unreachable\n")


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["run", "teering"], "did you mean tiering?"),
        (["run", "tiering", "--address", "nonsense"], "it must be HOST:PORT, as in 10.0.0.1:6379"),
        (["stress", "shootdown", "--address", "1.2.3.4:99999"], "it must be HOST:PORT"),
        (
            ["run", "tiering", "--tolerate"],
            "--tolerate: no schedule has a CPU that dies, so only with --unwatched",
        ),
        (
            ["run", "tiering", "--tolerate", "--unwatched", "--mmu", "latr"],
            "--tolerate: with --mmu latr others wait",
        ),
        (["run", "tiering", "--tolerate", "--engine", "timed"], "--tolerate: a timed run has no use for it"),
        (
            ["run", "xsbench-rfc", "--tolerate", "--unwatched"],
            "--tolerate: threads of xsbench-rfc wait for all",
        ),
        (["run"], "SCENARIO"),
        (["stress", "shootdown", "--placement", "pack"], "--placement: only with --address"),
        (["run", "tiering", "--cpus", "65"], "--cpus"),
        (["run", "tiering", "--cpus", "0"], "--cpus"),
        (["run", "tiering", "--cpus", "many"], "--cpus"),
        (["run", "tiering", "--seed", "-1"], "--seed"),
        (["run", "tiering", "--arch", "mips"], "--arch"),
        (["run", "tiering", "--arch", "x86", "--mmu", "arm64"], "--mmu: arm64 is of arm64, not of x86"),
        (
            ["check", "shootdown", "--arch", "arm64", "--mmu", "x86-rar"],
            "--mmu: x86-rar is of sc, x86, riscv",
        ),
        (["run", "tiering", "--policy", "imediate"], "did you mean immediate?"),
        (["run", "tiering", "--policy", "migrc", "--policy", "migrc"], "given twice"),
        (["run", "tiering", "--set", "memory.fast_pages=-1"], "--set memory.fast_pages: -1 is too small"),
        (["run", "tiering", "--set", "memory.fast_pages=800", "--cpus", "64"], "too few to boot 64 CPUs"),
        (["run", "tiering", "--trace", "x"], "replays no trace"),
        (["run", "replay", "--trace", "/nowhere/x"], "no such file"),
        (["run", "tiering", "more"], "more"),
        (["run", "tiering", "--jsn"], "--jsn"),
        (["rn", "tiering"], "rn"),
        (["list", "--jsn"], "--jsn"),
        (["--cpus"], "--cpus"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    engine: Engine, capsys: pytest.CaptureFixture[str], arguments: list[str], part: str
) -> None:
    assert exit_code(*arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("migrc: error: ")
    assert err.count("\n") == 1
    assert part in err


def test_a_result_that_cannot_be_written_is_said(
    engine: Engine, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with open("/dev/full", "w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        assert exit_code("run", "tiering", "--json", "--quiet") == 2
        monkeypatch.undo()
        # What is left in the buffer, if anything is, cannot be written either.
        with contextlib.suppress(OSError):
            full.close()
    assert capsys.readouterr().err == (
        "migrc: error: the result cannot be written: No space left on device\n"
    )


def test_list_shows_everything_that_options_take(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code("list", "--json", "--seed", "3") == 0
    listing = json.loads(capsys.readouterr().out)
    shipped = [one["name"] for one in listing["scenarios"]]
    assert shipped == [workload.name for workload in list_workloads()]
    assert {"replay", "tiering"} <= set(shipped)
    assert [one["name"] for one in listing["policies"]] == list(described_policies())
    assert [one["name"] for one in listing["archs"]] == list(ARCHITECTURES)
    assert [one["name"] for one in listing["litmus"]] == list(LITMUS)
    assert [one["name"] for one in listing["mistakes"]] == list(MISTAKES)
    assert exit_code("list") == 0
    text = capsys.readouterr().out
    for name in [*shipped, *described_policies(), *ARCHITECTURES, *LITMUS, *MISTAKES]:
        assert f"  {name} " in text


def test_no_arguments_show_the_help_as_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code() == 2
    assert "Commands:" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["run", "--help"], ["trace", "--help"]])
def test_help_and_version_are_good(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code(*arguments) == 0
    assert capsys.readouterr().out


@pytest.mark.parametrize("arguments", [["--help"], ["list"], ["run", "teering"], ["check", "nix.py"]])
def test_ray_is_not_imported_before_there_is_something_to_run(arguments: list[str]) -> None:
    program = (
        "import sys\n"
        "from scenarios.verbs.cli import main\n"
        "try:\n"
        f"    main({arguments!r})\n"
        "finally:\n"
        "    assert not {'ray', 'zmq', 'scenarios.runs.live'} & set(sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert "AssertionError" not in done.stderr
    assert done.returncode == (2 if len(arguments) == 2 else 0)


FEW = ("tiering", "--set", "threads.accesses=200", "--policy", "immediate")


@pytest.mark.parametrize(
    "arguments",
    [
        ("list",),
        ("run", *FEW, "--engine", "timed", "--quiet"),
        ("run", *FEW, "--engine", "timed", "--quiet", "--json"),
        ("sweep", *FEW, "--vary", "cpus=2", "--quiet"),
        ("check", "shootdown", "--arch", "sc", "--policy", "immediate", "--schedules", "10"),
    ],
)
def test_a_reader_that_has_gone_is_exit_code_141(arguments: tuple[str, ...]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "w") as gone:
        done = subprocess.run(
            [sys.executable, "-m", "scenarios", *arguments],
            cwd=Path(__file__).parents[2],
            stdout=gone,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert (done.returncode, done.stderr) == (141, "")


def test_without_standard_error_the_result_is_there_all_the_same() -> None:
    command = " ".join([sys.executable, "-m", "scenarios", "run", *FEW, "--engine", "timed", "--json"])
    done = subprocess.run(
        ["sh", "-c", f"{command} 2>&-"],
        cwd=Path(__file__).parents[2],
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    assert done.returncode == 0
    assert json.loads(done.stdout)["scenario"] == "tiering"


def test_the_package_runs_as_a_module() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "scenarios", "list"],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith("scenarios\n")


def test_waiting_is_shown_until_there_is_something_to_show() -> None:
    with Progress(console=Console(file=io.StringIO(), force_terminal=True)) as progress:
        news = Bars(progress, False)
        news.wait_for("starting Ray")
        assert [task.description for task in progress.tasks] == ["starting Ray"]
        news.show("migrc", 0.1, "100 accesses")
        assert [task.description for task in progress.tasks] == ["migrc"]
        news.show("migrc", 0.2, "200 accesses")
        assert [task.completed for task in progress.tasks] == [0.2]
