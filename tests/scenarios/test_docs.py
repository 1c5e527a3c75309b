"""The documents' own examples: their files are read out of the text, their commands are run."""

from __future__ import annotations

import re
import runpy
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest

from scenarios.subjects.kernel_settings import SETTINGS

Migrc = Callable[..., int]

DOCS = Path(__file__).parents[2] / "docs"
DOCUMENTS = ("writing-a-litmus.md", "writing-a-policy.md", "designs.md", "from-a-bug-report.md")


@pytest.fixture
def examples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current directory, with every file that a document shows (`# name.py` is its first line)."""
    for document in DOCUMENTS:
        blocks = re.findall(r"^```python\n# (\w+\.py)\n(.*?)^```$", text_of(document), re.M | re.S)
        assert blocks
        for name, text in blocks:
            (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def text_of(document: str) -> str:
    return (DOCS / document).read_text()


def commands(document: str) -> list[list[str]]:
    """What stands in the document's blocks as `migrc check ...`, without the remark two spaces behind it."""
    found = re.findall(r"^migrc (check .*?)(?:  .*)?$", text_of(document), re.M)
    assert found
    return [shlex.split(line) for line in found if "mine:" not in line]


@pytest.mark.parametrize("document", DOCUMENTS)
def test_the_commands_of_a_document_do_what_it_says(
    document: str, examples: Path, migrc: Migrc, capsys: pytest.CaptureFixture[str]
) -> None:
    for command in commands(document):
        broken = {"forgetful:Forgetful", "unasked:Unasked", "./ways.py:WaitsForNobody"} & {*command}
        # The three take a while.
        few = () if "--arch" in command or document != DOCUMENTS[-1] else ("--arch", "sc")
        assert migrc(*command, *few, "--schedules", "500") == int(bool(broken)), capsys.readouterr()
        out = capsys.readouterr().out
        assert ("^^^ " in out) == (bool(broken) or "-v" in command)


def test_the_schedule_in_the_document_breaks_the_rule(
    examples: Path, migrc: Migrc, capsys: pytest.CaptureFixture[str]
) -> None:
    (schedule,) = re.findall(r"^migrc replay '(.*?)'", text_of("writing-a-litmus.md"), re.M)
    machine = ("--litmus", "moving_page.py", "--policy", "forgetful:Forgetful", "--arch", "x86")
    assert migrc("replay", schedule, *machine) == 1
    assert "breaks: access to a free frame" in capsys.readouterr().out


def test_the_reference_is_of_the_code_as_it_is_and_says_something_of_everything() -> None:
    made_now = runpy.run_path(str(DOCS / "reference.py"))["text"]()
    assert text_of("reference.md") == made_now, "run: python docs/reference.py"
    for name in SETTINGS:
        assert re.search(rf"^\| `{name}` \| `.*` \| \S.+ \|$", made_now, re.M), name
    assert not re.search(r"^\| `[^|]*\(.*\)` \| +\|$", made_now, re.M)
    for name in ("huge_page", "direct_read", "with_mmap_lock", "forbids_zeropage", "deadlock", "pgfault"):
        assert name in made_now
