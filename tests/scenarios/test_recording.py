"""Recording files: what was written is read, and of a bad file as much as is good; then replay and shrink."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.recorder import note, runs
from emulator.checks.violation import Violation
from emulator.explore.schedule import parse_schedule
from emulator.hardware.cpu import Kind, Transition
from emulator.machine.referee import Referee
from scenarios.files.named_files import named_files
from scenarios.files.recording import MAGIC, Block, End, Recording, Writer, is_recording
from scenarios.files.witness import load
from scenarios.runs.replays import SharedSum, end_of, sum_of
from scenarios.subjects.header import Header
from scenarios.subjects.programs import LitmusName, machine_of
from scenarios.subjects.subject import Subject
from scenarios.usage import UsageProblem
from scenarios.workloads.kinds import workload_of
from scenarios.workloads.workload_file import load_workload

Migrc = Callable[..., int]
Captured = pytest.CaptureFixture[str]

HEADER = Header(kind="litmus", scenario="SB", policy="immediate", arch="x86", cpus=2)
END = End(transitions=3, memory_digest="m", tlb_digest="t", violations=(Violation("r", 0, ""),))
BLOCKS: list[Block] = [((0, 0, 3, 4, 0, 1), 17), ((2, 1, 1), 2**32 - 1), ((), 0)]

EVENT = st.tuples(st.integers(0, 7), st.integers(0, 2**63), st.integers(1, 5_000))
BLOCK = st.tuples(
    st.lists(EVENT, max_size=20).map(lambda events: tuple(number for event in events for number in event)),
    st.integers(0, 2**32 - 1),
)


def write(path: Path, blocks: list[Block], end: End | None = END, header: Header = HEADER) -> None:
    with Writer(path, header) as writer:
        for events, checksum in blocks:
            writer.keep(events, checksum)
        if end is not None:
            writer.end(end)


def read(path: Path) -> tuple[list[Block], Recording]:
    with Recording(path) as recording:
        return list(recording.blocks()), recording


@settings(max_examples=40)
@given(blocks=st.lists(BLOCK, max_size=6), ended=st.booleans())
def test_what_was_written_is_read(
    tmp_path_factory: pytest.TempPathFactory, blocks: list[Block], ended: bool
) -> None:
    path = tmp_path_factory.mktemp("round") / "r.mrec"
    write(path, blocks, END if ended else None)
    found, recording = read(path)
    assert found == blocks
    assert recording.header == HEADER
    assert recording.end == (END if ended else None)
    assert bool(recording.problem) is not ended
    assert not recording.damaged


TAKEN = st.tuples(st.sampled_from(Kind), st.integers(0, 3), st.integers(0, 2)).filter(
    lambda one: one[0] is not Kind.INTERRUPT or not one[2]  # an interrupt is at no place
)


@given(st.lists(TAKEN, max_size=60))
def test_events_are_the_transitions_in_order(taken: list[tuple[Kind, int, int]]) -> None:
    events: list[int] = []
    for kind, cpu, at in taken:
        note(events, kind, cpu, at, 1)
    back = [one for one, count in runs(events) for _ in range(count)]
    assert back == [Transition(*one) for one in taken]


def test_a_file_that_was_cut_anywhere_is_good_up_to_its_last_whole_frame(tmp_path: Path) -> None:
    path = tmp_path / "r.mrec"
    marks = []
    with Writer(path, HEADER) as writer:
        marks.append(path.stat().st_size)
        for events, checksum in BLOCKS:
            # Every block is in the file as soon as it was handed over.
            writer.keep(events, checksum)
            marks.append(path.stat().st_size)
        writer.end(END)
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        if length < marks[0]:
            with pytest.raises(UsageProblem, match=r"not a recording|nothing of it can be used"):
                Recording(path)
            continue
        found, recording = read(path)
        good = sum(mark <= length for mark in marks[1:])
        assert found == BLOCKS[:good]
        assert recording.end is None
        assert not recording.damaged
        assert recording.problem.startswith(f"cut at byte {marks[good]:,}: ")


def test_one_damaged_byte_anywhere_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "r.mrec"
    write(path, BLOCKS)
    whole = path.read_bytes()
    for at in range(len(whole)):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0x55]) + whole[at + 1 :])
        try:
            found, recording = read(path)
        except UsageProblem as problem:
            assert "\n" not in problem.message
            continue
        assert recording.problem
        assert recording.end is None
        assert found == BLOCKS[: len(found)]


def test_bytes_after_the_end_are_damage(tmp_path: Path) -> None:
    path = tmp_path / "r.mrec"
    write(path, BLOCKS)
    with path.open("ab") as file:
        file.write(b"more")
    found, recording = read(path)
    assert (found, recording.end, recording.damaged) == (BLOCKS, END, True)
    assert "4 bytes too many after its end" in recording.problem


DICT = {"rule": "r", "cpu": 0, "text": ""}


@pytest.mark.parametrize(
    ("violation", "good"),
    [
        (DICT, True),
        (DICT | {"cpu": "0"}, False),
        (DICT | {"more": 1}, False),
        ({"rule": "r", "cpu": 0}, False),
        ({}, False),
        ("r", False),
    ],
)
def test_violations_are_kept_by_name_and_looked_at(
    tmp_path: Path, violation: object, good: bool, migrc: Migrc, capsys: Captured
) -> None:
    end = END.model_dump()
    assert end["violations"] == [DICT]
    path = tmp_path / "r.mrec"
    with Writer(path, HEADER.model_copy(update={"scenario": "two-allocators"})) as writer:
        writer._frame((2, end | {"violations": [violation]}))
    recording = read(path)[1]
    assert recording.end == (END if good else None)
    assert recording.damaged is not good
    if not good:
        assert migrc("replay", str(path), "--trust") == 2
        error = capsys.readouterr().err
        assert "the end after block 0 has other content than an end" in error
        assert error.count("\n") == 1


@pytest.mark.parametrize("events", [(1, 2), (8, 0, 1), (0, -1, 1), (0, 0, 0), (0, "x", 1), (0, True, 1)])
def test_a_block_that_cannot_be_one_is_damage(tmp_path: Path, events: Any) -> None:
    path = tmp_path / "r.mrec"
    with Writer(path, HEADER) as writer:
        writer.keep((0, 0, 1), 5)
        writer.keep(events, 5)
    found, recording = read(path)
    assert (len(found), recording.damaged) == (1, True)
    assert "block 2 " in recording.problem


@pytest.mark.parametrize(
    ("content", "part"),
    [
        (b"", "not a recording"),
        (b"PK\x03\x04 something else", "not a recording"),
        (MAGIC, "not a recording"),
        (
            MAGIC + b"1\n",
            "another format; this version of migrc reads format 2: record it again, or replay it with",
        ),
        (MAGIC + b"2\n", "nothing of it can be used"),
        (MAGIC + b"2\n" + b"\xff" * 40, "a frame's length is impossible"),
    ],
)
def test_another_file_is_one_line(tmp_path: Path, content: bytes, part: str) -> None:
    path = tmp_path / "r.mrec"
    path.write_bytes(content)
    assert is_recording(path) is content.startswith(MAGIC)
    with pytest.raises(UsageProblem, match=part) as caught:
        Recording(path)
    assert "\n" not in caught.value.message


def test_files_that_cannot_be_are_one_line(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "no" / "r.mrec", Path("\0")):
        with pytest.raises(UsageProblem):
            Recording(path)
        with pytest.raises(UsageProblem, match="cannot be written"):
            Writer(path, HEADER)
        assert not is_recording(path)


def test_each_policy_has_a_file_of_its_own(tmp_path: Path) -> None:
    file = tmp_path / "a.b.mrec"
    assert named_files(file, ["migrc:rfc2"], "--record", MAGIC) == {"migrc:rfc2": file}
    names = {
        name: path.name
        for name, path in named_files(file, ["immediate", "migrc:rfc2"], "--record", MAGIC).items()
    }
    assert names == {"immediate": "a.b-immediate.mrec", "migrc:rfc2": "a.b-migrc_rfc2.mrec"}
    with pytest.raises(UsageProblem, match="a directory"):
        named_files(tmp_path, ["migrc"], "--record", MAGIC)
    with pytest.raises(UsageProblem, match="no such directory"):
        named_files(tmp_path / "no" / "x", ["migrc"], "--record", MAGIC)
    for directory in (tmp_path, Path(""), Path("/")):
        with pytest.raises(UsageProblem, match="a directory"):
            named_files(directory, ["migrc", "immediate"], "--record", MAGIC)
    with pytest.raises(UsageProblem, match="File name too long; the name of a file"):
        named_files(tmp_path / f"{'x' * 300}.mrec", ["migrc"], "--record", MAGIC)


@pytest.mark.parametrize("name", ["tiering", "replay"])
def test_a_header_holds_every_setting(name: str) -> None:
    workload = load_workload(name)
    trace = workload.trace_file(None)
    header = Subject(workload, "migrc", "sc", 2, 7, trace).header()
    again = workload_of(header.workload)
    assert again.model_dump() == workload.model_dump()
    assert (header.trace is None) is (trace is None)


# --- replay and shrink -------------------------------------------------------------------------------

BROKEN = "1 0*2 1*2 p1.0 0 p1.0 0*9"


def record(path: Path, folder: Path, schedule: str, damage: int = 0) -> int:
    """A recording of small.py's SB as a live run would make it; how many transitions it has."""
    test = LitmusName("SB", str(folder / "small.py"))
    referee = Referee(machine_of(test, "immediate", "x86"), SharedSum)
    taken = 0
    with Writer(path, Subject(test, "immediate", "x86", 2).header()) as writer:
        for transition in parse_schedule(schedule):
            if not referee.step(transition):
                break
            taken += 1
            events: list[int] = []
            note(events, transition.kind, transition.cpu, transition.at, 1)
            writer.keep(events, sum_of(referee).total.value ^ (damage == taken))
            if referee.violation is not None:
                break
        writer.end(end_of(referee))
    return taken


def test_a_recording_is_replayed_and_its_end_is_drawn(folder: Path, migrc: Migrc, capsys: Captured) -> None:
    count = record(folder / "sb.mrec", folder, BROKEN)
    assert migrc("replay", "sb.mrec", "--trust") == 1
    out, err = capsys.readouterr()
    assert out.startswith("SB under immediate on x86, 2 CPUs, seed 0\n")
    assert "^^^ store buffering" in out
    assert "the same as recorded, to the end" in out
    assert err == ""
    assert migrc("replay", "sb.mrec", "--trust", "--json") == 1
    document = json.loads(capsys.readouterr().out)
    assert (document["transitions"], document["blocks"], document["same"]) == (count, count, True)
    assert [one["rule"] for one in document["violations"]] == ["store buffering"]
    assert document["came_out_again"] is True
    assert document["broken_at"] == count == document["columns"][-1]["step"]


def test_a_recording_without_a_broken_rule(folder: Path, migrc: Migrc, capsys: Captured) -> None:
    record(folder / "sb.mrec", folder, "0*3")
    assert migrc("replay", "sb.mrec", "--trust") == 0
    assert "no rule broke" in capsys.readouterr().out
    assert migrc("shrink", "sb.mrec", "--trust", "--seconds", "0.1") == 1
    assert "no rule breaks in it" in capsys.readouterr().err


def test_where_it_went_another_way_is_said(folder: Path, migrc: Migrc, capsys: Captured) -> None:
    record(folder / "sb.mrec", folder, "0*3 1*3", damage=4)
    assert migrc("replay", "sb.mrec", "--trust", "--json") == 1
    document = json.loads(capsys.readouterr().out)
    assert (document["same"], document["different"]["block"], document["blocks"]) == (False, 4, 3)
    with Writer(
        folder / "sb.mrec",
        Subject(LitmusName("SB", str(folder / "small.py")), "immediate", "x86", 2).header(),
    ) as writer:
        writer.keep((2, 5, 1), 0)
    assert migrc("replay", "sb.mrec", "--trust") == 1
    assert "went another way: block 1: transition 1 is not possible there" in capsys.readouterr().out


def test_a_cut_or_damaged_recording_is_used_as_far_as_it_goes(
    folder: Path, migrc: Migrc, capsys: Captured
) -> None:
    path = folder / "sb.mrec"
    record(path, folder, "0*3")
    whole = path.read_bytes()
    for content, word in ((whole[:-1], "cut"), (whole[:-1] + b"!", "damaged")):
        path.write_bytes(content)
        assert migrc("replay", "sb.mrec", "--trust") == 2
        out, err = capsys.readouterr()
        assert "the same as recorded, as far as that goes" in out
        assert f"sb.mrec: {word} at byte " in err
        assert err.endswith("used up to transition 3\n")
        assert err.count("\n") == 1


def test_a_recording_of_a_litmus_run_becomes_a_short_witness(
    folder: Path, migrc: Migrc, capsys: Captured
) -> None:
    record(folder / "sb.mrec", folder, BROKEN)
    assert migrc("shrink", "sb.mrec", "--trust", "--seconds", "0.3", "--json") == 0
    document = json.loads(capsys.readouterr().out)
    witness = load(folder / "sb.mpk")
    assert witness.rule == document["rule"] == "store buffering"
    assert len(witness.transitions) == document["after"] <= document["cut"] <= document["before"]
    assert migrc("replay", "sb.mpk", "--trust") == 1


def test_a_recording_is_not_overwritten_by_what_it_is_cut_down_to(
    folder: Path, migrc: Migrc, capsys: Captured
) -> None:
    record(folder / "sb.mrec", folder, BROKEN)
    before = (folder / "sb.mrec").read_bytes()
    for out, said in (("sb.mrec", "the recording itself; another file"), (".", "a directory; the name of a")):
        assert migrc("shrink", "sb.mrec", "--trust", "--out", out) == 2
        assert said in capsys.readouterr().err
    assert (folder / "sb.mrec").read_bytes() == before


def test_an_endless_file_is_no_witness() -> None:
    with pytest.raises(UsageProblem, match="/dev/zero: no regular file; a witness file"):
        load(Path("/dev/zero"))


@pytest.mark.parametrize("option", ["--litmus", "--policy"])
def test_a_recording_says_what_it_is_about_itself(
    folder: Path, migrc: Migrc, capsys: Captured, option: str
) -> None:
    record(folder / "sb.mrec", folder, "0*3")
    assert migrc("replay", "sb.mrec", "--trust", option, "SB") == 2
    assert "the recording says that already" in capsys.readouterr().err
