"""`--rule` and `--ignore`: looking behind the rule that breaks first, in every kind of search."""

from __future__ import annotations

import importlib
import json
import pkgutil
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import emulator
from scenarios.subjects.rules import RULES

Migrc = Callable[..., int]

MISTAKE = "mistake:no-wait-for-acknowledgements"
REUSED = "grace period: frame reused"
FREE = "access to a free frame"

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
        assert one["witness"]["rule"] == FREE
        assert one["rules"] + one["ignored"] == [option[1]]
        assert migrc("replay", one["file"]) == 1
        assert f"breaks: {FREE}" in capsys.readouterr().out
        assert migrc("shrink", one["file"], "--seconds", "2") == 0
        assert f"{FREE}: " in capsys.readouterr().out


@pytest.mark.parametrize("strategy", ["random", "exhaustive"])
def test_a_program_that_raises_what_does_not_count_ends_and_the_others_go_on(
    strategy: str, found: Callable[..., Any], migrc: Migrc
) -> None:
    subject = ("raises.py", "--arch", "sc", "--strategy", strategy, "--schedules", "50")
    assert found(*subject)["witness"]["rule"] == "first rule"
    one = found(*subject, "--ignore", "first rule")
    assert (one["witness"]["rule"], one["ok"]) == ("second rule", True)
    assert migrc("replay", one["file"]) == 1


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


def test_every_rule_is_listed() -> None:
    """What checks and engines call a rule is a constant in capitals that their reports name."""
    for room in ("checks", "memory", "machine"):
        package = importlib.import_module(f"emulator.{room}")
        for one in pkgutil.iter_modules(package.__path__):
            module = importlib.import_module(f"emulator.{room}.{one.name}")
            source = Path(str(module.__file__)).read_text()
            named = re.findall(r"(?:rule=|_report\(|_judge\([^\n]*?|fault\(\s*)([A-Z][A-Z_]+)\b", source)
            for name in named:
                assert getattr(module, name) in RULES, (module.__name__, name)
    assert emulator and len(set(RULES)) == len(RULES)
