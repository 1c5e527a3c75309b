"""What `migrc stress` refuses: in one line, before anything is started."""

from __future__ import annotations

from pathlib import Path

import pytest

from scenarios.verbs.cli import main

EXPECTS_OF_NOBODY = """
from emulator.hardware.operations import Store
from emulator.machine.litmus import Litmus


async def stores(cpu):
    await Store("word", 1)


MINE = Litmus("mine", "?", (stores, stores), lambda setup: None, ())
"""


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one line that it says."""
    with pytest.raises(SystemExit) as ended:
        main(["stress", *arguments])
    output, errors = capsys.readouterr()
    assert (ended.value.code, output) == (2, "")
    (line,) = errors.splitlines()
    assert line.startswith("migrc: error: ")
    return line


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "name a litmus test"),
        (("shootdwn",), "did you mean shootdown?"),
        (("nothing.py",), "no such file"),
        (("nothing.toml",), "no such file"),
        (("shootdown", "--all"), "one or the other"),
        (("shootdown", "--policy", "nobody"), "nobody"),
        (("shootdown", "--policy", "migrc", "--policy", "migrc"), "given twice"),
        (("shootdown", "--arch", "arm"), "arm"),
        (("shootdown", "--chaos", "4"), "4"),
        (("shootdown", "--runs", "0"), "0"),
        (("shootdown", "--seconds", "nan"), "nan"),
        (("shootdown", "--cpus", "3"), "for workloads only"),
        (("tiering", "--set", "memory.fast_pages=-1"), "memory.fast_pages"),
        (("shootdown", "--address", ""), "HOST:PORT"),
    ],
)
def test_bad_input_is_one_line_and_code_2(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], said: str
) -> None:
    assert said in refused(capsys, *arguments)


def test_a_test_that_expects_never_of_nobody_wants_a_policy(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text(EXPECTS_OF_NOBODY)
    assert "say which with --policy" in refused(capsys, "mine.py:mine")
