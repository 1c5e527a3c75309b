"""The format of recorded cases: read as written, and wrong in one line."""

from __future__ import annotations

from pathlib import Path

import pytest

from scenarios.linux.cases import COLUMNS, parse_recording, read_recording, written
from scenarios.usage import UsageProblem

HEADER = "# kernel: 6.12.48+deb13-cloud-amd64\n# date: 2026-11-28\n# pcid: no\n"
NAMES = "\t".join(COLUMNS)
CASE = (
    'munmap_8\tmix\t{"8":1,"full+ft":2}\t3\t{"1":{"8":1},"3":{"lazy":1}}\t{"8":1,"full":2}\t{"wake3":1}\t3/3'
)


def test_a_recording_is_what_was_written() -> None:
    text = f"{HEADER}{NAMES}\n{CASE}\nnothing\tk0\t-\t0\t-\t-\t-\t2/3\n"
    recording = parse_recording(text, "f")
    assert written(recording) == text
    assert recording.kernel == "6.12.48+deb13-cloud-amd64" and not recording.pcid
    first, second = recording.cases
    assert first.key == ("munmap_8", "mix") and first.agreed == (3, 3)
    assert first.counted.recv == {"1": {"8": 1}, "3": {"lazy": 1}}
    assert second.counted == ({}, 0, {}, {}, {}) and second.agreed == (2, 3)


def test_a_header_may_be_missing() -> None:
    recording = parse_recording(f"{NAMES}\n{CASE}\n", "f")
    assert recording.kernel == "" and recording.pcid


def changed(column: str, text: str) -> str:
    cells = CASE.split("\t")
    cells[COLUMNS.index(column)] = text
    return f"{NAMES}\n" + "\t".join(cells)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "f:1: no line of column names"),
        (f"{NAMES}\n", "f: no cases"),
        ("operation\tcalls\n", "f:1: no line of column names"),
        (f"# kernel 6.12\n{NAMES}\n{CASE}", "f:1: '# kernel 6.12' is no header line"),
        (f"# colour: red\n{NAMES}\n{CASE}", "f:1: '# colour: red' is no header line"),
        (f"# kernel: a\n# kernel: b\n{NAMES}\n{CASE}", "f:2: kernel is said twice"),
        (f"# pcid: maybe\n{NAMES}\n{CASE}", "f: pcid is 'maybe'; yes or no"),
        (f"{NAMES}\n{CASE}\n{CASE}", "f:3: munmap_8 mix is in line 2 already"),
        (f"{NAMES}\nmunmap_8\tk0\t-\n", "f:2: 3 columns; 8"),
        (changed("operation", "Munmap 8"), "f:2: operation: 'Munmap 8' is no name"),
        (changed("calls", '{"8":0}'), "f:2: calls: '8' is 0"),
        (changed("calls", '{"8+tf":1}'), "f:2: calls: '8+tf' is 1"),
        (changed("calls", '{"8":true}'), "f:2: calls: '8' is True"),
        (changed("calls", "[1]"), "f:2: calls: '[1]' is no JSON object"),
        (changed("calls", "{"), "f:2: calls: '{' is no JSON object"),
        (changed("send", "-1"), "f:2: send: '-1' is no count"),
        (changed("recv", '{"one":{"8":1}}'), "f:2: recv: 'one' is {'8': 1}"),
        (changed("recv", '{"1":{"-8":1}}'), "f:2: recv of CPU 1: '-8' is 1"),
        (changed("recv", '{"1":1}'), "f:2: recv: '1' is 1"),
        (changed("local", '{"8 pages":1}'), "f:2: local: '8 pages' is 1"),
        (changed("switch", '{"wake":1}'), "f:2: switch: 'wake' is 1"),
        (changed("agreed", "4/3"), "f:2: agreed: '4/3' is not possible"),
    ],
)
def test_what_is_wrong_is_told_in_one_line(text: str, told: str) -> None:
    with pytest.raises(UsageProblem) as problem:
        parse_recording(text, "f")
    assert problem.value.message.startswith(told)
    assert "\n" not in problem.value.message


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    for name in ("missing", "binary", "."):
        with pytest.raises(UsageProblem) as problem:
            read_recording(tmp_path / name)
        assert "not readable as recorded cases" in problem.value.message
