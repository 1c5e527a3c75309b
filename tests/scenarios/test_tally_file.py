"""The file that `migrc stress --resume` keeps: of another stress, or damaged, it is refused in one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from scenarios.runs.swarm import Pace
from scenarios.runs.tally import Outcome, Tally
from scenarios.runs.tally_file import TallyFile
from scenarios.runs.trials import target
from scenarios.subjects.programs import LitmusName
from scenarios.subjects.subject import Subject
from scenarios.usage import UsageProblem


def made(path: Path, seed: int = 1, policy: str = "immediate") -> tuple[TallyFile, Outcome, list[Pace]]:
    targets = [target(Subject(LitmusName("shootdown"), policy, "x86"))]
    outcome = Outcome(tallies=[Tally(one) for one in targets])
    return TallyFile(path, targets, seed, 2), outcome, [Pace(one.machine.cpus) for one in targets]


def refused(path: Path, **other: Any) -> str:
    file, outcome, paces = made(path, **other)
    with pytest.raises(UsageProblem) as caught:
        file.load(outcome, paces)
    assert caught.value.message.startswith(f"--resume {path}: ") and "\n" not in caught.value.message
    return caught.value.message.removeprefix(f"--resume {path}: ")


def test_what_is_not_its_own_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "half"
    file, outcome, paces = made(path)
    file.save(outcome, paces, True)
    file.load(outcome, paces)
    assert refused(path, seed=2) == "it is of --seed 1, this is --seed 2; another file"
    assert refused(path, policy="migrc:v9") == (
        "policy was 'immediate' where it is 'migrc:v9' now; another file"
    )
    kept = json.loads(path.read_text())
    for damage in (
        {"migrc_stress": 2},
        {"tallies": []},
        {"tallies": [{**kept["tallies"][0], "lengths": [[1], [1, 2]]}]},
        {"tallies": [{**kept["tallies"][0], "contested": [[0, "w"]]}]},
        {"tallies": [{**kept["tallies"][0], "runs": -1}]},
        {"latencies": {"immediate": {"delivery": "AAAA"}}},
    ):
        path.write_text(json.dumps({**kept, **damage}))
        assert refused(path).endswith("; a file that migrc stress --resume has written"), damage
    path.write_text("")
    assert refused(path).endswith("; a file that migrc stress --resume has written")
    assert "Is a directory" in refused(tmp_path)
