"""Results as HTML pages: all is in them, nothing from the network, and a stranger's file does no harm."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from emulator.measure.histogram import Histogram
from tests.live.shell import settings as small

Migrc = Callable[..., int]
Captured = pytest.CaptureFixture[str]

TIMED = ("--engine", "timed", "--cpus", "2", "--quiet", *small("threads.accesses=6000"))


class _Page(HTMLParser):
    """The cells of a page's tables, row by row, and how often each tag and class is there."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.tags: list[str] = []
        self.open: list[str] = []
        self.classes: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.classes += [one for name, value in attrs if name == "class" and value for one in value.split()]
        assert not {"src", "href", "srcset"} & {name for name, _ in attrs if tag not in ("use", "textPath")}
        if tag not in ("meta", "input", "br"):
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] in ("td", "th"):
            self.rows[-1][-1] += data

    def row(self, name: str) -> list[str]:
        return next(row[1:] for row in self.rows if row and row[0] == name)


def page_of(path: Path) -> _Page:
    text = path.read_text()
    assert text.startswith("<!DOCTYPE html>") and len(text) < 2 << 20
    assert not re.search(r"@import|fetch\(|url\((?!#)", text)
    page = _Page(text)
    assert not page.open
    return page


def test_a_run_is_a_page_with_its_verdict_and_figures(migrc: Migrc, tmp_path: Path, capsys: Captured) -> None:
    told = tmp_path / "told.html"
    assert migrc("run", "tiering", *TIMED, "--html", str(told), "--json") == 0
    out = capsys.readouterr().out
    document = json.loads(out)
    (tmp_path / "r.json").write_text(out)
    again = tmp_path / "again.html"
    assert migrc("export", str(tmp_path / "r.json"), "--html", str(again)) == 0
    assert again.read_text() == told.read_text()
    page = page_of(told)
    first, second = document["runs"]
    flushes = [run["vmstat"]["nr_tlb_remote_flush"] for run in (first, second)]
    assert page.row("remote flushes")[:2] == [f"{one:,}" for one in flushes]
    assert page.row("nr_tlb_remote_flush")[:2] == [f"{one:,}" for one in flushes]
    assert all(line.split(":")[0] in told.read_text() for line in document["conclusion"][:2])
    for key, wrong in (("shootdown_share", 1e308), ("elapsed_ns", 2**70), ("interrupts", {"TLB": [-1]})):
        (tmp_path / "w.json").write_text(json.dumps(document | {"runs": [first | {key: wrong}]}))
        assert migrc("export", str(tmp_path / "w.json"), "--html", str(again)) == 2
        assert f"runs.0.{key}" in capsys.readouterr().err
    # What took the flushes, three kinds of latency, what allocations took, and interrupts by CPU.
    assert page.tags.count("svg") == 6
    assert "bad" not in page.classes
    # What no counter tells of all remote flushes is drawn as the rest.
    kinds = [f"tlb_remote_flush_{kind}" for kind in ("demotion", "promotion", "scan")]
    others = []
    for counts in (first["vmstat"], second["vmstat"]):
        others.append(counts["nr_tlb_remote_flush"] - sum(counts[kind] for kind in kinds))
    chart = told.read_text().partition("remote flushes, by what took them")[2].partition("</svg>")[0]
    drawn = re.findall(r'<desc class="value">([\d,]+)</desc>', chart)
    assert any(others) and {f"{one:,}" for one in others if one} <= {*drawn}


def test_a_curve_never_goes_beyond_what_was_counted() -> None:
    histogram = Histogram()
    for ns in range(1, 101):
        histogram.record(ns * 1000)
    curve = Histogram.from_hdr(histogram.hdr(), 100_000).curve()
    assert curve == histogram.curve() and curve[-1] == (0.99, 99_007)
    assert all(below <= 0.99 and ns <= 100_000 for below, ns in curve)
    assert Histogram().curve() == []
    for wrong in ("no base64", "AAAA", "A" * 200_000):
        with pytest.raises(ValueError, match="no encoded histogram"):
            Histogram.from_hdr(wrong, 1)


def test_checks_are_a_matrix_and_what_is_not_expected_a_card(
    migrc: Migrc, tmp_path: Path, capsys: Captured
) -> None:
    page = tmp_path / "c.html"
    asked = ("check", "early-ack-reuse", "--save", str(tmp_path), "--html", str(page))
    assert migrc(*asked, "--policy", "immediate", "--policy", "mistake:acknowledges-and-returns") == 0
    found = page_of(page)
    rows = [row for row in found.rows if row and row[0] == "early-ack-reuse"]
    assert [row[1].split()[0] for row in rows] == ["immediate", "mistake:acknowledges-and-returns"]
    assert set(rows[0][2:]) == {"Never"}
    assert all(re.fullmatch(r"Sometimes \(\d+\)", cell) for cell in rows[1][2:])
    assert "bad" not in found.classes and "proved" in found.classes
    text = page.read_text()
    # The witnesses of so few results are there, step by step.
    (witness,) = tmp_path.glob("*x86--*.mpk")
    assert f"migrc replay {witness}" in text
    capsys.readouterr()
    wrong = ("check", "shootdown", "--policy", "mistake:no-wait-for-acknowledgements", "--arch", "x86")
    assert migrc(*wrong, "--save", str(tmp_path), "--json") == 0
    document = json.loads(capsys.readouterr().out)
    document |= {"ok": False, "reason": "expected Never, broke <b>a rule</b>"}
    (tmp_path / "one.json").write_text(json.dumps(document))
    assert migrc("export", str(tmp_path / "one.json"), "--html", str(page)) == 0
    text = page.read_text()
    assert "1 unexpected" in text and "&lt;b&gt;a rule" in text and "<b>a rule" not in text
    assert "bad" in page_of(page).classes


def test_what_is_not_proved_is_no_never_without_a_question_mark(migrc: Migrc, tmp_path: Path) -> None:
    page = tmp_path / "c.html"
    asked = ("check", "shootdown", "--policy", "immediate", "--arch", "sc", "--html", str(page))
    assert migrc(*asked, "--states", "10", "--schedules", "300") == 0
    assert [row[2:] for row in page_of(page).rows if row[:1] == ["shootdown"]] == [["Never?"]]
    assert "seen" in page_of(page).classes and "0 of 1 <i>Never</i> proved" in page.read_text()


def test_a_sweep_is_lines_over_its_axis(migrc: Migrc, tmp_path: Path, capsys: Captured) -> None:
    page = tmp_path / "s.html"
    swept = ("--vary", "cpus=1,2", "--vary", "memory.min_free_pages=20,24", "--policy", "migrc")
    assert migrc("sweep", "tiering", *swept, *small("threads.accesses=2000"), "--html", str(page)) == 0
    found = page_of(page)
    assert found.tags.count("svg") == 5
    assert [row[:3] for row in found.rows[1:]] == [
        [cpus, free, "migrc"] for cpus in ("1", "2") for free in ("20", "24")
    ]
    assert "migrc, memory.min_free_pages=20" in page.read_text()


def test_the_events_of_a_timed_run_are_a_page_over_time(
    migrc: Migrc, tmp_path: Path, capsys: Captured
) -> None:
    events, page = tmp_path / "e.mev", tmp_path / "t.html"
    run = ("run", "tiering", *TIMED, "--policy", "migrc", "--events", str(events), "--json")
    assert migrc(*run) == 0
    counts = json.loads(capsys.readouterr().out)["runs"][0]["vmstat"]
    assert migrc("export", str(events), "--html", str(page)) == 0
    found = page_of(page)
    assert "pending pages" in page.read_text() and found.tags.count("svg") > 10
    # On two CPUs somebody else is the other one.
    to_one, to_zero = int(found.row("CPU 0")[1]), int(found.row("CPU 1")[0])
    assert to_one + to_zero >= counts["nr_tlb_remote_flush"]
    assert found.row("CPU 0")[0] == found.row("CPU 1")[1] == ""
    assert int(found.row("try_to_migrate")[0]) == counts["pgmigrate_success"]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("{}", "no result of run, check, sweep or stress"),
        ('{"runs": [1]}', "scenario: Field required"),
        ('{"results": [{}]}', "results.0.litmus: Field required"),
        ('{"points": ' + "[" * 100_000, "nested too deeply"),
        ("{", "Expecting property name"),
    ],
)
def test_what_is_no_result_is_told_in_a_line(
    migrc: Migrc, tmp_path: Path, capsys: Captured, content: str, told: str
) -> None:
    (tmp_path / "r.json").write_text(content)
    assert migrc("export", str(tmp_path / "r.json"), "--html", str(tmp_path / "p.html")) == 2
    error = capsys.readouterr().err
    assert told in error and error.count("\n") == 1
    assert not (tmp_path / "p.html").exists()


def test_a_page_that_cannot_be_written_costs_no_result(
    migrc: Migrc, tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    from scenarios.verbs import pages

    def full(path: Path) -> Any:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pages, "whole_file", full)
    page = str(tmp_path / "p.html")
    assert migrc("check", "shootdown", "--policy", "immediate", "--arch", "sc", "--html", page, "--json") == 2
    out, error = capsys.readouterr()
    assert json.loads(out)["results" if "results" in out else "observation"]
    assert error == f"migrc: error: --html {page}: No space left on device; a file that can be written\n"
    (tmp_path / "mine.html").write_text("no page of ours")
    assert migrc("check", "shootdown", "--html", str(tmp_path / "mine.html")) == 2
    assert "a file of another kind is there" in capsys.readouterr().err


@pytest.mark.skipif(shutil.which("chromium") is None, reason="no browser here")
def test_a_browser_shows_what_is_asked_for(migrc: Migrc, tmp_path: Path) -> None:
    page = tmp_path / "c.html"
    assert migrc("check", "shootdown", "--save", str(tmp_path), "--html", str(page)) == 0
    probe = page.read_text().replace(
        "</body>",
        "<script>filter.value = 'no-wait'; filter.dispatchEvent(new Event('input'));</script></body>",
    )
    page.write_text(probe)
    shown = subprocess.run(
        ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom", page.as_uri()],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    ).stdout
    rows = re.findall(r"<tr(| hidden=\"\")><td>shootdown</td><td class=\"left\">([^<]*)", shown)
    assert {policy for hidden, policy in rows if not hidden} == {"mistake:no-wait-for-acknowledgements"}
    assert len(rows) > 2
