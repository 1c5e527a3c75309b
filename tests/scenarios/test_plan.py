"""What `migrc check` plans: which tests under which policies on which architectures, and what is expected."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from scenarios.runs.verdict import plan
from scenarios.subjects.programs import LitmusName, litmus_named

Migrc = Callable[..., int]
Captured = pytest.CaptureFixture[str]


def test_where_a_test_says_nothing_of_a_posting_what_it_says_of_mainline_counts(
    folder: Path, migrc: Migrc, capsys: Captured
) -> None:
    policy = ("--policy", "migrc")
    assert migrc("check", "small.py:SB", *policy, "--arch", "x86", "--json") == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["expected"], result["observation"]) == ("Sometimes", "Sometimes")
    assert migrc("check", "small.py:SB", *policy, "--arch", "sc", "--json") == 0
    assert json.loads(capsys.readouterr().out)["expected"] == "Never"


def test_without_options_everything_that_has_an_expectation_is_planned(folder: Path) -> None:
    jobs = plan(litmus_named("small.py"), [], [])
    assert [(job.subject.name, job.subject.policy, job.subject.arch) for job in jobs] == [
        ("SB", "immediate", "sc"),
        ("SB", "immediate", "x86"),
        ("SB", "immediate", "riscv"),
        ("trivial", "immediate", "sc"),
        ("trivial", "migrc", "sc"),
        ("trivial", "migrc", "x86"),
    ]
    jobs = plan(litmus_named("small.py:SB"), ["migrc:rfc2"], [])
    assert [(job.subject.arch, job.expected) for job in jobs] == [
        ("sc", "Never"),
        ("x86", "Sometimes"),
        ("riscv", "Sometimes"),
    ]


def test_an_architecture_that_a_test_is_not_about_is_left_out(
    folder: Path, migrc: Migrc, capsys: Captured
) -> None:
    """A right policy is not accused of what nobody expects there."""
    assert migrc("check", "kernel-table-device", "--arch", "riscv") == 2
    assert "kernel-table-device is about sc, x86 only, not riscv" in capsys.readouterr().err
    assert migrc("check", "kernel-table-device", "small.py:SB", "--arch", "riscv", "--json") == 0
    assert [one["left_out"] for one in json.loads(capsys.readouterr().out)["results"] if one["left_out"]] == [
        "is about sc, x86 only, not riscv"
    ] * 2


def test_both_names_of_v3_have_the_same_expectations() -> None:
    for test in (LitmusName("empty-is-not-done"), LitmusName("deferred-copy")):
        short, long = (plan([test], [name], ["x86"])[0] for name in ("migrc", "migrc:v3"))
        assert short.expected is not None
        assert (short.expected, short.reached, short.rules) == (long.expected, long.reached, long.rules)
