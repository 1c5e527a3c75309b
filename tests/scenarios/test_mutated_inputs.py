"""Files with bytes and values changed: every verb that reads them ends as README says."""

from __future__ import annotations

import fcntl
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_mutated_files_end_as_documented() -> None:
    command = [sys.executable, str(ROOT / "benchmarks" / "mutated_inputs.py"), "20", "--seed", "3"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert [line.split(":")[0] for line in lines] == [
        "witness",
        "recording",
        "trace",
        "sweep",
        "workload",
        "cases",
    ]
    assert all("20 as documented; {}" in line for line in lines)


def test_a_sweep_that_another_one_writes_is_refused(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "scenarios", "sweep", "tiering", "--vary", "seed=1"]
    out = tmp_path / "out.jsonl"
    with out.open("wb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        done = subprocess.run([*command, "--out", str(out)], capture_output=True, text=True, cwd=ROOT)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"migrc: error: --out {out}: another sweep writes it; another file\n"
