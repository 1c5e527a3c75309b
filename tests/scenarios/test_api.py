"""What the verbs do, from Python: the same documents, flat rows, errors in one line."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from scenarios import api
from scenarios.events.event import What

Migrc = Callable[..., int]
Captured = pytest.CaptureFixture[str]
FEW = {"threads.accesses": 2000}


def without(document: Any, *names: str) -> Any:
    if isinstance(document, dict):
        return {key: without(value, *names) for key, value in document.items() if key not in names}
    return [without(one, *names) for one in document] if isinstance(document, list) else document


def test_a_run_is_what_the_verb_prints(migrc: Migrc, capsys: Captured, tmp_path: Path) -> None:
    result = api.run("tiering", settings=FEW, cpus=2, seed=5, events=tmp_path / "e.mev")
    assert (
        migrc(
            *[
                "run",
                "tiering",
                "--engine",
                "timed",
                "--cpus",
                "2",
                "--seed",
                "5",
                "--set",
                "threads.accesses=2000",
                "--json",
            ]
        )
        == 0
    )
    document = json.loads(capsys.readouterr().out)
    assert without(json.loads(json.dumps(result.document)), "wall_s", "events") == without(document, "wall_s")
    rows = result.rows()
    assert [row["policy"] for row in rows] == ["immediate", "migrc"]
    assert rows[0]["accesses"] == 4000 == result["immediate"]["accesses"] and rows[0]["seed"] == 5
    assert all(not isinstance(value, dict | list) for row in rows for value in row.values())
    assert "No rule broke under immediate, migrc" in str(result) and result._repr_html_().startswith("<pre>")
    assert any(event.what is What.ENTER for event in result.events("migrc"))
    with pytest.raises(KeyError):
        result["nobody"]


def test_checks_are_what_the_verb_finds(migrc: Migrc, capsys: Captured, tmp_path: Path) -> None:
    result = api.check("shootdown", archs=["x86"], schedules=200, witnesses=tmp_path)
    assert (
        migrc(
            "check", *["shootdown", "--arch", "x86", "--schedules", "200", "--json", "--save"], str(tmp_path)
        )
        == 0
    )
    document = json.loads(capsys.readouterr().out)
    found = json.loads(json.dumps(result.document))
    assert without(found, "elapsed_s", "columns") == without(document, "elapsed_s", "columns")
    assert result.ok and [row["observation"] for row in result.rows()] == ["Never", "Sometimes", "Sometimes"]
    assert "3 results, 0 unexpected" in str(result)
    assert api.check("20841405940e", history=True, archs=["sc"], schedules=50, witnesses=tmp_path).ok


def test_a_sweep_has_what_varies_as_numbers_and_goes_on(tmp_path: Path) -> None:
    out = tmp_path / "s.jsonl"
    result = api.sweep("tiering", {"cpus": [1, 2]}, settings=FEW, policies=["immediate"], out=out)
    assert [(row["cpus"], row["accesses"]) for row in result.rows()] == [(1, 2000), (2, 4000)]
    before = out.read_bytes()
    again = api.sweep("tiering", {"cpus": [1, 2]}, settings=FEW, policies=["immediate"], out=out)
    assert again.rows() == result.rows() and out.read_bytes() == before
    assert "timed engine" in str(result)


def test_a_table_needs_pandas_and_only_then(monkeypatch: pytest.MonkeyPatch) -> None:
    result = api.sweep("tiering", {"seed": [1]}, settings=FEW, cpus=1)
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(api.Problem, match="pandas is not installed"):
        result.to_pandas()
    monkeypatch.setitem(sys.modules, "pandas", SimpleNamespace(DataFrame=list))
    assert result.to_pandas() == result.rows()


def test_what_readme_shows_runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: Captured) -> None:
    monkeypatch.setitem(sys.modules, "pandas", SimpleNamespace(DataFrame=list))
    monkeypatch.chdir(tmp_path)
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    (program,) = re.findall(r"^```python\n(.*?)^```$", readme, re.M | re.S)
    exec(program, {})
    assert "migrc:v9 against immediate" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: api.run("tierin"), "did you mean tiering"),
        (lambda: api.run("tiering", policies=["x"]), "unknown policy 'x'"),
        (lambda: api.run("tiering", policies="migrc"), "a list of one or more"),
        (lambda: api.run("tiering", policies=["migrc", "migrc:v3"]), "each once"),
        (lambda: api.run("tiering", cpus=0), "1 to 128"),
        (lambda: api.run("tiering", arch="vax"), "arch='vax'"),
        (lambda: api.run("tiering", mmu="x"), "unknown mmu"),
        (lambda: api.run("tiering", seed=-1), "seed=-1"),
        (lambda: api.run("tiering", engine="warp"), "'timed' or 'live'"),
        (lambda: api.run("tiering", engine="live", events="e"), "of a timed run"),
        (lambda: api.run("tiering", settings={"a": 1}), "unknown key"),
        (lambda: api.run("tiering", settings=FEW, cpus=1).events("migrc"), "kept no events"),
        (lambda: api.check("nope"), "unknown litmus test"),
        (lambda: api.check("shootdown", strategy="x"), "no strategy named x"),
        (lambda: api.check("shootdown", archs=["vax"]), "arch='vax'"),
        (lambda: api.check("shootdown", schedules=0), "schedules=0"),
        (lambda: api.check("x", history=True), "no bug"),
        (lambda: api.check("x", history=True, mmu="x86"), "says itself"),
        (lambda: api.sweep("tiering", {"cpus": []}), "not understood"),
        (lambda: api.sweep("tiering", {"cpus": [0]}), "out of range"),
    ],
)
def test_what_is_wrong_is_a_problem_in_one_line(call: Callable[[], Any], says: str) -> None:
    with pytest.raises(api.Problem, match=says) as caught:
        call()
    assert "\n" not in caught.value.message
