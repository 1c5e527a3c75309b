"""`--rule` and `--ignore`: looking behind the rule that breaks first, in every kind of search."""

from __future__ import annotations

import importlib
import io
import json
import pkgutil
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import emulator
from emulator.checks.grace_period import STRICT
from emulator.checks.heed import Heed
from scenarios.files.witness import load
from scenarios.report.tallies import print_outcome
from scenarios.runs.tally import Outcome, Tally
from scenarios.runs.trials import target
from scenarios.subjects.programs import LitmusName
from scenarios.subjects.rules import RULES, heed, looked
from scenarios.subjects.subject import Subject

Migrc = Callable[..., int]

MISTAKE = "mistake:no-wait-for-acknowledgements"
REUSED = "grace period: frame reused"
FREE = "access to a free frame"
FOREIGN = "read of a frame that is not the page's"

RAISES = """
from emulator.hardware.operations import Load, Store
from emulator.machine.litmus import Expectation, Forbidden, Litmus


async def first(cpu):
    await Store("x", 1)
    raise Forbidden("first rule", "raised at once")


async def second(cpu):
    if await Load("x") and await Load("x"):
        raise Forbidden("second " + "rule", "x is 1")


LITMUS = Litmus("raises", "?", (first, second), lambda setup: None, (
    Expectation("immediate", "Sometimes", "Sometimes", "Sometimes", (), ("second rule",)),))
"""


@pytest.fixture
def found(folder: Path, migrc: Migrc, capsys: pytest.CaptureFixture[str]) -> Callable[..., Any]:
    """What a check says as JSON."""
    (folder / "raises.py").write_text(RAISES)

    def run(*arguments: str) -> dict[str, Any]:
        migrc("check", *arguments, "--json")
        document: dict[str, Any] = json.loads(capsys.readouterr().out)
        return document

    return run


@pytest.mark.parametrize("strategy", ["portfolio", "pct:3", "exhaustive"])
def test_behind_the_first_rule_is_another_one_and_the_witness_breaks_it(
    strategy: str, found: Callable[..., Any], migrc: Migrc, capsys: pytest.CaptureFixture[str]
) -> None:
    subject = ("shootdown", "--policy", MISTAKE, "--arch", "x86", "--strategy", strategy)
    assert found(*subject)["witness"]["rule"] == REUSED
    for option in (("--ignore", "grace*"), ("--rule", FREE)):
        one = found(*subject, *option)
        # Which of the rules behind it breaks first is up to the search.
        rule = one["witness"]["rule"]
        assert rule == FREE or (rule == FOREIGN and option[0] == "--ignore")
        assert one["rules"] + one["ignored"] == [option[1]]
        assert migrc("replay", one["file"], "--trust") == 1
        assert f"breaks: {rule}" in capsys.readouterr().out
        assert migrc("shrink", one["file"], "--trust", "--seconds", "2") == 0
        assert f"{rule}: " in capsys.readouterr().out


@pytest.mark.parametrize("strategy", ["random", "exhaustive"])
def test_a_program_that_raises_what_does_not_count_ends_and_the_others_go_on(
    strategy: str, found: Callable[..., Any], migrc: Migrc
) -> None:
    subject = ("raises.py", "--arch", "sc", "--strategy", strategy, "--schedules", "50")
    assert found(*subject)["witness"]["rule"] == "first rule"
    one = found(*subject, "--ignore", "first rule")
    assert (one["witness"]["rule"], one["ok"]) == ("second rule", True)
    assert migrc("replay", one["file"], "--trust") == 1


def test_where_nothing_that_counts_breaks_there_is_no_verdict_on_the_rest(found: Callable[..., Any]) -> None:
    one = found("raises.py", "--arch", "sc", "--rule", "deadlock", "--strategy", "exhaustive")
    assert (one["observation"], one["complete"], one["ok"]) == ("Never", True, True)


def test_a_rule_that_is_none_is_told_what_was_meant(
    folder: Path, migrc: Migrc, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "raises.py").write_text(RAISES)
    for verb in ("check", "stress"):
        assert migrc(verb, "raises.py", "--ignore", "frist rule") == 2
        assert "--ignore: no rule 'frist rule'; did you mean first rule?" in capsys.readouterr().err
        assert migrc(verb, "shootdown", "--rule", "grce*") == 2
        assert "--rule: no rule 'grce*'" in capsys.readouterr().err


@pytest.mark.parametrize(
    "given",
    [("--ignore", "*"), ("--rule", "deadlock", "--ignore", "dead*"), ("--rule", "*", "--ignore", "?*")],
)
@pytest.mark.parametrize("verb", ["check", "stress"])
def test_what_leaves_no_rule_is_refused(
    verb: str, given: tuple[str, ...], migrc: Migrc, capsys: pytest.CaptureFixture[str]
) -> None:
    assert migrc(verb, "shootdown", *given) == 2
    told = capsys.readouterr()
    assert told.out == "" and len(told.err.splitlines()) == 1
    assert "--ignore: no rule is left to look at" in told.err


def test_a_never_says_which_rules_it_is_of(
    found: Callable[..., Any], migrc: Migrc, capsys: pytest.CaptureFixture[str]
) -> None:
    subject = ("shootdown", "crossing-flushes", "--policy", "immediate", "--arch", "sc", "--schedules", "50")
    assert [one["not_looked_at"] for one in found(*subject)["results"]] == [[], []]
    (one, _) = found(*subject, "--rule", "deadlock", "--rule", FREE)["results"]
    assert one["observation"] == "Never"
    # What programs of its file say themselves is a rule, too.
    assert set(one["not_looked_at"]) >= set(RULES) - {"deadlock", FREE}
    assert not {"deadlock", FREE} & set(one["not_looked_at"])
    migrc("check", *subject, "--rule", "deadlock", "--rule", FREE)
    lines = capsys.readouterr().out.splitlines()
    most = re.compile(rf"not looked at: \d+ of \d+ rules, all but '{FREE}', 'deadlock'")
    assert [line for line in lines if most.search(line)] == [lines[2], lines[5]]
    assert "2 with rules that were not looked at" in lines[-1]
    migrc("check", *subject, "--ignore", "deadlock", "--ktap")
    few = re.compile(r"not looked at: 1 of \d+ rules, 'deadlock'")
    assert sum(few.search(line) is not None for line in capsys.readouterr().out.splitlines()) == 2


def test_witnesses_and_replays_say_it_too(
    found: Callable[..., Any], migrc: Migrc, capsys: pytest.CaptureFixture[str]
) -> None:
    one = found("shootdown", "--policy", MISTAKE, "--arch", "x86", "--ignore", "grace*")
    assert load(Path(one["file"])).not_looked_at == tuple(rule for rule in RULES if rule.startswith("grace"))
    assert migrc("replay", one["file"], "--trust", "--json") == 1
    again = json.loads(capsys.readouterr().out)
    assert again["not_looked_at"] == one["not_looked_at"] != []


def test_a_test_that_judges_none_of_the_rules_is_left_out(
    folder: Path, found: Callable[..., Any], migrc: Migrc, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where nothing is drained nothing is owed at the end, and generous tests do not mind interrupts."""
    generous = RAISES.replace('("second rule",)),)', '("second rule",)),), drain=False, frugal=False')
    (folder / "generous.py").write_text(generous)
    for rule in ("needless interrupt", "reference count", "*owed at the end"):
        assert migrc("check", "generous.py", "--rule", rule) == 2
        assert "generous.py:raises judges none of the rules that count" in capsys.readouterr().err
        _, other = found("shootdown", "generous.py", "--arch", "sc", "--policy", "immediate", "--rule", rule)[
            "results"
        ]
        assert "judges none" in other["left_out"]


def test_every_rule_is_listed() -> None:
    """What checks and engines call a rule is a constant in capitals that their reports name."""
    for room in ("checks", "memory", "machine"):
        package = importlib.import_module(f"emulator.{room}")
        for one in pkgutil.iter_modules(package.__path__):
            module = importlib.import_module(f"emulator.{room}.{one.name}")
            source = Path(str(module.__file__)).read_text()
            named = re.findall(r"(?:rule=|_report\(|_judge\([^\n]*?|fault\(\s*)([A-Z][A-Z_]+)\b", source)
            for name in named:
                assert getattr(module, name) in (*RULES, *STRICT), (module.__name__, name)
    assert emulator and len(set(RULES)) == len(RULES)


def test_a_stress_report_says_what_was_not_looked_at_and_what_never_ran() -> None:
    subject = Subject(LitmusName("shootdown"), "immediate", "x86", heed=Heed(("deadlock",)))
    ran = Tally(target(subject), runs=1, interleavings={"one"})
    file = io.StringIO()
    print_outcome(Outcome([ran, Tally(target(replace(subject, arch="riscv")))]), 0, 0, file)
    lines = file.getvalue().splitlines()[-2:]
    left_out, whole = map(int, re.findall(r"\d+", lines[0]))
    assert lines[0] == f"not looked at: {left_out} of {whole} rules, all but 'deadlock'"
    assert left_out + 1 == whole >= len(RULES)
    assert lines[1] == "never run: shootdown under immediate on riscv"


def test_what_is_judged_only_where_it_is_asked_for_is_so_said() -> None:
    test = LitmusName("deferred-entry-rewritten")
    assert not {*STRICT} & {*looked(heed(["grace*"], [], [test])).at}
    assert looked(heed([STRICT[0]], [], [test]), test).at == (STRICT[0],)
    assert looked(heed(["a *"], [], [test])).at[-2:] == STRICT
