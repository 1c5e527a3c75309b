"""The tool that breaks lines on purpose, on five small mutants; and its lists, as far as they can be read."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.mutants import EQUIVALENT, KILLED, LISTS, ROOT, SURVIVED, figures, main, mutants_in

SAMPLE = """
["emulator/memory/llist.py"]
tests = ["tests/memory/test_llist.py"]
mutants = [
  { before = '_oldest_first.clear()', after = '_oldest_first', breaks = 'what is taken stays' },
  { before = 'return not self._oldest_first', after = 'return True', breaks = 'empty is full' },
  { before = '_oldest_first.append(node)', after = 'append(node)', breaks = 'no node goes in' },
  { before = 'self.state()', after = '(*self.state(),)', breaks = 'nothing', equivalent = 'it is one' },
  { before = 'return len(self', after = 'return 0 + len(self', breaks = 'not a thing' },
]
"""
ENTRY = "{ before = 'was_empty = not self._oldest_first', after = 'was_empty = True', breaks = 'x' }"
HEAD = '["emulator/memory/llist.py"]\ntests = ["tests/memory/test_llist.py"]\nmutants = [\n'


def test_what_breaks_something_is_killed_and_what_does_not_survives(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path: path.read_bytes() for path in (ROOT / "emulator" / "memory").glob("*.py")}
    (tmp_path / "five.toml").write_text(SAMPLE)
    arguments = [str(tmp_path / "five.toml"), "--results", str(tmp_path / "known.jsonl"), "--json"]
    assert main(arguments) == 1  # one survives, and nobody says why
    document = json.loads(capsys.readouterr().out)
    became = {one["breaks"]: one["outcome"] for one in document["results"]}
    assert [became[words] for words in ("what is taken stays", "empty is full", "no node goes in")] == [
        KILLED
    ] * 3
    assert (became["nothing"], became["not a thing"]) == (EQUIVALENT, SURVIVED)
    assert all(
        one["by"].startswith("tests/memory/test_llist.py::") for one in document["results"] if one["by"]
    )
    assert (document["mutants"], document["killed_share"]) == (5, 0.75)
    assert {path: path.read_bytes() for path in before} == before
    # What is known is not asked again, and a line that was cut is.
    known = tmp_path / "known.jsonl"
    lines = known.read_text().splitlines()
    assert len(lines) == 5
    known.write_text("\n".join(lines) + "\n" + lines[0][:20])
    assert main(arguments) == 1 and json.loads(capsys.readouterr().out)["results"][0]["seconds"] > 0
    assert len(known.read_text().splitlines()) == 6


@pytest.mark.parametrize(
    ("text", "part"),
    [
        (HEAD + ENTRY.replace("was_empty = not", "was_empty = never") + "]", "is there 0 times, not once"),
        (
            HEAD + ENTRY.replace("was_empty = not self._oldest_first", "node") + "]",
            "times, not once; mend the list",
        ),
        (HEAD + ENTRY.replace("was_empty = True", "was empty") + "]", "is no Python"),
        (HEAD + ENTRY.replace("breaks", "brakes") + "]", "wants before, after, breaks and tests"),
        (HEAD.replace("[\n", "[") + "{ before = }]", "wrong.toml: "),
        ('["emulator/no_such.py"]\ntests = ["x"]\nmutants = [' + ENTRY + "]", "no_such.py"),
    ],
)
def test_a_list_that_does_not_fit_the_code_is_an_error(
    text: str, part: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "wrong.toml").write_text(text)
    assert main([str(tmp_path / "wrong.toml"), "--check"]) == 2
    told = capsys.readouterr()
    assert part in told.err and told.out == ""


def test_every_mutant_says_what_it_breaks_and_names_tests_that_are_there() -> None:
    found = mutants_in(sorted(LISTS.glob("*.toml")))
    assert len(found) >= 150
    rooms = {one.file.split("/")[1] for one in found}
    assert {"kernel", "policies", "hardware", "memory", "checks", "machine", "explore"} <= rooms
    for one in found:
        assert one.breaks and one.before != one.after and (ROOT / one.file).is_file(), one
        assert all((ROOT / test.partition("::")[0]).is_file() for test in one.tests), one
    assert len({(one.file, one.before, one.after) for one in found}) == len(found)
    assert figures([])["killed_share"] == 1


def test_a_test_run_that_is_interrupted_leaves_nothing_behind(tmp_path: Path) -> None:
    """As Ctrl-C does it: the folder with the copy is gone, the file of results can be read."""
    (tmp_path / "five.toml").write_text(SAMPLE)
    command = [sys.executable, str(ROOT / "benchmarks" / "mutants.py"), str(tmp_path / "five.toml")]
    command += ["--results", str(tmp_path / "known.jsonl")]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )
    assert process.stdout is not None
    assert process.stdout.readline().startswith(KILLED)
    process.send_signal(2)
    _, told = process.communicate()
    assert process.returncode == 130 and "interrupted; what is known is kept" in told
    assert not list(tmp_path.glob("migrc-mutants-*"))
    assert 1 <= len((tmp_path / "known.jsonl").read_text().splitlines()) < 5
