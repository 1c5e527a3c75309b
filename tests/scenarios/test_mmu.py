"""`--mmu`: how flushes are carried out, by name, from the command line to what is kept in files."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from emulator.kernel.mmu.catalogue import MMUS
from scenarios.files.recording import Recording, Writer
from scenarios.files.witness import Witness, load, save
from scenarios.subjects.header import Header
from scenarios.subjects.programs import LitmusName
from scenarios.subjects.subject import Subject
from scenarios.usage import UsageProblem

Migrc = Callable[..., int]
VERBS = (
    ("check", "shootdown"),
    ("run", "tiering"),
    ("stress", "shootdown"),
    ("sweep", "tiering", "--vary", "cpus=1,2"),
    ("replay", "0", "--litmus", "shootdown", "--policy", "immediate", "--arch", "sc"),
)


@pytest.mark.parametrize("verb", VERBS, ids=lambda verb: verb[0])
def test_a_name_that_is_none_is_told_in_one_line(
    migrc: Migrc, capsys: pytest.CaptureFixture[str], verb: tuple[str, ...]
) -> None:
    assert migrc(*verb, "--mmu", "x68") == 2
    assert "--mmu: unknown mmu 'x68'; did you mean x86? known: early-ack, x86" in capsys.readouterr().err


def test_bugs_of_the_kernel_are_those_of_its_own_mmu(migrc: Migrc) -> None:
    assert migrc("check", "--history", "--mmu", "x86") == 2


def test_what_was_run_says_how(migrc: Migrc, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    name = "mistake:no-wait-for-acknowledgements"
    verb = ("check", "shootdown", "--policy", name, "--arch", "sc", "--json", "--save", str(tmp_path))
    assert migrc(*verb) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["mmu"] == "x86"
    assert load(Path(found["file"])).subject.mmu == "x86"
    assert migrc("list", "--json") == 0
    assert [one["name"] for one in json.loads(capsys.readouterr().out)["mmus"]] == list(MMUS)


def test_files_keep_it_and_older_ones_mean_the_first(tmp_path: Path) -> None:
    subject = Subject(LitmusName("shootdown"), "immediate", "x86", 2, mmu="other")
    assert subject.title().endswith("on x86 with other") and "--other" in subject.file_name()
    path = tmp_path / "a.mpk"
    save(Witness(**subject.ran(), litmus="shootdown", schedule="", rule="r"), path)
    assert load(path).subject.mmu == "other"
    with Writer(tmp_path / "a.rec", subject.header()):
        pass
    with Recording(tmp_path / "a.rec") as recording:
        assert recording.subject().mmu == "other" and "with other" in recording.header.title()
        with pytest.raises(UsageProblem, match="unknown mmu 'other'"):
            recording.machine()
    before = {key: value for key, value in subject.header().model_dump().items() if key != "mmu"}
    assert Header.model_validate(before).mmu == "x86"
