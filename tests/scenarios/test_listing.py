"""What there is, and one of it in full."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from scenarios.litmus import LITMUS

Migrc = Callable[..., int]
Captured = pytest.CaptureFixture[str]


def test_list_shows_what_a_pattern_means(migrc: Migrc, capsys: Captured) -> None:
    assert migrc("list", "litmus", "mprotect-*", "--json") == 0
    (section,) = json.loads(capsys.readouterr().out).items()
    assert section[0] == "litmus"
    assert [one["name"] for one in section[1]] == [name for name in LITMUS if name.startswith("mprotect-")]
    assert migrc("list", "CVE-2025-37964") == 0
    assert capsys.readouterr().out.startswith("bugs that the kernel had")
    assert migrc("list", "policies", "no such thing") == 2
    assert "nothing is called 'no such thing'" in capsys.readouterr().err


def test_everything_that_is_listed_can_be_shown(migrc: Migrc, capsys: Captured) -> None:
    assert migrc("list", "--json") == 0
    for section in json.loads(capsys.readouterr().out).values():
        for name in (one["name"] for one in section):
            if name != "MODULE:CLASS":
                assert migrc("show", name, "--json") == 0
                shown = json.loads(capsys.readouterr().out)["shown"]
                assert all(one["name"] == name and one["about"] for one in shown)


def test_show_says_what_counts(migrc: Migrc, capsys: Captured) -> None:
    for name, words in (
        ("shootdown", "under immediate"),
        ("promoted-beside-scanner", "dirty-entry-cached: breaks with mistake:before-20841405940e"),
        ("20841405940e", "promoted-beside-scanner (bug)"),
        ("tiering", "memory.fast_pages"),
        ("nr_tlb_remote_flush", "(counter)"),
    ):
        assert migrc("show", name) == 0
        output = capsys.readouterr().out
        assert words in " ".join(output.split()) and max(map(len, output.splitlines())) <= 100
    assert migrc("show", "shootdwn") == 2
    assert "did you mean shootdown?" in capsys.readouterr().err
