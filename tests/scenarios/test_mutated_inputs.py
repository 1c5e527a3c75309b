"""Files with bytes and values changed: every verb that reads them ends as README says."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.mutated_inputs import tell

ROOT = Path(__file__).parents[2]


def test_mutated_files_end_as_documented() -> None:
    command = [sys.executable, str(ROOT / "benchmarks" / "mutated_inputs.py"), "12", "--seed", "3"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert (done.returncode, done.stderr) == (0, "")
    *lines, last = done.stdout.splitlines()
    assert [line.split(":")[0] for line in lines] == [
        "witness",
        "recording",
        "events",
        "trace",
        "lackey",
        "capture",
        "baseline",
        "sweep",
        "workload",
        "result",
        "cases",
        "tally",
        "search",
        "lkmm",
        "riscv",
        "verdicts",
        "options",
    ]
    assert all("12 as documented; {}" in line for line in lines)
    assert last == "204 mutants, seed 3"


@pytest.mark.parametrize(
    "arguments",
    [("replay",), ("shrink",), ("trace", "info"), ("compare", "linux", "--cases"), ("export", "--csv", "x")],
)
def test_a_pipe_is_refused_at_once(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    os.mkfifo(tmp_path / "pipe")
    code, said = tell(*arguments, str(tmp_path / "pipe"))
    assert code == 2
    assert "regular file" in said and said.count("\n") == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ("run", "tiering", "--record"),
        ("trace", "import", "lackey", os.devnull, "-o"),
    ],
)
def test_a_file_of_another_kind_is_not_replaced(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    file = tmp_path / "thesis.txt"
    file.write_text("chapter one")
    code, said = tell(*arguments, str(file))
    assert (code, said.count("\n")) == (2, 1)
    assert "a file of another kind is there, and would be lost; another name" in said
    assert file.read_text() == "chapter one"


def test_a_sweep_that_another_one_writes_is_refused(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "scenarios", "sweep", "tiering", "--vary", "seed=1"]
    out = tmp_path / "out.jsonl"
    with out.open("wb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        done = subprocess.run([*command, "--out", str(out)], capture_output=True, text=True, cwd=ROOT)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"migrc: error: --out {out}: another sweep writes it; another file\n"
