"""What is expected of a policy of a user's own, what it is not asked, and what an error in one test costs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from emulator.policies.immediate import Immediate
from scenarios.litmus import LITMUS
from scenarios.runs.verdict import plan
from scenarios.subjects.programs import LitmusName
from scenarios.verbs.stress import LITMUS_ARCHS, _litmus_subjects

Migrc = Callable[..., int]

OWN = """
from emulator.hardware.operations import Load
from emulator.kernel.policy import Policy
from emulator.policies.migrc_rfc1 import MigrcRfc1
from emulator.policies.migrc_v3 import MigrcV3
from emulator.policies.migrc_v9 import MigrcV9


class Mainline(Policy):
    pass


class SaysSo(Policy):
    like = "migrc:v9"


class V9(MigrcV9):
    like = "migrc:v9"


class V3(MigrcV3):
    like = "migrc:v3"


class FromV9(MigrcV9):
    async def migrate_begin(self, cpu, reason):
        await super().migrate_begin(cpu, reason)

    def batch_for(self, task, pte):
        return task.tlb_ubc


class LikeRfc1(MigrcV9):
    like = "migrc:rfc1"


class FromRfc1(MigrcRfc1):
    pass


class Fails(Policy):
    async def after_unmap(self, cpu, src, dst):
        assert dst < 0


class Unknown(Policy):
    like = "migrc:v8"


class Circle(Policy):
    like = "own.py:Circle"
"""

QUICK = ("--arch", "x86", "--schedules", "60", "--states", "2000")
TEST = "deferred-copy"
SWITCH = "switched-off-while-pending"


@pytest.fixture
def checked(folder: Path, migrc: Migrc, capsys: pytest.CaptureFixture[str]) -> Callable[..., Any]:
    """Exit code, standard output and standard error of a quick check."""
    (folder / "own.py").write_text(OWN)

    def run(*arguments: str) -> tuple[int, str, str]:
        code = migrc("check", *arguments, *QUICK)
        return code, *capsys.readouterr()

    return run


def test_a_policy_that_never_defers_is_no_pass_where_it_is_like_one_that_does(
    checked: Callable[..., Any],
) -> None:
    code, out, _ = checked(TEST, "--policy", "own.py:SaysSo")
    assert code == 1
    assert "UNEXPECTED: vacuous: no run counted migrc_deferred" in out and ", as of migrc:v9" in out
    code, out, _ = checked(TEST, "--policy", "own.py:V9")
    assert (code, "expected Never, as of migrc:v9" in out) == (0, True)


def test_without_like_the_report_says_that_nothing_is_expected_and_what_was_never_reached(
    checked: Callable[..., Any],
) -> None:
    code, out, _ = checked(TEST, "shootdown", "--policy", "own.py:Mainline")
    assert code == 0
    assert "the test expects nothing here; no run counted migrc_deferred" in out
    assert "2 of which nothing is expected" in out
    last = out.splitlines()[-1]
    assert last.startswith("nothing is expected of own.py:Mainline, which is neither `like` a shipped policy")
    assert "; no run of any test counted" in last
    assert "migrc_deferred" in last


def test_a_policy_without_the_fault_of_the_one_that_it_is_like_is_better(checked: Callable[..., Any]) -> None:
    name = next(
        one.name
        for one in LITMUS.values()
        if any((each.policy, each.x86) == ("migrc:v3", "Sometimes") for each in one.expected)
    )
    assert checked(name, "--policy", "own.py:V3")[0] == 0


def test_a_policy_that_is_derived_from_a_shipped_one_is_held_to_it(checked: Callable[..., Any]) -> None:
    code, out, _ = checked(TEST, "--policy", "own.py:FromV9")
    assert code == 1
    assert "UNEXPECTED: vacuous: no run counted migrc_deferred" in out and ", as of migrc:v9" in out


@pytest.mark.parametrize(
    ("name", "test", "stands_for"),
    [
        ("LikeRfc1", TEST, "migrc:rfc1"),
        ("LikeRfc1", "write-fault-pending", "migrc:rfc2"),
        ("FromRfc1", "write-fault-pending", "migrc:rfc2"),
        ("FromV9", "write-fault-pending", "migrc:v9"),
        ("SaysSo", "write-fault-pending", "migrc:v9"),
        ("Mainline", "write-fault-pending", ""),
        ("V9", "generation-half-range", "migrc:v9"),
    ],
)
def test_where_a_test_says_nothing_of_a_policy_the_one_that_it_comes_from_counts(
    name: str, test: str, stands_for: str, checked: Callable[..., Any]
) -> None:
    (job,) = plan([LitmusName(test)], [f"own.py:{name}"], ["x86"])
    assert job.like == stands_for
    assert (job.expected is None) == (not stands_for or test == "generation-half-range")


@pytest.mark.parametrize("name", ["Unknown", "Circle"])
def test_like_names_a_shipped_policy(name: str, checked: Callable[..., Any]) -> None:
    code, out, err = checked(TEST, "--policy", f"own.py:{name}")
    assert (code, out, len(err.splitlines())) == (2, "", 1)
    line = OWN.splitlines().index(f"class {name}(Policy):") + 1
    assert f"own.py:{name}: line {line}: like = " in err and "is no shipped policy" in err
    assert ("did you mean migrc:v9?" in err) == (name == "Unknown")


def test_a_test_about_other_policies_is_left_out_and_says_so(checked: Callable[..., Any]) -> None:
    code, out, _ = checked(TEST, SWITCH, "--policy", "own.py:Mainline")
    assert code == 0
    assert f"Left out {SWITCH}\n  own.py:Mainline on x86\n  asks about MigrcV3" in out
    assert ", 1 left out" in out
    code, out, _ = checked(TEST, SWITCH, "--policy", "own.py:Mainline", "--json")
    assert [bool(one["left_out"]) for one in json.loads(out)["results"]] == [False, True]
    code, out, _ = checked(TEST, SWITCH, "--policy", "own.py:Mainline", "--ktap")
    assert out.splitlines()[-1].startswith(f"ok 2 {SWITCH} own.py:Mainline x86 # SKIP asks about MigrcV3")
    code, out, err = checked(SWITCH, "--policy", "own.py:Mainline")
    assert (code, out) == (2, "") and f"{SWITCH} asks about MigrcV3" in err
    assert checked(SWITCH, "--policy", "own.py:V3")[0] == 0


def test_an_error_in_one_test_does_not_end_the_others(checked: Callable[..., Any]) -> None:
    names = ("small.py:trivial", TEST, "small.py:SB")
    code, out, err = checked(*names, "--policy", "own.py:Fails")
    assert code == 2
    line = OWN.splitlines().index("        assert dst < 0") + 1
    said = f"CPU 0: AssertionError: (no message) (own.py:{line} in after_unmap)"
    assert f"Error {TEST}\n  own.py:Fails on x86\n  {TEST} under own.py:Fails: {said}" in out
    assert "Observation trivial Never" in out and "Observation SB Sometimes" in out
    assert "3 results, 1 unexpected, 1 errors" in out
    assert said in err and len(err.splitlines()) == 1
    code, out, _ = checked(*names, "--policy", "own.py:Fails", "--json")
    assert code == 2
    assert [bool(one["error"]) for one in json.loads(out)["results"]] == [False, True, False]
    code, out, _ = checked(*names, "--policy", "own.py:Fails", "--ktap")
    assert code == 2
    lines = out.splitlines()
    at = lines.index(f"not ok 2 {TEST} own.py:Fails x86")
    assert lines[at - 1] == f"# error: {TEST} under own.py:Fails: {said}" and lines[1] == "1..3"


def test_a_wildcard_names_tests_of_a_file(checked: Callable[..., Any]) -> None:
    code, out, _ = checked("small.py:[St]*", "--json")
    assert code == 0
    assert {one["litmus"] for one in json.loads(out)["results"]} == {"SB", "trivial"}
    code, _, err = checked("small.py:o10-*")
    assert code == 2 and "no litmus test named 'o10-*'" in err


def test_stress_leaves_out_and_names_what_does_not_apply() -> None:
    tests = [LitmusName(name) for name in LITMUS]
    subjects, left_out = _litmus_subjects(tests, (), ())
    assert {one.test for one in subjects} | {LitmusName(line.split()[0]) for line in left_out} == set(tests)
    assert any("expects Never of no policy there" in line for line in left_out)
    assert {one.arch for one in subjects} == set(LITMUS_ARCHS)
    _, left_out = _litmus_subjects(tests, ("immediate",), ())
    there = ("sc", "x86", "riscv")
    elsewhere = [
        name
        for name, test in LITMUS.items()
        if not any(one.on(arch) for one in test.expected for arch in there)
    ]
    others = [name for name, test in LITMUS.items() if not issubclass(Immediate, test.only)]
    assert "nomad-remap-flushed" in others and SWITCH in others
    # Rules that are some policy's own nobody judges under another.
    named = {line.split()[0] for line in left_out if "judges none of the rules" not in line}
    assert named == {*elsewhere, *others} and len(elsewhere) < 10


NOTHING = """
from emulator.machine.litmus import Expectation, Litmus


async def idle(cpu):
    pass


NEVER = Expectation("immediate", "Never", "Never", "Never")
LITMUS = Litmus("nothing", "?", PROGRAMS, lambda setup: None, (NEVER,))
"""


def test_a_test_in_which_nothing_happens_is_vacuous(folder: Path, checked: Callable[..., Any]) -> None:
    (folder / "nothing.py").write_text(NOTHING.replace("PROGRAMS", "(idle,)"))
    code, out, _ = checked("nothing.py", "--arch", "sc")
    assert code == 1 and "vacuous: no program does anything" in out
    (folder / "none.py").write_text(NOTHING.replace("PROGRAMS", "()"))
    code, out, err = checked("none.py")
    assert (code, out) == (2, "") and "none.py:10: nothing: it has no program; one for each CPU" in err


@pytest.mark.parametrize("strategy", ["portfolio", "random", "exhaustive"])
def test_no_time_is_no_verdict(
    strategy: str, folder: Path, migrc: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    short = ("--seconds", "1e-9", "--states", "1")
    assert migrc("check", "shootdown", "--policy", "immediate", "--strategy", strategy, *short) == 1
    assert capsys.readouterr().out.count("UNEXPECTED: vacuous: no run came to its end") == 3
