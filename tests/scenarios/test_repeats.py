"""Runs with several seeds: the same runs as alone, means with their intervals, chance called chance."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from scenarios.report.spread import interval, outliers, ratios
from scenarios.runs.document import Repeats
from scenarios.runs.repeats import seeds_of
from scenarios.workloads.settings import MAX_SEED
from tests.live.shell import settings as small

Migrc = Callable[..., int]
Captured = pytest.CaptureFixture[str]

RUN = ("run", "tiering", "--engine", "timed", "--cpus", "2", "--quiet", *small("threads.accesses=3000"))


def run_json(migrc: Migrc, capsys: Captured, *more: str) -> dict[str, Any]:
    assert migrc(*RUN, "--json", *more) == 0
    document: dict[str, Any] = json.loads(capsys.readouterr().out)
    return document


def test_every_seed_is_the_run_that_it_is_alone(migrc: Migrc, tmp_path: Path, capsys: Captured) -> None:
    page = tmp_path / "p.html"
    document = run_json(migrc, capsys, "--repeat", "3", "--seed", "5", "--html", str(page))
    repeats = document["repeats"]
    assert repeats["seeds"] == [5, 6, 7] and repeats["violations"] == {"immediate": 0, "migrc": 0}
    alone = run_json(migrc, capsys, "--seed", "7")
    for run in alone["runs"]:
        assert repeats["values"]["elapsed_ns"][run["policy"]][2] == run["elapsed_ns"]
    assert [run["elapsed_ns"] for run in document["runs"]] == [
        repeats["values"]["elapsed_ns"][run["policy"]][0] for run in document["runs"]
    ]
    assert any(line.startswith("Over 3 seeds, migrc against immediate") for line in document["conclusion"])
    assert not any("one seed" in line for line in document["conclusion"])
    assert any("--repeat 5 says how much" in line for line in alone["conclusion"])
    assert "Over seeds 5, 6, 7: means" in page.read_text()


def test_a_mean_has_an_interval_and_one_is_no_difference() -> None:
    mean, low, high = interval([1, 2, 3, 4, 5])
    # 2.776 * sqrt(2.5 / 5)
    assert (mean, round(low, 3), round(high, 3)) == (3, 1.037, 4.963)
    assert 1 in (ratios([10, 20, 30], [11, 19, 30]) or ())
    found = ratios([10, 20, 30], [8, 16.2, 24])
    assert found is not None and 1 not in found and abs(found.mean - 0.803) < 0.001
    assert ratios([10, 0], [1, 1]) is None


def test_one_seed_far_from_the_others_is_named() -> None:
    values = [100.0, 101, 99, 100, 150, 102]
    one = Repeats(seeds=[*range(6)], values={"elapsed_ns": {"immediate": values}}, violations={})
    assert outliers(one) == ["seed 4 is far from the others under immediate"]
    one["values"]["elapsed_ns"]["immediate"][4] = 103
    assert outliers(one) == []


def test_seeds_stay_in_their_range() -> None:
    assert seeds_of(MAX_SEED, 3) == [MAX_SEED, 0, 1]


def test_a_rule_that_breaks_with_another_seed_is_told(
    migrc: Migrc, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    from scenarios.runs import repeats

    plain = repeats.timed_run

    def broken(subject: Any, *rest: Any) -> Any:
        run, pictures = plain(subject, *rest)
        if subject.seed == 1 and subject.policy == "migrc":
            run["violations"] = [{"rule": "a rule", "text": ""}]
        return run, pictures

    monkeypatch.setattr(repeats, "timed_run", broken)
    assert migrc(*RUN, "--repeat", "2") == 1
    assert "A RULE BROKE under migrc (1 violations)" in capsys.readouterr().out


def test_live_runs_are_not_repeated(migrc: Migrc, capsys: Captured) -> None:
    assert migrc("run", "tiering", "--repeat", "2") == 2
    assert "--repeat: timed runs only" in capsys.readouterr().err
