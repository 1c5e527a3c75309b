"""What a person sees of `migrc trace`: figures, one JSON document, one-line errors, no half-written files."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

import scenarios.traces
from scenarios.traces.format import read_trace
from scenarios.verbs.trace import trace

SHIPPED = Path(scenarios.traces.__file__).parent / "data" / "sort.trace"
TEXT = "==7== Lackey\nI  04000d70,3\n L 1ffeffe7e,8\n M 1ffeffffc,8\nhello\n"


def run(*arguments: str, text: str | None = None) -> Result:
    return CliRunner().invoke(trace, list(arguments), input=text, prog_name="migrc trace")


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    path = tmp_path / "lackey.txt"
    path.write_text(TEXT)
    return path


def test_a_file_and_standard_input_give_the_same_runs(tmp_path: Path, recording: Path) -> None:
    one, two = tmp_path / "one.trace", tmp_path / "two.trace"
    assert run("import", "lackey", str(recording), "-o", str(one)).exit_code == 0
    assert run("import", "lackey", "-", "-o", str(two), "--seed", "3", text=TEXT).exit_code == 0
    assert list(read_trace(one).runs()) == list(read_trace(two).runs())
    assert read_trace(one).header["source"] == "lackey.txt"


def test_the_figures_are_told(tmp_path: Path, recording: Path) -> None:
    result = run("import", "lackey", str(recording), "-o", str(tmp_path / "out.trace"))
    assert "6 accesses in 5 runs over 3 pages" in result.stdout
    assert "from 5 lines: 3 accesses (1 modifies, 1 across a page boundary), 2 other lines" in result.stdout


def test_json_is_one_document(tmp_path: Path, recording: Path) -> None:
    output = tmp_path / "out.trace"
    result = run("import", "lackey", str(recording), "-o", str(output), "--window", "1", "--json")
    document = json.loads(result.stdout)
    assert document["totals"]["accesses"] == 6
    assert document["input"] == {"lines": 5, "access_lines": 3, "modifies": 1, "crossings": 1, "ignored": 2}
    assert document["header"]["window"] == 1
    told = json.loads(run("info", str(output), "--json").stdout)
    assert told["totals"] == document["totals"]


def test_info_on_the_shipped_trace() -> None:
    result = run("info", str(SHIPPED))
    assert result.exit_code == 0
    assert "442 pages" in result.stdout
    assert "per 1024 access lines" in result.stdout


def assert_problem(result: Result, part: str) -> None:
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.startswith("migrc: error: ")
    assert result.stderr.count("\n") == 1
    assert part in result.stderr


def test_problems_are_one_line_and_exit_code_2(tmp_path: Path, recording: Path) -> None:
    output = str(tmp_path / "out.trace")
    assert_problem(run("info", str(recording)), "not a trace")
    assert_problem(run("info", str(tmp_path)), "directory")
    assert_problem(run("info", "missing.trace"), "missing.trace: No such file")
    assert_problem(run("import", "lackey", "missing.txt", "-o", output), "missing.txt: No such file")
    assert_problem(run("import", "lackey", str(recording), "-o", "-"), "--output -: not a regular file")
    assert_problem(run("import", "lackey", str(recording), "-o", str(tmp_path)), "not a regular file")
    assert_problem(run("import", "lackey", str(recording), "-o", str(recording)), "is the input itself")
    assert_problem(run("import", "lackey", str(recording), "-o", str(tmp_path / "no" / "x")), "no directory")
    assert_problem(run("import", "lackey", "-", "-o", output, text="nothing\n"), "valgrind --tool=lackey")
    assert run("import", "lackey", str(recording), "-o", output, "--window", "0").exit_code == 2


def test_a_failed_import_leaves_the_old_trace(tmp_path: Path, recording: Path) -> None:
    output = tmp_path / "out.trace"
    run("import", "lackey", str(recording), "-o", str(output))
    old = output.read_bytes()
    assert run("import", "lackey", "-", "-o", str(output), text="nothing\n").exit_code == 2
    assert output.read_bytes() == old
    assert sorted(tmp_path.iterdir()) == [recording, output]


def test_a_link_goes_on_pointing_at_the_new_trace(tmp_path: Path, recording: Path) -> None:
    real, link = tmp_path / "real.trace", tmp_path / "link.trace"
    real.touch()
    link.symlink_to(real)
    assert run("import", "lackey", str(recording), "-o", str(link)).exit_code == 0
    assert link.is_symlink()
    assert read_trace(real).totals.accesses == 6


def test_an_interrupt_removes_the_unfinished_file(tmp_path: Path) -> None:
    output = tmp_path / "out.trace"
    command = [sys.executable, "-c", "from scenarios.verbs.trace import trace; trace()"]
    root = Path(scenarios.traces.__file__).parents[2]
    pipe = subprocess.PIPE
    arguments = ["import", "lackey", "-", "-o", str(output)]
    with subprocess.Popen([*command, *arguments], cwd=root, stdin=pipe, stdout=pipe, stderr=pipe) as process:
        deadline = time.monotonic() + 30
        while not list(tmp_path.iterdir()) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert [path.suffix for path in tmp_path.iterdir()] == [".part"]
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)
    assert process.returncode == 130
    assert errors == b"migrc: interrupted; nothing was written\n"
    assert list(tmp_path.iterdir()) == []
