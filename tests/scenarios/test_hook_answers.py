"""What a hook of a user's own policy answers: a wrong kind is one line that names the policy's own line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from emulator.policies.catalogue import POLICIES
from scenarios.subjects.hook_answers import answer_of

Migrc = Callable[..., int]

HEAD = """
from emulator.kernel.percpu import TlbUbc
from emulator.kernel.policy import Policy
from emulator.policies.migrc_v3 import MigrcV3


async def later():
    return 1


class Mine(MigrcV3):
"""
LINE = HEAD.count("\n") + 1  # of the first line behind it
TAKEN = "await super().take_lists(cpu, names)"

WRONG = {
    "a way out without an answer": (
        "def batch_for(self, task, pte):\n    if pte < 0:\n        return task.tlb_ubc",
        "batch_for answers None; TlbUbc is expected",
    ),
    "a coroutine": (
        "async def pending_pages(self, cpu, node):\n    known = [later]\n    return known[0]()",
        "pending_pages answers <coroutine object later",
    ),
    "a truth value where a number is": (
        "async def extra_references(self, cpu, src, dst):\n    return src > dst",
        "extra_references answers False; int is expected",
    ),
    "text": (
        "async def pending_pages(self, cpu, node):\n    return '3'",
        "pending_pages answers '3'; int is expected",
    ),
    "nothing where true or false is asked for": (
        "async def flush_lists(self, cpu, names):\n    if not names:\n        return True",
        "flush_lists answers None; bool is expected",
    ),
    "a truth value where folios are": (
        f"async def take_lists(self, cpu, names):\n    got = {TAKEN}\n    return got[0], bool(got[1])",
        ", True); tuple[TlbUbc, list[int]] is expected",
    ),
    "one part too few": (
        f"async def take_lists(self, cpu, names):\n    return ({TAKEN})[:1]",
        ",); tuple[TlbUbc, list[int]] is expected",
    ),
    "folios that are none": (
        f"async def take_lists(self, cpu, names):\n    batch, _ = {TAKEN}\n    return batch, [None]",
        ", [None]); tuple[TlbUbc, list[int]] is expected",
    ),
    "a list": (
        f"async def take_lists(self, cpu, names):\n    return list({TAKEN})",
        "]]; tuple[TlbUbc, list[int]] is expected",
    ),
}


@pytest.fixture
def checked(
    folder: Path, migrc: Migrc, capsys: pytest.CaptureFixture[str]
) -> Callable[[str], tuple[int, str]]:
    """Exit code of a quick check of such a class, and what standard error says."""

    def run(body: str) -> tuple[int, str]:
        (folder / "mine.py").write_text(HEAD + "".join(f"    {line}\n" for line in body.split("\n")))
        quick = ("--arch", "sc", "--schedules", "9", "--states", "100")
        code = migrc("check", "write-fault-pending", "--policy", "mine.py:Mine", *quick)
        return code, capsys.readouterr().err

    return run


@pytest.mark.parametrize("what", WRONG)
def test_a_wrong_answer_is_told_with_the_line_of_its_hook(
    what: str, checked: Callable[[str], tuple[int, str]]
) -> None:
    body, says = WRONG[what]
    code, said = checked(body)
    assert code == 2 and said.count("\n") == 1, said
    hook = body.partition("def ")[2].partition("(")[0]
    assert f"CPU 0: WrongAnswer: {hook} answers " in said
    assert says in said and f" (mine.py:{LINE} in {hook})" in said


@pytest.mark.parametrize(
    "body",
    [
        f"async def take_lists(self, cpu, names):\n    return {TAKEN}",
        "async def pending_pages(self, cpu, node):\n    return 0",
        "async def watermark_failed(self, cpu, node):\n    return 1",
        "def batch_for(self, task, pte):\n    return super().batch_for(task, pte)",
        "async def drain(self, cpu):\n    return await super().drain(cpu) or 3",
    ],
)
def test_what_will_do_is_not_told(body: str, checked: Callable[[str], tuple[int, str]]) -> None:
    # So few runs reach nothing, which is another matter.
    code, said = checked(body)
    assert (code != 2, said) == (True, "")


def test_what_every_shipped_method_answers_can_be_read() -> None:
    wanted = {
        answer_of(getattr(made, name))
        for made in map(type, (factory() for factory in POLICIES.values()))
        for name in dir(made)
        if not name.startswith("_")
    }
    assert {"", "bool", "int", "TlbUbc", "tuple[TlbUbc, list[int]]"} <= wanted
