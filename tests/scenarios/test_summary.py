"""How a check ends: the worst first, and what is new against an earlier one."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from emulator.checks import accounting, frugality, grace_period
from emulator.machine import progress
from scenarios.report.summary import severity
from scenarios.subjects.rules import RULES

Migrc = Callable[..., int]
Captured = pytest.CaptureFixture[str]

# Expects of two mistakes that they break nothing.
TESTS = """
from dataclasses import replace

from emulator.machine.litmus import Expectation
from scenarios.litmus import LITMUS

POLICIES = ("immediate", "mistake:no-wait-for-acknowledgements", "mistake:interrupt-to-nobody")
expected = tuple(Expectation(policy, "Never", None, None) for policy in POLICIES)
MINE = replace(LITMUS["shootdown"], name="mine", expected=expected)
"""


@pytest.fixture
def results(migrc: Migrc, folder: Path, capsys: Captured) -> dict[str, Any]:
    (folder / "mine.py").write_text(TESTS)
    assert migrc("check", "mine.py", "--json") == 1
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_what_was_not_expected_stands_at_the_end_and_what_is_new_is_marked(
    migrc: Migrc, folder: Path, capsys: Captured, results: dict[str, Any]
) -> None:
    first, wait, nobody = results["results"]
    assert first["ok"] and not wait["ok"] and not nobody["ok"]
    assert migrc("check", "mine.py") == 1
    lines = capsys.readouterr().out.splitlines()
    at = lines.index("unexpected: 2")
    assert lines[at + 1].startswith("  mine mistake:no-wait-for-acknowledgements on sc [safety]: ")
    assert lines[at + 3].startswith("3 results, 2 unexpected")
    # Earlier the first was wrong and the second right, the third as now, and a fourth is gone.
    first["ok"], wait["ok"] = False, True
    wait["observation"] = "Never"
    results["results"].append(first | {"litmus": "gone"})
    (folder / "before.json").write_text(json.dumps(results))
    assert migrc("check", "mine.py", "--baseline", "before.json") == 1
    told = capsys.readouterr().out
    assert "unexpected: 2, 1 of them new\n" in told
    assert "  NEW mine mistake:no-wait-for-acknowledgements on sc [safety]: " in told
    assert "\n  mine mistake:interrupt-to-nobody on sc [safety]: " in told
    assert "  mended: mine immediate on sc\n" in told
    assert "  was Never, is Sometimes: mine mistake:no-wait-for-acknowledgements on sc\n" in told
    assert "against the baseline: 3 compared, 0 not in it, 1 of it not looked at\n" in told
    assert migrc("check", "mine.py", "--baseline", "before.json", "--json") == 1
    assert len(json.loads(capsys.readouterr().out)["against_baseline"]) == 6


def test_a_proof_that_is_lost_is_told(
    migrc: Migrc, folder: Path, capsys: Captured, results: dict[str, Any]
) -> None:
    (folder / "before.json").write_text(json.dumps(results))
    asked = ("check", "mine.py", "--policy", "immediate", "--strategy", "random", "--schedules", "20")
    assert migrc(*asked, "--baseline", "before.json") == 0
    assert "  no longer proved: mine immediate on sc\n" in capsys.readouterr().out


def test_a_baseline_is_of_checks(migrc: Migrc, folder: Path, capsys: Captured) -> None:
    (folder / "run.json").write_text('{"runs": []}')
    assert migrc("check", "shootdown", "--baseline", "run.json") == 2
    assert capsys.readouterr().err.startswith("migrc: error: run.json: scenario: Field required")
    assert migrc("check", "shootdown", "--baseline", "none.json") == 2
    assert "none.json: No such file" in capsys.readouterr().err


def test_every_rule_has_its_severity() -> None:
    found = {rule: severity(rule) for rule in RULES}
    assert found[frugality.NEEDLESS] == "cost"
    assert found[progress.DEADLOCK] == found[accounting.LEAK] == "progress"
    assert (
        found[grace_period.REUSED]
        == found[accounting.REFERENCES]
        == severity("a rule of a test's own")
        == "safety"
    )
    assert sorted({*found.values()}) == ["cost", "progress", "safety"]
