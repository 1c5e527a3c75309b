"""`migrc check`: verdicts, their forms, exit codes, and one line for whatever is wrong with a user's file."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from emulator.explore.exhaustive import Exhausted, exhaust
from emulator.explore.learned import LearnedMachine
from emulator.machine.litmus import Expectation
from scenarios.runs import proofs
from scenarios.runs import searches as check

Migrc = Callable[..., int]
Captured = pytest.CaptureFixture[str]

HEAD = (
    "from emulator.machine.litmus import Expectation, Forbidden, Litmus\n"
    "from emulator.hardware.operations import Load, Store\n"
)
NEVER = "(Expectation('immediate', 'Never', 'Never', 'Never'),)"


def results(out: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(out)["results"]
    return found


def test_verdicts_are_told_as_herd_tells_them(folder: Path, migrc: Migrc, capsys: Captured) -> None:
    assert migrc("check", "small.py") == 0
    out, err = capsys.readouterr()
    lines = out.splitlines()
    assert err == ""
    assert sum(line.startswith("Observation trivial Never 0 ") for line in lines) == 3
    assert sum(line.startswith("Observation SB Never 0 ") for line in lines) == 1
    # The portfolio ends with a proof where there are few states.
    assert sum(", complete, " in line for line in lines) == 4
    assert sum(line.startswith("Observation SB Sometimes 1 ") for line in lines) == 2
    assert "  migrc replay witnesses/SB--immediate--x86.mpk --trust" in lines
    assert lines[-1].startswith("6 results, 0 unexpected; ")
    # What was expected is not drawn when there are several results.
    assert "CPU 0" not in out


def test_a_single_violation_is_drawn_with_all_that_repeats_it(
    folder: Path, migrc: Migrc, capsys: Captured
) -> None:
    assert migrc("check", "small.py:SB", "--arch", "x86", "--seed", "3") == 0
    out = capsys.readouterr().out
    assert "  breaks: store buffering: both CPUs read 0\n" in out
    assert "  seed 3, run " in out
    assert "  saved as witnesses/SB--immediate--x86.mpk\n" in out
    assert "   CPU 0" in out
    assert "^^^ store buffering" in out
    (schedule,) = (line for line in out.splitlines() if line.startswith("  schedule: "))
    text = schedule.removeprefix("  schedule: ")
    assert migrc("replay", text, "--litmus", "small.py:SB", "--policy", "immediate", "--arch", "x86") == 1


def test_one_result_is_one_object_and_several_are_a_list(
    folder: Path, migrc: Migrc, capsys: Captured
) -> None:
    assert migrc("check", "small.py:SB", "--arch", "riscv", "--json") == 0
    one = json.loads(capsys.readouterr().out)
    assert (one["litmus"], one["policy"], one["arch"]) == ("SB", "immediate", "riscv")
    assert (one["expected"], one["observation"], one["ok"]) == ("Sometimes", "Sometimes", True)
    assert one["strategy"] == "portfolio"
    assert one["complete"] is False
    assert one["witness"]["rule"] == "store buffering"
    assert one["witness"]["steps"] == len(one["witness"]["columns"])
    assert Path(one["file"]).is_file()
    assert migrc("check", "small.py", "--arch", "sc", "--json", "--schedules", "10") == 0
    several = results(capsys.readouterr().out)
    assert [(result["litmus"], result["policy"]) for result in several] == [
        ("SB", "immediate"),
        ("trivial", "immediate"),
        ("trivial", "migrc"),
    ]
    assert all(result["witness"] is None and result["complete"] for result in several)
    # Ten random runs, and then every interleaving.
    assert all(result["schedules"] > 10 and result["states"] for result in several)


def test_the_same_seed_finds_the_same(folder: Path, migrc: Migrc, capsys: Captured) -> None:
    found = []
    for _ in range(2):
        migrc("check", "small.py:SB", "--arch", "x86", "--json", "--seed", "5")
        document = json.loads(capsys.readouterr().out)
        del document["elapsed_s"]
        found.append(document)
    assert found[0] == found[1]


def test_exhaustive_is_complete(folder: Path, migrc: Migrc, capsys: Captured) -> None:
    assert migrc("check", "small.py:SB", "--arch", "sc", "--strategy", "exhaustive", "--json") == 0
    result = json.loads(capsys.readouterr().out)
    assert result["complete"] is True
    assert result["states"] > 10
    assert migrc("check", "small.py:SB", "--arch", "x86", "--strategy", "exhaustive") == 0
    assert "Observation SB Sometimes 1 " in capsys.readouterr().out


def test_proofs_of_bugs_take_as_many_states_as_those_of_named_tests(
    migrc: Migrc, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits: list[int] = []

    def prove(explorer: LearnedMachine, watch: proofs.Watch, states: int) -> Exhausted:
        limits.append(states)
        return Exhausted(complete=True)

    monkeypatch.setattr(check, "alone", prove)
    monkeypatch.setattr("scenarios.verbs.check.STATES_ALL", 7)
    migrc("check", "--history", "rmap-removed-early", "--arch", "sc")
    assert set(limits) == {check.PROOF_STATES}


def test_so_many_states_and_no_more(folder: Path, migrc: Migrc, capsys: Captured) -> None:
    """Where they do not suffice the portfolio goes on with runs, and an exhaustive search is not complete."""
    arguments = ("check", "small.py:SB", "--arch", "sc", "--json", "--schedules", "300")
    assert migrc(*arguments) == 0
    whole = json.loads(capsys.readouterr().out)
    assert whole["complete"] and whole["states"] > 5
    assert migrc(*arguments, "--states", "5") == 0
    part = json.loads(capsys.readouterr().out)
    assert not part["complete"] and part["schedules"] == 300
    # On its first way down, which ended nowhere: such a Never would say nothing.
    assert migrc(*arguments, "--states", "5", "--strategy", "exhaustive") == 1
    none = json.loads(capsys.readouterr().out)
    assert (none["complete"], none["schedules"]) == (False, 0) and "no run came to its end" in none["reason"]


def test_a_never_that_is_not_proved_is_named(folder: Path, migrc: Migrc, capsys: Captured) -> None:
    arguments = ("check", "small.py:SB", "--arch", "sc", "--schedules", "300", "--proved")
    assert migrc(*arguments) == 0
    assert "not proved" not in capsys.readouterr().out
    assert migrc(*arguments, "--states", "5") == 1
    told = capsys.readouterr().out
    assert "not complete (6 states seen)" in told
    assert "not proved: SB immediate sc" in told
    assert migrc(*arguments, "--states", "5", "--json") == 1
    out, err = capsys.readouterr()
    proof = json.loads(out)["proof"]
    assert (proof["proved"], proof["states"]) == (False, 6) and "not proved: SB immediate sc" in err


RACE = """
async def first(cpu):
    await Store("x", 1)


async def second(cpu):
    if not await Load("x"):
        raise Forbidden("late", "x is not there")


RACE = Litmus("race", "Who is first?", (first, second), lambda setup: None, ())
ALONE = Litmus("alone", "Who else?", (first,), lambda setup: None, ())
"""


def test_a_proof_that_the_plain_engine_contradicts_is_no_answer(
    folder: Path, migrc: Migrc, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reduction that is wrong: whoever has the lowest number goes first."""

    def one_schedule(machine: LearnedMachine, *rest: Any) -> Exhausted:
        options = machine.options
        monkeypatch.setattr(machine, "options", lambda *cpu: options(*cpu) if cpu else options()[:1])
        return exhaust(machine, *rest)

    monkeypatch.setattr(proofs, "exhaust", one_schedule)
    (folder / "race.py").write_text(HEAD + RACE)
    options = ("--policy", "immediate", "--arch", "sc", "--strategy", "exhaustive", "--json")
    assert migrc("check", "race.py", *options) == 70
    wrong, right = results(capsys.readouterr().out)
    assert "internal error: race under immediate on sc: no rule breaks in " in wrong["error"]
    assert "but 'late' does on the plain engine, schedule '" in wrong["error"]
    assert not wrong["ok"] and not wrong["complete"]
    assert right["ok"] and right["complete"]


def test_ktap(folder: Path, migrc: Migrc, capsys: Captured) -> None:
    (folder / "wrong.py").write_text(
        HEAD + "async def bad(cpu):\n    await Load('x')\n    raise Forbidden('this', 'text')\n"
        f"L = Litmus('wrong #1', '?', (bad,), lambda setup: None, {NEVER})\n"
    )
    assert migrc("check", "small.py:trivial", "wrong.py", "--arch", "sc", "--ktap") == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == ["KTAP version 1", "1..3"]
    assert [line for line in lines[2:] if not line.startswith("# ")] == [
        "ok 1 trivial immediate sc",
        "ok 2 trivial migrc sc",
        "not ok 3 wrong _1 immediate sc",
    ]
    at = lines.index("not ok 3 wrong _1 immediate sc")
    assert "# UNEXPECTED: expected Never" in lines[lines.index("ok 2 trivial migrc sc") : at]
    assert "# breaks: this: text" in lines


@pytest.mark.parametrize(
    ("expected", "reason"),
    [
        ("'Sometimes'", "expected Sometimes"),
        ("'Never', None, None, ('done', 'not_done')", "vacuous: no run counted not_done; did you mean done?"),
    ],
)
def test_a_never_that_is_not_what_was_expected(
    folder: Path, migrc: Migrc, capsys: Captured, expected: str, reason: str
) -> None:
    rest = ", None, None" if "None" not in expected else ""
    (folder / "mine.py").write_text(
        HEAD + "async def good(cpu):\n    await Load('x')\n    cpu.count('done')\n"
        f"L = [Litmus('m', '?', (good,), lambda setup: None, (Expectation('migrc', {expected}{rest}),))]\n"
    )
    assert migrc("check", "mine.py", "--json", "--schedules", "50") == 1
    result = json.loads(capsys.readouterr().out)
    assert result["reason"] == reason
    assert (result["observation"], result["ok"]) == ("Never", False)


def test_a_sometimes_by_another_rule_is_not_what_was_expected(
    folder: Path, migrc: Migrc, capsys: Captured
) -> None:
    (folder / "mine.py").write_text(
        HEAD + "async def bad(cpu):\n    await Load('x')\n    raise Forbidden('this', 'text')\n"
        "L = Litmus('m', '?', (bad,), lambda setup: None,"
        " (Expectation('migrc', 'Sometimes', None, None, (), ('deadlock',)),))\n"
    )
    assert migrc("check", "mine.py") == 1
    assert "  UNEXPECTED: broke 'this'; expected 'deadlock'\n" in capsys.readouterr().out


def test_runs_that_are_all_cut_short_prove_nothing(folder: Path, migrc: Migrc, capsys: Captured) -> None:
    assert migrc("check", "small.py:trivial", "--arch", "sc", "--policy", "migrc", "--steps", "1") == 0
    assert ", complete, " in capsys.readouterr().out
    arguments = ("--policy", "migrc", "--steps", "1", "--strategy", "random")
    assert migrc("check", "small.py:trivial", "--arch", "sc", *arguments) == 1
    assert "vacuous: every run was cut short; raise --steps" in capsys.readouterr().out


def test_time_ends_a_search(folder: Path, migrc: Migrc, capsys: Captured) -> None:
    arguments = ("--arch", "sc", "--policy", "migrc", "--schedules", "1000000000", "--seconds", "0.2")
    assert migrc("check", "small.py:trivial", *arguments, "--json") == 0
    assert 0 < json.loads(capsys.readouterr().out)["schedules"] < 1_000_000


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("x = (\n", "mine.py: line 1: SyntaxError: "),
        ("\nimport nowhere_at_all\n", "mine.py: line 2: ModuleNotFoundError: "),
        ("def f():\n    return 1 / 0\nf()\n", "mine.py: line 2: ZeroDivisionError: "),
        ("raise SystemExit(3)\n", "mine.py: line 1: SystemExit: 3"),
        ("x = 1\n", "mine.py: no litmus test in it; it must define LITMUS"),
        (
            f"{HEAD}async def a(cpu):\n    await Load('x')\n    cpu.nothing_like_it\n"
            f"L = Litmus('m', '?', (a,), lambda setup: None, {NEVER})\n",
            "CPU 0: AttributeError: 'CountedCpu' object has no attribute 'nothing_like_it' (mine.py:5 in a)",
        ),
        (
            f"{HEAD}async def a(cpu):\n    await Load('x')\n"
            f"def s(setup):\n    setup.page('x', 99)\nL = Litmus('m', '?', (a,), s, {NEVER})\n",
            "mine.py: line 6: the start cannot be set up: ValueError: litmus setup: node 99; ",
        ),
        (
            f"{HEAD}async def a(cpu):\n    raise ValueError('at once')\n"
            f"L = Litmus('m', '?', (a,), lambda setup: None, {NEVER})\n",
            "mine.py:m under immediate: CPU 0: ValueError: at once (mine.py:4 in a)",
        ),
        (
            f"{HEAD}async def a(cpu): pass\nL = Litmus('m', '?', (a,), lambda setup: None, ())\n",
            "expects nothing of any policy; say which with --policy",
        ),
        (
            f"{HEAD}async def a(cpu):\n    await Load('x')\n"
            "L = Litmus('m', '?', (a,), lambda setup: None, (Expectation('migrc', 'Often', None, None),))\n",
            "expects 'Often' of migrc on sc; 'Never' or 'Sometimes', or None",
        ),
        (
            f"{HEAD}async def a(cpu):\n    await Load('x')\n"
            "L = [Litmus('m', n, (a,), lambda setup: None, ()) for n in 'ab']\n",
            "two litmus tests are named 'm'",
        ),
        (
            f"{HEAD}seen = []\nasync def a(cpu):\n    await Load('x')\n"
            "    if not seen:\n        seen.append(1)\n        raise Forbidden('dice', 'thrown')\n"
            f"    await Store('x', 1)\nL = Litmus('m', '?', (a,), lambda setup: None, {NEVER})\n",
            "mine.py:m under immediate: seen of mine.py has changed before ",
        ),
        (
            f"{HEAD}async def a(cpu):\n    seen = set()\n    seen.add(await Load('x'))\n    await Load('y')\n"
            f"L = Litmus('m', '?', (a,), lambda setup: None, {NEVER})\n",
            "mine.py:m under immediate: mine.py:5 in a: seen is a set, which cannot be read exactly; what",
        ),
        (
            f"{HEAD}async def a(cpu):\n    await Load('x')\n    if cpu.vmstat:\n        await Load('y')\n"
            f"L = Litmus('m', '?', (a,), lambda setup: None, {NEVER})\n",
            "mine.py:m under immediate: CPU 0: Unasked: a program reads vmstat, which is for reports",
        ),
        (
            f"{HEAD}async def a(cpu):\n    await Store('x', True)\n"
            f"L = Litmus('m', '?', (a,), lambda setup: None, {NEVER})\n",
            "mine.py:m under immediate: mine.py:4 in a: Store hands on a bool, and only ints, strings and",
        ),
        (
            f"{HEAD}async def a(cpu):\n    await Load(7)\n"
            f"L = Litmus('m', '?', (a,), lambda setup: None, {NEVER})\n",
            "mine.py:m under immediate: mine.py:4 in a: Load names its place by 7, and names are strings",
        ),
        (
            f"{HEAD}async def a(cpu):\n    await Load('x')\n    await Store([], 1)\n"
            f"L = Litmus('m', '?', (a,), lambda setup: None, {NEVER})\n",
            "mine.py:m under immediate: mine.py:5 in a: Store hands on a list, and only ints, strings and",
        ),
    ],
)
def test_what_is_wrong_with_a_users_file_is_one_line(
    folder: Path, migrc: Migrc, capsys: Captured, text: str, part: str
) -> None:
    (folder / "mine.py").write_text(text)
    assert migrc("check", "mine.py", "--arch", "sc") == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("migrc: error: ")
    assert err.count("\n") == 1
    assert part in err


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["check"], "name a litmus test"),
        (["check", "no-such-test"], "unknown litmus test 'no-such-test'"),
        (["check", "no-such-*"], "no litmus test matches 'no-such-*'"),
        (["check", "nowhere.py"], "nowhere.py: no such file"),
        (["check", "small.py:XX"], "small.py: no litmus test named 'XX'"),
        (["check", "--all", "small.py"], "--all and a name"),
        (["check", "small.py", "--policy", "imediate"], "--policy: "),
        (["check", "small.py", "--policy", "migrc", "--policy", "migrc"], "given twice"),
        (["check", "small.py", "--arch", "mips"], "--arch"),
        (["check", "small.py", "--strategy", "lucky"], "--strategy: no strategy named lucky"),
        (["check", "small.py", "--strategy", "pct:0"], "--strategy: strategy pct:0"),
        (["check", "small.py", "--schedules", "0"], "--schedules"),
        (["check", "small.py", "--seconds", "0"], "--seconds"),
        (["check", "small.py", "--seconds", "nan"], "--seconds"),
        (["check", "small.py", "--workers", "0"], "--workers"),
        (["check", "small.py", "--json", "--ktap"], "--json and --ktap"),
        (["check", "small.py:SB", "--arch", "x86", "--save", "/proc/no"], "/proc/no"),
        (["check", "small.py:SB", "--arch", "x86", "--save", "small.py"], "small.py"),
    ],
)
def test_bad_arguments_are_one_line(
    folder: Path, migrc: Migrc, capsys: Captured, arguments: list[str], part: str
) -> None:
    assert migrc(*arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("migrc: error: ")
    assert err.count("\n") == 1
    assert part in err


def test_programs_that_are_dropped_in_the_middle_say_nothing(folder: Path) -> None:
    (folder / "mine.py").write_text(
        HEAD + "async def a(cpu):\n    try:\n        await Load('x')\n        await Load('x')\n"
        "    finally:\n        await Store('x', 1)\n"
        "async def b(cpu):\n    await Load('x')\n    raise Forbidden('this', 'text')\n"
        "L = Litmus('m', '?', (a, b), lambda setup: None, (Expectation('migrc', 'Sometimes', None, None),))\n"
    )
    root = str(Path(__file__).parents[2])
    done = subprocess.run(
        [sys.executable, "-m", "scenarios", "check", "mine.py"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([root, os.environ.get("PYTHONPATH", "")])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_ctrl_c_shows_what_is_finished(
    folder: Path, migrc: Migrc, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = check.run_job

    def interrupted(job: Any, *rest: Any) -> Any:
        if job.subject.policy == "migrc":
            raise KeyboardInterrupt
        return run(job, *rest)

    monkeypatch.setattr(check, "run_job", interrupted)
    arguments = ("check", "small.py:trivial", "--arch", "sc", "--schedules", "10")
    assert migrc(*arguments, "--json") == 130
    out, err = capsys.readouterr()
    assert json.loads(out)["interrupted"] is True
    assert [result["policy"] for result in results(out)] == ["immediate"]
    assert err == "migrc: interrupted\n"
    assert migrc(*arguments) == 130
    assert "interrupted, 1 not finished" in capsys.readouterr().out


def test_expectations_have_the_fields_that_the_docs_name() -> None:
    assert Expectation._fields == ("policy", "sc", "x86", "riscv", "reached", "rules", "arm64")


QUIT = """
from emulator.policies.immediate import Immediate


class Quit(Immediate):
    async def after_unmap(self, cpu, src, dst):
        raise SystemExit(0)
"""


@pytest.mark.parametrize(
    "arguments",
    [
        ("check", "shootdown", "--arch", "sc", "--schedules", "10"),
        ("run", "tiering", "--engine", "timed", "--quiet"),
    ],
)
def test_a_policy_that_ends_the_program_is_one_line(
    arguments: tuple[str, ...], folder: Path, migrc: Migrc, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "quitter.py").write_text(QUIT)
    assert migrc(*arguments, "--policy", "quitter:Quit") == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "SystemExit: 0" in err and "quitter.py:7 in after_unmap" in err


def test_an_unknown_mistake_is_told_the_known_ones(migrc: Migrc, capsys: pytest.CaptureFixture[str]) -> None:
    assert migrc("check", "shootdown", "--policy", "mistake:interrupt-to-nobdy") == 2
    assert "no mistake named mistake:interrupt-to-nobdy; did you mean mistake:interrupt-to-nobody?" in (
        capsys.readouterr().err
    )


def test_what_was_through_when_a_later_test_fails_is_in_the_document(
    folder: Path, migrc: Migrc, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "quitter.py").write_text(QUIT)
    tests = ("small.py:trivial", "shootdown")
    assert migrc("check", *tests, "--arch", "sc", "--policy", "quitter:Quit", "--json") == 2
    out, err = capsys.readouterr()
    document = json.loads(out)
    found = [(result["litmus"], bool(result["error"])) for result in document["results"]]
    assert found == [("trivial", False), ("shootdown", True)]
    assert "SystemExit" in document["results"][1]["error"] and "SystemExit" in err


def test_a_worker_that_is_gone_is_the_machines_fault_and_no_verdict(
    migrc: Migrc, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = Exhausted(states=1, stopped="worker 2 of 2 is gone: it died", lost=True)
    monkeypatch.setattr(check, "prove", lambda *_: gone)
    options = ("--policy", "immediate", "--arch", "sc", "--strategy", "exhaustive")
    assert migrc("check", "shootdown", *options, "--json") == 3
    captured = capsys.readouterr()
    assert json.loads(captured.out)["stopped"] == "--workers: worker 2 of 2 is gone: it died"
    assert captured.err == "migrc: error: --workers: worker 2 of 2 is gone: it died\n"
