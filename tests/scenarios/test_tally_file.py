"""The file that `migrc stress --resume` keeps: of another stress, or damaged, it is refused in one line."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from scenarios.runs import tally_file
from scenarios.runs.swarm import Pace
from scenarios.runs.tally import Outcome, Tally
from scenarios.runs.tally_file import TallyFile
from scenarios.runs.trials import target
from scenarios.subjects.programs import LitmusName
from scenarios.subjects.sources import digest_of_sources
from scenarios.subjects.subject import Subject
from scenarios.usage import UsageProblem


def made(path: Path, seed: int = 1, policy: str = "immediate") -> tuple[TallyFile, Outcome, list[Pace]]:
    targets = [target(Subject(LitmusName("shootdown"), policy, "x86"))]
    outcome = Outcome(tallies=[Tally(one) for one in targets])
    return TallyFile(path, targets, seed, 2), outcome, [Pace(one.machine.cpus) for one in targets]


def refused(path: Path, **other: Any) -> str:
    file, outcome, paces = made(path, **other)
    with closing(file), pytest.raises(UsageProblem) as caught:
        file.load(outcome, paces)
    assert caught.value.message.startswith(f"--resume {path}: ") and "\n" not in caught.value.message
    return caught.value.message.removeprefix(f"--resume {path}: ")


def test_what_is_not_its_own_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "half"
    file, outcome, paces = made(path)
    file.save(outcome, paces, True)
    file.load(outcome, paces)
    file.close()
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


def test_code_that_has_changed_is_another_stress(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "half"
    file, outcome, paces = made(path)
    file.save(outcome, paces, True)
    file.close()
    monkeypatch.setattr(tally_file, "digest_of_sources", lambda subject: "another")
    assert refused(path) == "the code that it ran has changed since; another file"


def test_the_digest_is_of_the_users_own_file_too(tmp_path: Path) -> None:
    mine = tmp_path / "tallied.py"
    mine.write_text((Path(__file__).parent / "own_bugs" / "gather_range.py").read_text())
    subject = Subject(LitmusName("gather-range", str(mine)), "immediate", "x86")
    before = digest_of_sources(subject)
    mine.write_text(mine.read_text() + "# changed\n")
    assert digest_of_sources(subject) != before


def test_two_at_once_do_not_write_over_each_other(tmp_path: Path) -> None:
    path = tmp_path / "half"
    theirs = "another migrc stress writes it; another file"
    first, outcome, paces = made(path)
    # Both have begun before there was a file.
    second, *rest = made(path)
    first.save(outcome, paces, True)
    with pytest.raises(UsageProblem, match=theirs):
        second.save(*rest, True)
    assert refused(path) == theirs
    first.save(outcome, paces, True)
    assert refused(path) == theirs
    path.unlink()
    first.save(outcome, paces, True)
    assert refused(path) == theirs
    assert [one.name for one in tmp_path.iterdir()] == ["half"]
    first.close()
    third, *rest = made(path)
    third.load(*rest)
    third.save(*rest, True)
