"""The history of bugs: each says what it has to, its test holds in the small, and history.md is what it says.

Whether the fixed kernel never breaks a rule is for `migrc check --history`.
"""

from __future__ import annotations

import importlib.util
import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest

from emulator.explore.schedule import ScheduleProblem, parse_schedule, replay
from emulator.explore.search import Limits, search
from emulator.explore.strategies import find_strategy
from emulator.kernel.policy import Policy
from emulator.machine.referee import Referee
from scenarios import history
from scenarios.drawing.columns import draw
from scenarios.history import BUGS
from scenarios.history.bug import Bug
from scenarios.litmus.locks import WRITE_PROTECTED
from scenarios.mistakes.kernel_paths import CollectsWithoutFlush
from scenarios.runs.verdict import plan_of_history
from scenarios.subjects.mmus import mmu_on
from scenarios.subjects.programs import LitmusName
from scenarios.subjects.subject import Subject
from scenarios.usage import UsageProblem

DOCS = Path(__file__).parents[2] / "docs"
EACH = pytest.mark.parametrize("bug", BUGS.values(), ids=list(BUGS))
ONE = BUGS["migrate-vma-collect"]

Migrc = Callable[..., int]


@pytest.fixture(scope="module")
def script() -> ModuleType:
    """docs/history.py"""
    spec = importlib.util.spec_from_file_location("docs_history", DOCS / "history.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_no_name_is_used_twice() -> None:
    bugs = [one for module in history._MODULES for one in vars(module).values() if isinstance(one, Bug)]
    assert len(bugs) == len(BUGS)


@EACH
def test_it_can_be_checked(bug: Bug) -> None:
    assert not bug.problem()
    fixed = bug.expectation(bug.fixed)
    assert fixed is not None and fixed.reached, "a Never that proves nothing"


@EACH
def test_the_document_says_what_the_bug_says(bug: Bug, script: ModuleType) -> None:
    section = script.sections((DOCS / "history.md").read_text())[bug.name]
    assert section.startswith(script.described(bug)), f"run python docs/history.py {bug.name}"


@EACH
def test_the_drawing_in_the_document_is_what_happens(bug: Bug, script: ModuleType) -> None:
    section = script.sections((DOCS / "history.md").read_text())[bug.name]
    ((arch, schedule, drawing),) = re.findall(r"^On (\w+), `(.*)`:\n\n```\n(.*?)\n```$", section, re.M | re.S)
    machine = Subject(LitmusName(bug.test.name), bug.before, arch, mmu=mmu_on(arch, None)).litmus_machine()
    steps = parse_schedule(schedule)
    try:
        violation = replay(Referee(machine), steps)
    except ScheduleProblem as problem:
        pytest.fail(f"run python docs/history.py {bug.name}: {problem}")
    expected = bug.expectation(bug.before)
    assert violation is not None and expected is not None and violation.rule in expected.rules
    assert drawing == draw(machine, steps).broken(violation.rule, violation.cpu).text(script.WIDTH)
    assert f"| {arch} | Never" in section and f"Sometimes: {violation.rule} ({len(steps)} steps)" in section


@EACH
def test_with_the_fix_a_few_runs_break_nothing(bug: Bug) -> None:
    machine = Subject(LitmusName(bug.test.name), bug.fixed, "sc").litmus_machine()
    tally = search(Referee(machine), find_strategy("random")(), 1, Limits(3), lambda: False)
    assert tally.violation is None and not tally.cut


def test_check_tells_each_bug_and_its_two_verdicts(
    migrc: Migrc, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    command = ("check", "--history", "60bae7370896", "--arch", "sc", "--save", str(tmp_path))
    assert migrc(*command) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"{ONE.name} ({ONE.fix}): {ONE.title}\nObservation {ONE.test.name} Never 0 ")
    assert f"Observation {ONE.test.name} Sometimes 1 " in out
    assert migrc(*command, "--json") == 0
    found = json.loads(capsys.readouterr().out)["results"]
    assert [(one["bug"], one["policy"], one["observation"]) for one in found] == [
        (ONE.name, ONE.fixed, "Never"),
        (ONE.name, ONE.before, "Sometimes"),
    ]


def test_a_bug_that_is_not_there_any_more_is_a_failure(
    migrc: Migrc, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The code before does what the fixed one does."""
    monkeypatch.setattr(CollectsWithoutFlush, "flush_collected", Policy.flush_collected)
    assert migrc("check", "--history", ONE.name, "--arch", "sc", "--save", str(tmp_path)) == 1
    assert "UNEXPECTED: expected Sometimes" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("nowhere",), "--history: no bug 'nowhere'"),
        (("CVE-2018-18281", "--policy", "immediate"), "--history and --policy"),
        (("switching-unordered", "--arch", "sc"), "--history switching-unordered: not on sc; on x86, riscv"),
    ],
)
def test_a_wrong_name_is_one_line(
    arguments: tuple[str, ...], line: str, migrc: Migrc, capsys: pytest.CaptureFixture[str]
) -> None:
    assert migrc("check", "--history", *arguments) == 2
    error = capsys.readouterr().err
    assert line in error and error.count("\n") == 1


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"before": "mistake:zap-without-flush"}, "expects nothing of mistake:zap-without-flush; Sometimes"),
        ({"test": WRITE_PROTECTED}, "expects nothing of mistake:migrate-vma-flush-after-unlock"),
        ({"kinds": ("XX",)}, "kinds ('XX',): one or more of MF, "),
        ({"kinds": ()}, "kinds (): one or more of MF, "),
        ({"fix": ""}, "neither `fix` nor `cve`"),
    ],
)
def test_a_bug_that_cannot_be_checked_is_one_line(change: dict[str, object], line: str) -> None:
    with pytest.raises(UsageProblem, match=re.escape(line)):
        plan_of_history([replace(ONE, **change)], [])  # type: ignore[arg-type]
