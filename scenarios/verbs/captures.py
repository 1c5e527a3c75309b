"""The verbs `migrc trace import ftrace|perf` and `migrc calibrate`: captures of real kernels."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

import click

from scenarios.disk import file_problems, opened
from scenarios.events.capture import RECORD_WITH, Capture, read_capture
from scenarios.events.event_file import SUFFIX, EventHeader, is_event_file, read, written
from scenarios.files.named_files import check_named
from scenarios.report.captured import as_document, print_captured, suggested_costs
from scenarios.report.console import print_json
from scenarios.runs.event_figures import Figures
from scenarios.subjects.header import project_version
from scenarios.usage import UsageProblem
from scenarios.verbs import options
from scenarios.verbs.bars import bars

_GZIP: Final = b"\x1f\x8b"
_REAL: Final = "real"
_RIGHT: Final = "the text of ftrace, trace-cmd report or perf script"


def _capture_verb(name: str, text: str, epilog: str) -> click.Command:
    """`migrc trace import NAME`: the two programs' texts differ so little that one reader reads both."""

    @click.command(name, help=text, epilog=epilog)
    @click.argument("file", type=options.FILE, metavar="FILE")
    @click.option(
        "-o", "--output", type=options.FILE, metavar="OUT", help=f"Its events ({SUFFIX}), for migrc export."
    )
    @click.option(
        "--beside",
        multiple=True,
        type=options.FILE,
        metavar="EVENTS",
        help="Events of a timed run of ours (migrc run --events), in a column of its own; repeatable.",
    )
    @options.quiet
    @options.json_
    @options.no_seed
    def capture(file: Path, output: Path | None, beside: tuple[Path, ...], quiet: bool, as_json: bool) -> int:
        if output is not None:
            check_named(output, "--output", _GZIP)
            if output.exists() and output.samefile(file):
                raise UsageProblem(f"--output {output}: is the input itself; another name")
        found = _read(file, quiet)
        columns = {_REAL: _figures(found.cpus, found.events)}
        for path in beside:
            header, events = read(path)
            if header.unit != "ns":
                raise UsageProblem(f"--beside {path}: it has steps and no times; events of a timed run")
            columns[_column(path, columns)] = _figures(header.cpus, sorted(events, key=lambda one: one.at))
        if output is not None:
            title, made_by = str(file)[-200:], project_version()
            head = EventHeader(title=title, cpus=found.cpus, unit="ns", project=made_by)
            with written(output, head) as emit:
                for event in found.events:
                    emit(event)
        if as_json:
            print_json({**as_document(str(file), found, columns), "events": output and str(output)})
            return 0
        print_captured(str(file), found, columns, sys.stdout)
        if output is not None:
            click.echo(f"{output}: {len(found.events):,} events")
        return 0

    return capture


ftrace = _capture_verb(
    "ftrace",
    "What a real kernel did, from the text of ftrace or trace-cmd report: flushes, interrupts, latencies.",
    "Record with: trace-cmd record -e tlb -e csd -e irq_vectors:call_function_entry "
    "-e irq_vectors:call_function_single_entry COMMAND; trace-cmd report -t",
)
perf = _capture_verb("perf", "The same from perf script's text.", f"Record with: {RECORD_WITH}")


@click.command()
@click.argument("file", type=options.FILE, metavar="CAPTURE")
@click.option(
    "--ipi-send-ns",
    type=click.IntRange(0, 10**6),
    default=120,
    show_default=True,
    help="What the sender's part of an interrupt is; no tracepoint tells it apart.",
)
@options.quiet
@options.json_
@options.no_seed
def calibrate(file: Path, ipi_send_ns: int, quiet: bool, as_json: bool) -> int:
    """A [costs] table for workloads, with the medians of a real kernel's capture.

    CAPTURE is what migrc trace import reads, or the events that it wrote. Costs of which it has fewer than 30
    samples are left out. What is printed can be put into a workload's file.
    """
    if is_event_file(file):
        header, events = read(file)
        if header.unit != "ns":
            raise UsageProblem(f"{file}: it has steps and no times; a capture of a real kernel")
        figures = _figures(header.cpus, sorted(events, key=lambda one: one.at))
    else:
        found = _read(file, quiet)
        figures = _figures(found.cpus, found.events)
    costs, missing = suggested_costs(figures, ipi_send_ns)
    if as_json:
        document: dict[str, Any] = {"capture": str(file), "costs": [one._asdict() for one in costs]}
        print_json({**document, "missing": missing})
    else:
        click.echo("[costs]")
        for one in costs:
            spread = f"{one.samples:,} samples, half of them from {one.low} to {one.high}"
            click.echo(f"{one.key} = {one.ns}  # {one.how}; {spread}")
        for line in missing:
            click.echo(f"# {line}")
        click.echo("# Tracing is part of these times.")
    if not costs:
        raise UsageProblem(f"{file}: too few samples for any cost; a longer capture with more flushes")
    return 0


def _read(file: Path, quiet: bool) -> Capture:
    with file_problems(str(file), _RIGHT), opened(file) as stream, bars(quiet) as news:
        return read_capture(_lines(stream), lambda number: news.show("reading", None, f"{number:,} lines"))


def _lines(stream: Iterable[bytes]) -> Iterator[str]:
    for line in stream:
        yield line.decode("ascii", "replace")


def _figures(cpus: int, events: Iterable[Any]) -> Figures:
    figures = Figures(cpus)
    figures.feed(events)
    return figures


def _column(path: Path, taken: dict[str, Figures]) -> str:
    name = path.stem
    return name if name not in taken else str(path)
