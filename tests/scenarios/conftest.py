"""Litmus tests of one's own in a folder of its own, and the command line to check them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from scenarios.verbs.cli import main

Migrc = Callable[..., int]

SMALL = """
from emulator.machine.litmus import Expectation, Forbidden, Litmus
from emulator.hardware.operations import Load, Store


def buffer(mine, other, flag, others_flag):
    async def program(cpu):
        await Store(mine, 1)
        if not await Load(other):
            cpu.count("litmus_overtook")
            await Store(flag, 1)
            if await Load(others_flag):
                raise Forbidden("store buffering", "both CPUs read 0")

    return program


def nothing(setup):
    pass


SB = Litmus(
    "SB",
    "Does a load overtake a store?",
    (buffer("x", "y", "left", "right"), buffer("y", "x", "right", "left")),
    nothing,
    (
        Expectation(
            "immediate", "Never", "Sometimes", "Sometimes", ("litmus_overtook",), ("store buffering",)
        ),
    ),
)


async def one(cpu):
    await Store("x", 1)


TRIVIAL = Litmus(
    "trivial",
    "Does a store hurt?",
    (one, one),
    nothing,
    (Expectation("immediate", "Never", None, None), Expectation("migrc", "Never", "Never", None)),
)
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current directory, with `small.py` in it: two litmus tests, SB and trivial."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "small.py").write_text(SMALL)
    return tmp_path


@pytest.fixture
def migrc() -> Migrc:
    """Run the command in this process; its exit code."""

    def run(*arguments: str) -> int:
        with pytest.raises(SystemExit) as caught:
            main(arguments)
        assert isinstance(caught.value.code, int)
        return caught.value.code

    return run
