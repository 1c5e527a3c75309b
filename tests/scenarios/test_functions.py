"""`migrc functions`: the map of the kernel's functions is read off the kernel as it is."""

from __future__ import annotations

import importlib
import inspect
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from emulator.kernel.instead import instead_of, kernels_own
from emulator.kernel.policy import Policy
from scenarios.litmus import kit
from scenarios.subjects.kernel_functions import kernel_functions

Migrc = Callable[..., int]
ROOT = Path(__file__).parents[2]
# Its files have no counterpart in Linux; all others name the one that they are.
OURS = {
    "boot",
    "mmzone",
    "percpu",
    "pageout",
    "sched",
    "secondary",
    "user",
    "policy",
    "rmap",
    "catalogue",
    "latr",
    "x86_rar",
}


def test_each_is_where_it_says_and_what_it_uses_can_be_replaced_there() -> None:
    found = kernel_functions()
    assert len(found) > 250
    for one in found:
        file, _, line = one.place.partition(":")
        text = (ROOT / file).read_text().split("\n")[int(line) - 1 :]
        assert any(f"def {one.name}(" in row for row in text[:3]), one.place
        assert one.does or one.name[0] == "_", one.place
        if one.is_hook:
            assert callable(getattr(Policy, one.name))
            continue
        assert one.kernel or Path(file).stem in OURS, one.place
        place = kernels_own(getattr(importlib.import_module(one.of), one.name))
        for name in one.uses:
            instead_of(place.__globals__[name], within=place)


def test_callers_hooks_and_programs_are_followed() -> None:
    found = {one.name: one for one in kernel_functions()}
    assert found["move_ptes"].callers == ("move_page_tables",)
    assert found["move_ptes"].hooks == ("flush_moved", "move_unlocked")
    assert {"XchgPte", "flush_tlb_batched_pending"} <= set(found["move_ptes"].uses)
    assert found["move_ptes"].programs == ("mremap",)
    assert found["flush_moved"].callers == ("move_ptes",) and found["flush_moved"].is_hook
    assert "MADV_DONTNEED" in found["zap_pte_range"].programs
    assert {"munmap", "exits"} <= set(found["zap_pte_range"].programs)


@pytest.mark.parametrize(
    ("asked", "has"),
    [
        ("move_ptes", ["move_ptes"]),
        ("flush_m*", ["flush_moved"]),
        ("do_read_fault", ["do_no_page"]),
        ("mm/oom_kill.c", ["oom_reap_task_mm"]),
        ("kernel/ksm.py", ["try_to_merge_two_pages", "write_protect_page"]),
    ],
)
def test_a_function_is_found_by_what_a_person_knows(
    asked: str, has: list[str], migrc: Migrc, capsys: pytest.CaptureFixture[str]
) -> None:
    assert migrc("functions", asked, "--json") == 0
    names = [one["name"] for one in json.loads(capsys.readouterr().out)["functions"]]
    assert set(has) <= set(names)
    assert migrc("functions", asked) == 0
    out = capsys.readouterr().out
    assert all(name in out for name in has)


def test_one_that_is_none_is_told_the_closest(migrc: Migrc, capsys: pytest.CaptureFixture[str]) -> None:
    assert migrc("functions", "move_pte") == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "no function of the kernel 'move_pte'; did you mean move_ptes? " in said
    assert migrc("functions") == 0
    assert "emulator/kernel/mremap.py\n" in capsys.readouterr().out


def test_kit_has_every_helper() -> None:
    for name in ("answers", "starts", "steps", "syscalls"):
        module = importlib.import_module(f"scenarios.litmus.{name}")
        own = {
            each
            for each, value in vars(module).items()
            if each[0] != "_" and getattr(value, "__module__", module.__name__) == module.__name__
        }
        assert {each for each in own if not inspect.ismodule(vars(module)[each])} <= set(vars(kit))
        assert not [each for each in own if vars(kit)[each] is not vars(module)[each]]
