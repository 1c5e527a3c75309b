"""The verb `migrc export`: what happened in a run, in the formats of other people's tools."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Final, NamedTuple, TextIO

import click

from emulator.explore.schedule import ScheduleProblem
from scenarios.disk import file_problems, opened, whole_file
from scenarios.events.event import Event
from scenarios.events.event_file import SUFFIX, EventHeader, is_event_file, read, written
from scenarios.events.event_table import write_csv
from scenarios.events.ftrace_text import write_ftrace
from scenarios.files.named_files import check_named
from scenarios.files.recording import Recording, is_recording
from scenarios.files.results import load_page_result
from scenarios.files.witness import load
from scenarios.report.console import print_json
from scenarios.runs.event_sources import tell_recording, tell_schedule
from scenarios.subjects.header import project_version
from scenarios.subjects.subject import faults_in_one_line
from scenarios.usage import UsageProblem
from scenarios.verbs import options
from scenarios.verbs.bars import bars

Write = Callable[[EventHeader, Iterable[Event], BinaryIO], int]


class Format(NamedTuple):
    """A format: what writes it, and what its files have near the beginning."""

    write: Write
    mark: bytes


def _perfetto(header: EventHeader, events: Iterable[Event], into: BinaryIO) -> int:
    # Its descriptors take a while to import.
    from scenarios.events.perfetto_trace import write_perfetto

    return write_perfetto(header, events, into)


def _page(header: EventHeader, events: Iterable[Event], into: TextIO) -> int:
    # So does the template engine.
    if header.unit == "ns":
        from scenarios.report.timeline import write_timeline

        return write_timeline(header, events, into)
    from scenarios.events.interleaving import NotDrawn, write_page

    try:
        return write_page(header, events, into)
    except NotDrawn as problem:
        raise UsageProblem(f"--html: {problem}") from None


def _as_text(write: Callable[[EventHeader, Iterable[Event], io.TextIOWrapper], int]) -> Write:
    def into_bytes(header: EventHeader, events: Iterable[Event], into: BinaryIO) -> int:
        text = io.TextIOWrapper(into, "utf-8", newline="\n", write_through=True)
        count = write(header, events, text)
        text.detach()
        return count

    return into_bytes


FORMATS: Final = {
    "perfetto": Format(_perfetto, b"CPU 0"),
    "ftrace": Format(_as_text(write_ftrace), b"# tracer: nop"),
    "html": Format(_as_text(_page), b"<!DOCTYPE html>"),
    "csv": Format(_as_text(write_csv), b"at_"),
}


_COUNTED: Final = {"perfetto": "events", "ftrace": "lines", "html": "steps", "csv": "events"}


@click.command()
@click.argument("file", type=options.FILE, metavar="FILE")
@click.option("--perfetto", type=options.FILE, metavar="OUT", help="A trace for ui.perfetto.dev.")
@click.option(
    "--ftrace", type=options.FILE, metavar="OUT", help="ftrace's text, with the kernel's tracepoints."
)
@click.option(
    "--html",
    type=options.FILE,
    metavar="OUT",
    help="A page to step through or to read.",
)
@click.option("--csv", type=options.FILE, metavar="OUT", help="A table, one row for each event.")
@options.trust
@options.quiet
@options.json_
@options.no_seed
def export(file: Path, trust: bool, quiet: bool, as_json: bool, **outs: Path | None) -> int:
    """Write what happened in a run for other tools to show.

    FILE is a file of events (`migrc run --engine timed --events FILE`), a witness of `migrc check` or the
    recording of a live run. The last two are followed again, and their times are steps. Of what run, check,
    sweep or stress printed with --json there is --html.
    """
    wanted = {name: path for name, path in outs.items() if path is not None}
    if not wanted:
        raise UsageProblem(f"no format; one or more of {', '.join(f'--{name} OUT' for name in FORMATS)}")
    for name, path in wanted.items():
        check_named(path, f"--{name}", FORMATS[name].mark)
        if path.resolve() == file.resolve():
            raise UsageProblem(f"--{name} {path}: the file itself; another name")
    if _is_text(file):
        return _export_result(file, wanted, as_json)
    counts: dict[str, int] = {}
    with _events_of(file, trust, quiet) as source:
        header, _ = read(source)
        for name, path in wanted.items():
            with file_problems(f"--{name} {path}", "a file that can be written"), whole_file(path) as into:
                counts[name] = FORMATS[name].write(*read(source), into)
    if as_json:
        print_json(_document(file, header, wanted, counts))
    else:
        click.echo(header.title)
        for name, path in wanted.items():
            what = "events" if header.unit == "ns" and name == "html" else _COUNTED[name]
            click.echo(f"{path}: {counts[name]:,} {what} ({name})")
    return 0


def _is_text(file: Path) -> bool:
    """A JSON document, and none of ours in binary."""
    with file_problems(str(file), "a file that migrc wrote"), opened(file) as begin:
        return begin.read(64).lstrip()[:1] == b"{"


def _export_result(file: Path, wanted: dict[str, Path], as_json: bool) -> int:
    if others := sorted(wanted.keys() - {"html"}):
        raise UsageProblem(f"--{others[0]}: {file} is a result, of which there is --html only")
    # So do the charts.
    from scenarios.report.result_page import write_page

    result, path = load_page_result(file), wanted["html"]
    page = io.StringIO()
    with file_problems(str(file), "what migrc printed with --json"):
        write_page(result, page)
    with file_problems(f"--html {path}", "a file that can be written"), whole_file(path) as into:
        into.write(page.getvalue().encode())
    if as_json:
        print_json({"file": str(file), "written": [{"format": "html", "file": str(path)}]})
    else:
        click.echo(f"{path}: a page (html)")
    return 0


def _document(
    file: Path, header: EventHeader, wanted: dict[str, Path], counts: dict[str, int]
) -> dict[str, Any]:
    out = [{"format": name, "file": str(path), "events": counts[name]} for name, path in wanted.items()]
    run = {"title": header.title, "unit": header.unit, "cpus": header.cpus}
    return {"file": str(file), **run, "written": out}


@contextmanager
def _events_of(file: Path, trust: bool, quiet: bool) -> Iterator[Path]:
    """A file of events that says what happened in FILE, which may be one already."""
    if is_event_file(file):
        yield file
        return
    with tempfile.TemporaryDirectory(prefix="migrc-events-") as folder:
        path = Path(folder) / f"events{SUFFIX}"
        if is_recording(file):
            with Recording(file) as recording, bars(quiet) as news:
                options.check_trust(file, recording.subject(), trust)
                size = max(recording.size, 1)
                header = _header(recording.header.title(), recording.header.cpus)
                with written(path, header) as emit:
                    tell_recording(
                        recording,
                        emit,
                        lambda steps, position: news.show("", position / size, f"{steps:,} transitions"),
                    )
        else:
            witness = load(file)
            subject = witness.subject
            options.check_trust(file, subject, trust)
            cpus = subject.litmus_machine().cpus
            header = _header(f"{subject.title()}: {witness.rule}", cpus, witness.schedule)
            with written(path, header) as emit, faults_in_one_line(subject):
                try:
                    tell_schedule(subject, witness.transitions, emit)
                except ScheduleProblem as problem:
                    raise UsageProblem(f"{file}: {problem}; a witness that migrc check saved") from None
        yield path


def _header(title: str, cpus: int, schedule: str = "") -> EventHeader:
    return EventHeader(title=title, cpus=cpus, unit="steps", schedule=schedule, project=project_version())
