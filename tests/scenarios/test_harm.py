"""From a race to what it does."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from emulator.checks.grace_period import REUSED
from emulator.explore.schedule import parse_schedule, replay
from emulator.machine.referee import Referee
from scenarios.runs.harm_search import RACES, harm_of
from scenarios.subjects.programs import LitmusName
from scenarios.subjects.subject import Subject

Migrc = Callable[..., int]
Captured = pytest.CaptureFixture[str]

RACE = ("shootdown", "--policy", "mistake:no-wait-for-acknowledgements", "--arch", "x86")
SUBJECT = Subject(LitmusName("shootdown"), "mistake:no-wait-for-acknowledgements", "x86")


def document(migrc: Migrc, capsys: Captured, *arguments: str) -> dict[str, Any]:
    assert migrc(*arguments, "--json") in (0, 1)
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_a_race_goes_on_to_the_stale_read_and_both_come_out_again(
    migrc: Migrc, capsys: Captured, tmp_path: Path
) -> None:
    found = document(migrc, capsys, "check", *RACE, "--harm", "--save", str(tmp_path))
    race, harm = found["witness"], found["harm"]
    assert (race["rule"], harm["of"], harm["rule"]) == (
        REUSED,
        REUSED,
        "read of a frame that is not the page's",
    )
    # All rules looked at, the way to the harm breaks the race's first.
    referee = Referee(SUBJECT.litmus_machine())
    replay(referee, parse_schedule(harm["schedule"]))
    assert referee.violation is not None and referee.violation.rule == REUSED
    assert harm["columns"][-1]["text"].startswith("reads frame")
    again = document(migrc, capsys, "replay", found["file"], "--harm")
    assert again["rule"] == REUSED and again["harm"]["rule"] == harm["rule"]
    code = migrc(
        *("replay", harm["schedule"], "--litmus", "shootdown", "--arch", "x86", "--policy", SUBJECT.policy)
    )
    assert code == 1 and REUSED in capsys.readouterr().out


def test_text_draws_the_race_and_then_what_comes_behind_it(
    migrc: Migrc, capsys: Captured, tmp_path: Path
) -> None:
    assert migrc("check", *RACE, "--harm", "--save", str(tmp_path)) == 0
    race, _, harm = capsys.readouterr().out.partition("  harm: ")
    assert f"^^^ {REUSED}" in race and "^^^ read of a frame" in harm
    steps = [int(line.split()[0]) for line in race.splitlines() if line[:2].strip().isdigit()]
    later = [int(line.split()[0]) for line in harm.splitlines() if line[:2].strip().isdigit()]
    assert later == list(range(steps[-1] + 1, later[-1] + 1))


def test_what_is_harm_itself_leads_nowhere_further() -> None:
    assert harm_of(SUBJECT, (), "access to a free frame", 0) is None
    assert all(rule.startswith("grace period") for rule in RACES) and len(RACES) > 8


def test_where_nobody_looks_any_more_no_harm_is_met(
    migrc: Migrc, capsys: Captured, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scenarios.runs.harm_search.SCHEDULES", 50)
    wrong = ("munmap-range", "--policy", "mistake:munmap-flushes-all-but-one", "--arch", "sc")
    assert migrc("check", *wrong, "--harm", "--save", str(tmp_path)) == 0
    assert "no harm met in 50 ways to go on from 'grace period: " in capsys.readouterr().out


def test_a_recording_has_to_be_made_a_witness_first(migrc: Migrc, capsys: Captured, tmp_path: Path) -> None:
    (tmp_path / "r.mrec").write_bytes(b"migrc-recording 2\n")
    assert migrc("replay", str(tmp_path / "r.mrec"), "--harm") == 2
    assert "migrc shrink makes a witness" in capsys.readouterr().err


def test_replay_explains_where_each_step_is_and_who_still_holds_what(
    migrc: Migrc, capsys: Captured, tmp_path: Path
) -> None:
    assert migrc("check", *RACE, "--save", str(tmp_path)) == 0
    (witness,) = map(str, tmp_path.glob("*.mpk"))
    capsys.readouterr()
    found = document(migrc, capsys, "replay", witness, "--explain")
    (held,) = found["still_held"]
    assert (held["cpu"], held["vpn"], held["stale"]) == (1, 0x10, True)
    steps = [one for one in found["columns"] if one["kind"] == "step"]
    (sent,) = (one for one in steps if one["text"].startswith("SendIpi"))
    assert sent["functions"][-2:] == ["unmap_done", "send_without_waiting"]
    assert all(one["functions"] for one in steps)
    assert migrc("replay", witness, "--explain") == 1
    text = capsys.readouterr().out
    assert "try_to_migrate_one:" in text and "still held: CPU 1 has 0x10: 1:ro,a; by now it is 2:ro,a" in text
    # Without being asked nothing of it is there.
    plain = document(migrc, capsys, "replay", witness)
    assert "still_held" not in plain and "functions" not in plain["columns"][0]
