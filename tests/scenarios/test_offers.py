"""What is offered while one types, schemas of what is printed and read, and workloads to begin with."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from scenarios.files.results import CheckResults, RunResult
from scenarios.workloads.workload_file import list_workloads, load_workload
from tests.live.shell import settings as small

Migrc = Callable[..., int]
Captured = pytest.CaptureFixture[str]

ROOT = Path(__file__).parents[2]


def offered(line: str) -> list[str]:
    """What bash is offered for the last word of a line."""
    told = subprocess.run(
        [sys.executable, "-m", "scenarios"],
        cwd=ROOT,
        env=os.environ
        | {
            "_MIGRC_COMPLETE": "bash_complete",
            "COMP_WORDS": line,
            "COMP_CWORD": str(len(line.split(" ")) - 1),
        },
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    return [one.partition(",")[2] for one in told.splitlines()]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("migrc run tie", ["tiering", "tiering-recorded"]),
        ("migrc check deferred-c", ["deferred-copy"]),
        ("migrc check --policy migrc:r", ["migrc:rfc1", "migrc:rfc2"]),
        ("migrc run tiering --set memory.m", ["memory.min_free_pages="]),
        ("migrc check --mmu x86-inv", ["x86-invlpgb"]),
        ("migrc schem", ["schema"]),
    ],
)
def test_a_shell_is_offered_names(line: str, expected: list[str]) -> None:
    assert offered(line) == expected


def test_a_shell_gets_its_script(migrc: Migrc, capsys: Captured) -> None:
    assert migrc("completion", "bash") == 0
    assert "_MIGRC_COMPLETE=bash_complete" in capsys.readouterr().out
    assert migrc("completion", "zsh", "--json") == 0
    assert json.loads(capsys.readouterr().out)["shell"] == "zsh"


@pytest.mark.parametrize("one", list_workloads(), ids=lambda one: one.name)
def test_a_copy_of_a_workload_is_the_same_workload(
    migrc: Migrc, folder: Path, capsys: Captured, one: Any
) -> None:
    assert migrc("workload", "new", one.name, "mine.toml") == 0
    capsys.readouterr()
    copy, shipped = load_workload("./mine.toml").settings_used(), one.settings_used()
    paths = [settings.get("replay", {}).pop("trace", "") for settings in (copy, shipped)]
    assert copy == shipped and bool(paths[0]) == bool(paths[1])
    if paths[0]:
        assert Path(paths[0]).is_file()
    assert migrc("workload", "new", one.name, "mine.toml") == 2
    assert capsys.readouterr().err == "migrc: error: mine.toml: File exists; a name of no file yet\n"


def test_results_follow_their_schema(migrc: Migrc, tmp_path: Path, capsys: Captured) -> None:
    run = ("run", "tiering", "--engine", "timed", "--cpus", "2", "--quiet", "--json")
    assert migrc(*run, *small("threads.accesses=1000")) == 0
    RunResult.model_validate_json(capsys.readouterr().out)
    assert migrc("check", "shootdown", "--save", str(tmp_path), "--json") == 0
    found = capsys.readouterr().out
    CheckResults.model_validate_json(found)
    with pytest.raises(ValidationError):
        CheckResults.model_validate_json(found.replace('"ok": true', '"ok": "yes"'))
    for kind, keys in (
        ("run", {"scenario", "runs", "seed"}),
        ("check", {"results"}),
        ("sweep", {"points", "vary"}),
        ("stress", {"results", "chaos"}),
    ):
        assert migrc("schema", kind) == 0
        made = json.loads(capsys.readouterr().out)
        assert keys <= set(made["required"])
        assert made["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert migrc("schema", "workload", "--json") == 0
    kinds = json.loads(capsys.readouterr().out)["anyOf"]
    assert len(kinds) >= len({one.kind for one in list_workloads()})
    assert migrc("schema", "trace") == 2
