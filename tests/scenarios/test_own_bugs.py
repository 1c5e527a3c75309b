"""Real bugs as a user writes them: the public helpers and nothing else, each in 40 lines or fewer."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

FILES = sorted((Path(__file__).parent / "own_bugs").glob("*.py"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_it_breaks_its_rule_before_the_fix_and_never_after(
    file: Path, folder: Path, migrc: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    text = file.read_text()
    assert text.count("\n") <= 40
    imported = {line.split()[1] for line in text.splitlines() if line.startswith("from ")}
    assert all(one == "scenarios.litmus.kit" or one.startswith("emulator.kernel.") for one in imported)
    (folder / file.name).write_text(text)
    assert migrc("check", file.name, "--arch", "sc", "--json", "--proved") == 0
    fixed, before = json.loads(capsys.readouterr().out)["results"]
    assert (fixed["policy"], fixed["observation"], fixed["proof"]["proved"]) == ("immediate", "Never", True)
    assert (before["policy"], before["observation"]) == (f"{file.name}:Before", "Sometimes")
    assert before["witness"]["rule"]
