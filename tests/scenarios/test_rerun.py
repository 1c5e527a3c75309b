"""A result says how it came about, and comes out again."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hdrh.histogram import HdrHistogram

Migrc = Callable[..., int]
Captured = pytest.CaptureFixture[str]
RUN = "run tiering --engine timed --cpus 2 --seed 3 --policy migrc --set threads.accesses=3000 --json --quiet"


@pytest.fixture
def result(migrc: Migrc, capsys: Captured, tmp_path: Path) -> Path:
    path = tmp_path / "result.json"
    assert migrc(*RUN.split()) == 0
    path.write_text(capsys.readouterr().out)
    return path


def changed(path: Path, **values: Any) -> str:
    document = json.loads(path.read_text())
    for where, value in values.items():
        *keys, last = where.split("__")
        inner = document
        for key in keys:
            inner = inner[int(key) if key.isdecimal() else key]
        inner[last] = value
    path.write_text(json.dumps(document))
    return str(path)


def test_it_says_all_settings_and_comes_out_again(migrc: Migrc, capsys: Captured, result: Path) -> None:
    document = json.loads(result.read_text())
    assert document["settings"]["threads"]["accesses"] == 3000
    assert document["host"]["cores"] >= 1 and document["trace"] is None
    assert migrc("rerun", str(result), "--json") == 0
    again = json.loads(capsys.readouterr().out)
    assert (again["same"], again["different"]) == (True, [])
    assert again["runs"][0]["vmstat"] == document["runs"][0]["vmstat"]
    assert migrc("rerun", str(result)) == 0
    assert capsys.readouterr().out.endswith("to the last count and ns\n")


def test_its_histograms_are_read_by_others(result: Path) -> None:
    run = json.loads(result.read_text())["runs"][0]
    for kind, summary in run["ipi_latency_ns"].items():
        payload = base64.b64decode(run["ipi_latency_hdr"][kind])
        assert HdrHistogram.decode(payload, b64_wrap=False).get_total_count() == summary["count"]


def test_what_comes_out_differently_is_named(migrc: Migrc, capsys: Captured, result: Path) -> None:
    path = changed(result, runs__0__vmstat__pgfault=-1, runs__0__clocks_ns=[1])
    assert migrc("rerun", path) == 1
    lines = capsys.readouterr().out.splitlines()[-2:]
    assert lines[0].startswith("different: migrc.vmstat.pgfault: -1, now ")
    assert lines[1].startswith("different: migrc.clocks_ns: [1], now [")


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"arch": "vax"}, "arch 'vax'"),
        ({"mmu": "none"}, "unknown mmu"),
        ({"cpus": 0}, "cpus"),
        ({"seed": "x"}, "seed"),
        ({"engine": "warp"}, "engine"),
        ({"runs": []}, "runs"),
        ({"runs__0__policy": "evil:Policy"}, "--trust"),
        ({"settings": {}}, "settings"),
        ({"settings__threads__accesses": -1}, "accesses"),
        ({"trace": {"path": "/no/such", "blake2b": "0" * 32}}, "needs the trace /no/such"),
    ],
)
def test_what_is_no_result_is_told_in_one_line(
    values: dict[str, Any], says: str, migrc: Migrc, capsys: Captured, result: Path
) -> None:
    assert migrc("rerun", changed(result, **values)) == 2
    output, errors = capsys.readouterr()
    assert output == "" and says in errors and errors.count("\n") == 1
