"""Witness files: what is saved comes back, nothing half-written stays, and every bad file is one line."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import msgpack
import pytest

from emulator.hardware.cpu import Kind, Transition
from scenarios.files.witness import FORMAT, MAGIC, Witness, load, save
from scenarios.usage import UsageProblem

WITNESS = Witness(
    litmus="SB",
    policy="mine:Policy",
    arch="riscv",
    schedule="0*2 i1 p0.0 w1.0x10",
    rule="store buffering",
    text="both read 0",
    seed=2**63 - 1,
    strategy="portfolio/pct:3",
    run=12,
    project="0.1.0",
)


def test_what_is_saved_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / WITNESS.name()
    save(WITNESS, path)
    assert path.name == "SB--mine_Policy--riscv.mpk"
    assert load(path) == WITNESS
    assert load(path).transitions[1:4] == (
        Transition(Kind.STEP, 0),
        Transition(Kind.INTERRUPT, 1),
        Transition(Kind.PERFORM, 0, 0),
    )
    assert os.listdir(path.parent) == [path.name]
    assert path.stat().st_mode & 0o777 == 0o644


def test_names_of_files_are_safe() -> None:
    name = WITNESS.model_copy(update={"litmus": "../a b\n" + "x" * 500}).name()
    assert "/" not in name
    assert "\n" not in name
    assert len(name) < 200


def test_a_failed_save_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "w.mpk"
    save(WITNESS, path)

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UsageProblem, match=r"w\.mpk: the witness cannot be written: No space left"):
        save(WITNESS.model_copy(update={"rule": "other"}), path)
    assert os.listdir(tmp_path) == ["w.mpk"]
    assert load(path) == WITNESS


def packed(**changes: Any) -> bytes:
    document = {MAGIC: FORMAT, **WITNESS.model_dump(), **changes}
    data: bytes = msgpack.packb({key: value for key, value in document.items() if value is not ...})
    return data


@pytest.mark.parametrize(
    ("raw", "part"),
    [
        (b"", "not a witness"),
        (b"\x00", "not a witness"),
        (b"hello, world", "not a witness"),
        (b"\xc1", "not a witness"),
        (b"\x80\x04\x95 pickle", "not a witness"),
        (msgpack.packb({"a": 1}), "not a witness"),
        (msgpack.packb({1: 1}), "not a witness"),
        (msgpack.packb([MAGIC]), "not a witness"),
        (packed()[:40], "truncated"),
        (packed()[:-1], "truncated"),
        (packed() + b"x", "1 bytes too many at its end"),
        (packed(**{MAGIC: FORMAT + 1}), "a witness of another format; this version of migrc reads format 1"),
        (packed(**{MAGIC: "1"}), "a witness of another format"),
        (packed(litmus=...), "litmus: Field required"),
        (packed(litmus=7), "litmus: Input should be a valid string"),
        (packed(litmus=""), "litmus: String should have at least 1 character"),
        (packed(arch="mips"), "arch: Input should be"),
        (packed(seed=-1), "seed: Input should be greater than"),
        (packed(seed="3"), "seed: Input should be a valid integer"),
        (packed(more=1), "more: Extra inputs are not permitted"),
        (packed(schedule="0 x"), "token 2 of the schedule ('x')"),
        (packed(schedule=["0"]), "schedule: Input should be a valid string"),
    ],
)
def test_a_bad_file_is_one_line(tmp_path: Path, raw: bytes, part: str) -> None:
    path = tmp_path / "bad.mpk"
    path.write_bytes(raw)
    with pytest.raises(UsageProblem) as caught:
        load(path)
    assert part in caught.value.message
    assert caught.value.message.startswith(f"{path}: ")
    assert "\n" not in caught.value.message


def test_a_file_that_cannot_be_read_is_one_line(tmp_path: Path) -> None:
    for path in (tmp_path / "nothing.mpk", tmp_path):
        with pytest.raises(UsageProblem, match="a witness file that migrc check saved"):
            load(path)
