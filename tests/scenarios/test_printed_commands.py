"""Every command that README and the documents print is taken as printed: names, options, settings, files.

What a command would then do for minutes is left out; files that it names are there. Some are run for real in
`test_docs` and, as a user would, by the script that checks a fresh clone.
"""

from __future__ import annotations

import io
import re
import shlex
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from benchmarks.mutated_inputs import formats
from scenarios.events.event import Event, Reason, What
from scenarios.events.event_file import EventHeader, written
from scenarios.linux.tier_counts import read_tiers, tiers_path
from scenarios.runs.tally import Outcome, Tally
from scenarios.verbs import check, compare, compare_tiers, sweep

Migrc = Callable[..., int]
ROOT = Path(__file__).parents[2]
TEXTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
# An earlier command of its document makes it; `test_docs` runs both.
MADE = "witnesses/moving-page"
# What their documents show, but for the first line.
PROGRAM = re.compile(r"^```python\n# (\w+\.py)\n(.*?)^```$", re.M | re.S)
POLICY = "from emulator.kernel.policy import Policy\n\n\nclass MyPolicy(Policy):\n    pass\n"


def printed() -> list[tuple[str, ...]]:
    found: dict[tuple[str, ...], None] = {}
    for text in TEXTS:
        for block in re.findall(r"^```\n(.*?)^```$", text.read_text(), re.M | re.S):
            lines = re.sub(r"\s*\\\n\s*", " ", block).splitlines()
            for line in lines:
                if line.startswith("migrc "):
                    found[tuple(shlex.split(re.split(r"\s{2,}", line)[0], comments=True)[1:])] = None
    return [one for one in found if not any(part.startswith(MADE) for part in one)]


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    return {kind: one.good for kind, one in formats(tmp_path_factory.mktemp("good")).items()}


@pytest.fixture
def place(folder: Path, good: dict[str, bytes]) -> Path:
    """The current directory with all that the commands name."""
    for name, kind in (
        ("witnesses/FILE.mpk", "witness"),
        ("recordings/FILE.mrec", "recording"),
        ("run-migrc.mrec", "recording"),
        ("my.trace", "trace"),
        ("result.json", "result"),
        ("mine.tsv", "cases"),
    ):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(good[kind])
    with written(folder / "run-migrc.mev", EventHeader(title="a timed run", cpus=2, unit="ns")) as emit:
        emit(Event(1, 0, What.FLUSH, "flush_tlb_func", (Reason.LOCAL_SHOOTDOWN, 1)))
    (folder / "capture.txt").write_bytes((ROOT / "tests/scenarios/captures/perf.txt").read_bytes())
    for text in TEXTS:
        for name, program in re.findall(
            r"^```python\n# (\w+\.py)\n(.*?)^```$", text.read_text(), re.M | re.S
        ):
            (folder / name).write_text(program)
    (folder / "before.json").write_text('{"results": []}')
    (folder / "mine.py").write_text(POLICY)
    (folder / "my_test.py").write_text((folder / "small.py").read_text())
    return folder


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Stands in for what takes long; which of it would have begun."""
    begun: list[str] = []

    def nothing(name: str) -> Callable[..., Any]:
        return lambda *arguments, **options: begun.append(name)

    def no_results(*arguments: Any) -> Iterator[Any]:
        begun.append("search")
        return iter(())

    def one_run(targets: Any, *arguments: Any, outcome: Outcome, resume: Path | None, placement: str) -> None:
        begun.append("stress")
        outcome.tallies = [Tally(one) for one in targets]
        outcome.tallies[0].runs = 1

    def as_recorded(*arguments: Any) -> Any:
        begun.append("tiers")
        return read_tiers(tiers_path("6.12")).whole()[0]

    monkeypatch.setattr("scenarios.runs.live.run_live", nothing("live"))
    monkeypatch.setattr("scenarios.runs.timed.run_timed", nothing("timed"))
    monkeypatch.setattr("scenarios.runs.trials.stress", one_run)
    monkeypatch.setattr(sweep, "_runs", no_results)
    monkeypatch.setattr(check, "results", no_results)
    monkeypatch.setattr(check, "_pool", lambda *arguments: nullcontext())
    monkeypatch.setattr(compare, "_record", lambda *arguments: None)
    monkeypatch.setattr(compare, "verdicts", no_results)
    monkeypatch.setattr(compare_tiers, "_record", lambda *arguments: None)
    monkeypatch.setattr(compare_tiers, "_counted", as_recorded)
    return begun


@pytest.mark.parametrize("command", printed(), ids=" ".join)
def test_a_printed_command_is_taken(
    command: tuple[str, ...],
    place: Path,
    started: list[str],
    migrc: Migrc,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO())
    stands_for = {"NAME": "shootdown", "HOST:PORT": "10.0.0.1:6379"}
    words = [stands_for.get(word, word) for word in command]
    if words[0] == "shrink":
        words += ["--seconds", "0.1"]
    if "6.6" in words:
        cases = place / "mine.tsv"
        cases.write_bytes(cases.read_bytes().replace(b"kernel: 6.12", b"kernel: 6.6"))
    assert migrc(*words) in (0, 1), capsys.readouterr().err
    if words[0] in ("run", "check", "stress", "sweep", "compare"):
        assert started


def test_there_are_commands_of_every_verb() -> None:
    verbs = "run check stress sweep replay shrink compare list functions export step rerun show"
    assert {one[0] for one in printed()} >= set(verbs.split())
