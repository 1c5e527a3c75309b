"""The version of the kernel is a setting of a workload: a profile that single keys go before."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import get_args

import pytest

from emulator.kernel.percpu import KernelParameters
from emulator.kernel.versions import DEFAULT, VERSIONS
from emulator.machine.builder import parameters_of
from emulator.memory.folios import Tier
from emulator.memory.zone import Watermarks
from emulator.policies.immediate import Immediate
from scenarios.files.witness import Witness, load, save
from scenarios.history import BUGS
from scenarios.subjects.programs import LitmusName
from scenarios.subjects.subject import Subject
from scenarios.subjects.workload_machine import build_machine
from scenarios.usage import UsageProblem
from scenarios.workloads.settings import Kernel
from scenarios.workloads.workload_file import load_workload

Migrc = Callable[..., int]
TIERS = (Tier(64, Watermarks(0, 0, 0)), Tier(64, Watermarks(0, 0, 0)))
SMALL = (
    *("--set", "threads.accesses=50000", "--set", "threads.table_pages=3072"),
    *("--set", "threads.hot_share=0.2", "--cpus", "2", "--policy", "immediate", "--quiet"),
)


def parameters(*overrides: str) -> KernelParameters:
    workload = load_workload("tiering", overrides)
    user = workload.user_space(2, 0, None)
    return build_machine(workload, 2, "x86", Immediate, user).parameters


def test_every_version_sets_parameters_that_there_are() -> None:
    names = {field.name for field in fields(KernelParameters)}
    assert DEFAULT in VERSIONS and not VERSIONS[DEFAULT]
    for version, settings in VERSIONS.items():
        assert set(settings) <= names
        made = parameters_of(1, TIERS, version=version)
        assert made.version == version
        assert {key: getattr(made, key) for key in settings} == settings
    assert set(get_args(Kernel.model_fields["version"].annotation)) == set(VERSIONS)


def test_a_workload_has_its_versions_ways_unless_it_says_otherwise() -> None:
    assert parameters().version == "6.12" and parameters().migrate_batched
    old = parameters('kernel.version="6.1"')
    assert old.version == "6.1" and not old.migrate_batched and old.pcid
    mixed = parameters('kernel.version="6.1"', "kernel.migrate_batched=true", "kernel.pcid=false")
    assert mixed.version == "6.1" and mixed.migrate_batched and not mixed.pcid


@pytest.mark.parametrize(
    "options",
    [
        ("--kernel", "6.1"),
        ("--kernel", "6.1", "--set", "threads.write_share=0.1"),
        ("--set", "threads.write_share=0.1", "--kernel", "6.1"),
        ("--set", 'kernel.version="6.1"'),
    ],
)
def test_the_option_is_a_setting_and_reports_name_it(
    options: tuple[str, ...], migrc: Migrc, capsys: pytest.CaptureFixture[str]
) -> None:
    assert migrc("run", "tiering", "--engine", "timed", *SMALL, *options, "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert document["kernel"] == "6.1"
    vmstat = document["runs"][0]["vmstat"]
    # Page by page: a migration flushes for no whole TLB.
    assert vmstat["nr_tlb_remote_flush"] > vmstat["pgdemote_kswapd"] > 0


def test_a_version_that_is_not_known_is_refused(migrc: Migrc, capsys: pytest.CaptureFixture[str]) -> None:
    assert migrc("run", "tiering", "--engine", "timed", "--set", 'kernel.version="2.6"') == 2
    assert (
        "--set kernel.version: '2.6' is not possible; '6.1', '6.6', '6.12' or '6.18'"
        in capsys.readouterr().err
    )


def test_a_litmus_test_is_checked_as_of_a_version_and_its_witness_knows(
    migrc: Migrc, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # Before v6.3 a migration flushes page by page, and no posting is asked: nothing is deferred.
    verb = ("check", "write-fault-before-hung", "--policy", "migrc:v3", "--arch", "x86", "--json")
    found = {}
    for kernel in ("6.6", "6.1"):
        folder = tmp_path / kernel
        code = migrc(*verb, "--kernel", kernel, "--save", str(folder), "--schedules", "300")
        one = json.loads(capsys.readouterr().out)
        assert one["kernel"] == kernel
        found[kernel] = one["observation"], code
    assert found == {"6.6": ("Sometimes", 0), "6.1": ("Never", 1)}
    assert migrc("check", "shootdown", "--kernel", "6.12", "--policy", "immediate", "--arch", "x86") == 0
    assert "immediate on x86, kernel 6.12" in capsys.readouterr().out
    bug = ("check", "--history", "dontneed-beside-dontneed", "--arch", "sc", "--kernel")
    assert migrc(*bug, "6.1") == 0
    assert "immediate on sc, kernel 6.1" in capsys.readouterr().out


def test_a_test_of_one_version_is_left_out_on_another(
    migrc: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    lazy = next(bug.name for bug in BUGS.values() if ("version", "6.18") in bug.test.settings)
    assert migrc("check", "--history", lazy, "--kernel", "6.1") == 2
    assert "is about Linux 6.18 (its setting version), not 6.1" in capsys.readouterr().err


def test_a_bug_is_checked_on_each_version_that_could_have_it(
    migrc: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    # Before v6.4 no fault does without mmap_lock: fork keeps all of them out. clear_refs did not, ever.
    assert migrc("check", "--history", "fork-beside-faults", "--kernel", "6.1") == 2
    assert "is about Linux from 6.4 on, not 6.1" in capsys.readouterr().err
    both = ("fork-beside-faults", "soft-dirty-beside-faults", "--arch", "sc", "--json")
    assert migrc("check", "--history", *both, "--kernel", "6.1") == 0
    results = json.loads(capsys.readouterr().out)["results"]
    seen = [(one["bug"], one["observation"]) for one in results if not one["left_out"]]
    assert seen == [("soft-dirty-beside-faults", "Never"), ("soft-dirty-beside-faults", "Sometimes")]
    assert migrc("check", "--history", both[0], "--arch", "sc", "--kernel", "6.12") == 0
    # Where v6.18 puts the bit of a mask, and what it must come before, is another place.
    assert migrc("check", "--history", "loaded-before-seen", "--arch", "sc", "--kernel", "6.18") == 0


def test_a_witness_is_followed_on_its_version(tmp_path: Path) -> None:
    subject = Subject(LitmusName("shootdown", "", "6.12"), "immediate", "x86")
    path = tmp_path / "a.mpk"
    save(Witness(**subject.ran(), litmus="shootdown", schedule="", rule="r"), path)
    assert load(path).subject == subject and subject.file_name().endswith("x86--6.12")
    assert subject.machine().parameters.version == "6.12"
    with pytest.raises(UsageProblem, match=r"kernel '9\.9'"):
        replace(subject, what=LitmusName("shootdown", "", "9.9")).machine()
