"""Proofs that end early: why, and how they go on from a file."""

from __future__ import annotations

import itertools
import json
import signal
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from emulator.explore.exhaustive import Exhausted
from emulator.explore.learned import LearnedMachine
from scenarios.runs import proofs
from scenarios.runs.proofs import INTERRUPTED, MEMORY, STATES, Watch, prove
from scenarios.runs.searches import results
from scenarios.runs.verdict import Settings, plan
from scenarios.subjects.programs import LitmusName
from scenarios.subjects.subject import Subject
from scenarios.usage import UsageProblem

pytest.importorskip("wasmtime")

Migrc = Callable[..., int]
Captured = pytest.CaptureFixture[str]
SHOOTDOWN = Subject(LitmusName("shootdown"), "immediate", "riscv")
STATES_OF_IT = 309


def proved(settings: Settings, look: Callable[[str], None] = lambda text: None) -> Exhausted:
    return prove(SHOOTDOWN, LearnedMachine(SHOOTDOWN.litmus_machine()), settings, look)


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setattr("emulator.explore.compiled.sharing_out.BUDGET", 20)
    return Settings("exhaustive", resume=tmp_path / "half")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_keeps_what_was_seen_and_it_goes_on_from_there(
    settings: Settings, number: signal.Signals
) -> None:
    whole = proved(settings)
    assert settings.resume is not None
    assert whole.complete and whole.states == STATES_OF_IT and not settings.resume.exists()
    looks = iter(range(1000))

    def look(text: str) -> None:
        # In the last round, as all has been learnt by then.
        if next(looks) == 110:
            signal.raise_signal(number)

    first = proved(settings, look)
    said = INTERRUPTED if number == signal.SIGINT else number.name
    assert (first.complete, first.stopped) == (False, said)
    assert 0 < first.states < whole.states and settings.resume.exists()
    second = proved(settings)
    assert second == whole
    assert not settings.resume.exists()


def test_it_is_kept_from_time_to_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings("exhaustive", resume=tmp_path / "half")
    # A minute between two looks at the clock.
    minutes = itertools.count()
    monkeypatch.setattr(proofs, "time", SimpleNamespace(monotonic=lambda: 60.0 * next(minutes)))
    seen = set()

    def look(text: str) -> None:
        if settings.resume is not None and settings.resume.exists():
            seen.add(settings.resume.stat().st_size)

    assert proved(settings, look).complete
    assert len(seen) > 1


@pytest.fixture
def half(settings: Settings) -> Settings:
    """Settings with a file of half a search."""
    found = proved(replace(settings, states=200))
    assert (found.stopped, found.complete) == (STATES, False)
    return settings


def test_it_is_not_given_up_while_it_is_taken_up_again(
    half: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    hours = itertools.count()
    monkeypatch.setattr(proofs, "time", SimpleNamespace(monotonic=lambda: 3600.0 * next(hours)))
    assert proved(half).complete


def changed(what: str, raw: bytes) -> bytes:
    at = len(raw) // 2
    return {
        "empty": b"",
        "something else": b"Dear diary",
        "cut short": raw[:at],
        "only its head": raw[:40],
        "a bit of it": raw[:at] + bytes([raw[at] ^ 1]) + raw[at + 1 :],
        "more behind": raw + b"!",
        "another policy": raw.replace(b'"immediate"', b'"migrc:v3" ', 1),
        "other programs": raw.replace(b'"programs": "', b'"programs": "0', 1),
    }[what]


@pytest.mark.parametrize(
    ("what", "told"),
    [
        ("empty", "no unfinished search; "),
        ("something else", "no unfinished search; "),
        ("cut short", "damaged, or cut short; "),
        ("only its head", "damaged; "),
        ("a bit of it", "damaged, or cut short; "),
        ("more behind", "damaged, or cut short; "),
        ("another policy", "holds another search (policy differs); "),
        ("other programs", "holds another search (programs differs); "),
    ],
)
def test_files_that_are_not_of_this_search_are_refused(half: Settings, what: str, told: str) -> None:
    assert half.resume is not None
    raw = changed(what, half.resume.read_bytes())
    half.resume.write_bytes(raw)
    with pytest.raises(UsageProblem) as problem:
        proved(half)
    assert problem.value.message.startswith(f"--resume {half.resume}: {told}")
    assert half.resume.read_bytes() == raw


def test_memory_is_a_limit(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(proofs, "resident_bytes", lambda: 1 << 40)
    copy = Subject(LitmusName("fork-pending"), "migrc:v3", "x86")
    for limited in (Settings("exhaustive", memory=1 << 40), replace(settings, memory=1 << 40)):
        explorer = LearnedMachine(copy.litmus_machine())
        found = prove(copy, explorer, limited, said.append)
        assert (found.complete, found.stopped) == (False, MEMORY)
    assert said and all(text.endswith(f"{1 << 20:,} MiB") for text in said)


def test_whose_memory_is_told() -> None:
    learned = LearnedMachine(SHOOTDOWN.litmus_machine())
    roomy = Watch(learned, 1 << 45, lambda: "", lambda text: None)
    assert "4 GiB at most" in roomy.in_words(MEMORY)
    assert roomy.in_words(MEMORY, 1 << 45) == MEMORY
    assert roomy.in_words(STATES) == STATES


def test_the_command_says_why_and_where(
    tmp_path: Path, migrc: Migrc, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    cell = ("check", "shootdown", "--policy", "immediate", "--arch", "riscv", "--strategy", "exhaustive")
    assert migrc(*cell, "--states", "300", "--resume", "half", "--json") in (0, 1)
    found: dict[str, Any] = json.loads(capsys.readouterr().out)["proof"]
    assert (found["proved"], found["stopped"], found["kept"]) == (False, "states", "half")
    assert migrc(*cell, "--states", "301", "--resume", "half") in (0, 1)
    assert f"not complete: states ({STATES_OF_IT}" not in (out := capsys.readouterr().out)
    assert "not complete: states (" in out and " states seen, kept in half)" in out
    assert migrc(*cell, "--resume", "half") == 0
    assert f", complete, 64 schedules, 810 steps, {STATES_OF_IT} states, " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--memory", "4"), "--memory: '4'; an amount such as 512M or 4G, from 128M to 1024T"),
        (("--memory", "64M"), "--memory: '64M'; an amount such as 512M or 4G, from 128M to 1024T"),
        (("--resume", "x"), "--resume: only with --strategy exhaustive"),
        (("--address", "10.0.0.1:6379"), "--address: only with --strategy exhaustive"),
        (
            ("--resume", "x", "--strategy", "exhaustive"),
            "--resume: a file is of one search, and these are 9; one test with one --policy and one --arch",
        ),
    ],
)
def test_wrong_options_are_one_line(
    options: tuple[str, ...], told: str, migrc: Migrc, capsys: Captured
) -> None:
    assert migrc("check", "shootdown", *options) == 2
    assert capsys.readouterr().err == f"migrc: error: {told}\n"


def test_where_a_weaker_order_had_too_many_states_a_stronger_one_is_not_searched_as_far(
    tmp_path: Path,
) -> None:
    def seen(archs: Sequence[str], states: int) -> list[tuple[int, bool]]:
        jobs = plan([LitmusName("shootdown")], ["immediate"], archs)
        settings = Settings(schedules=70, states=states, states_beyond=40, folder=tmp_path)
        return [(one.seen, one.complete) for one in results(jobs, settings, None, lambda *told: None)]

    alone = [seen([arch], 100_000)[0] for arch in ("sc", "x86")]
    assert seen(["sc", "x86"], 100_000) == alone and all(complete for _, complete in alone)
    assert seen(["sc", "x86"], 100) == [(101, False), (41, False)]
    assert seen(["x86", "sc"], 100) == [(101, False), (101, False)]
