"""The verbs `migrc trace import` and `migrc trace info`: what a person types to make and to look at a trace.

With --json standard output carries one document and nothing else; progress and errors go to standard error.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

import click

from scenarios.disk import check_replaceable
from scenarios.report.console import print_json
from scenarios.traces.format import BLOCK_RUNS, FORMAT, PAGE_SIZE, Trace, TraceError, TraceWriter, read_trace
from scenarios.traces.lackey import COMMAND, DEFAULT_WINDOW, import_lackey, lackey_header
from scenarios.usage import UsageProblem
from scenarios.verbs import exits, options
from scenarios.verbs.bars import bars
from scenarios.verbs.captures import ftrace, perf

_LARGEST_WINDOW = 1 << 20


@click.group()
def trace() -> None:
    """Page-access traces of real programs."""


@trace.group("import")
def import_() -> None:
    """Make a trace from another tool's recording."""


import_.add_command(ftrace)
import_.add_command(perf)


@import_.command(epilog=f"Record with: {COMMAND}")
@click.argument("file", metavar="FILE|-")
@click.option("-o", "--output", required=True, metavar="OUT", help="The trace; replaced only when complete.")
@click.option(
    "--window",
    type=click.IntRange(1, _LARGEST_WINDOW),
    default=DEFAULT_WINDOW,
    show_default=True,
    help="Merge accesses to the same page within this many access lines, in order of first touch; "
    "1 keeps the exact order.",
)
@options.json_
@options.no_seed
def lackey(file: str, output: str, window: int, as_json: bool) -> None:
    """Import what valgrind's lackey printed; `-` reads standard input."""
    source = "standard input" if file == "-" else click.format_filename(file, shorten=True)
    with _told_in_one_line(output):
        target = _target(output, file)
        with (
            click.open_file(file, "rb") as stream,
            TraceWriter(target, lackey_header(source, window)) as writer,
            bars() as news,
        ):
            length = _length(stream)

            def look(read: int, lines: int) -> None:
                share = read / length if length else None
                news.show("importing", share, f"{lines:,} lines, {read >> 20:,} MiB")

            try:
                found = import_lackey(stream, writer, look if news.drawn else None, window=window)
            except TraceError as error:
                raise TraceError(f"{source}: {error}") from None
        made = read_trace(target)
    if as_json:
        print_json({"input": found._asdict(), **_document(made)})
        return
    click.echo(f"{target}: {_figures(made)}")
    click.echo(
        f"from {found.lines:,} lines: {found.access_lines:,} accesses ({found.modifies:,} modifies, "
        f"{found.crossings:,} across a page boundary), {found.ignored:,} other lines ignored"
    )


@trace.command()
@click.argument("file", type=click.Path())
@options.json_
@options.no_seed
def info(file: str, as_json: bool) -> None:
    """Verify a trace and say what it holds."""
    with _told_in_one_line(file):
        found = read_trace(file)
        largest = max((len({*block.pages}) for block in found.blocks()), default=0)
    if as_json:
        print_json({**_document(found), "largest_block_pages": largest})
        return
    totals = found.totals
    click.echo(f"{found.path}: {_figures(found)}")
    for name, value in found.header.items():
        click.echo(f"  {name:<12} {value}")
    for name, value in (("reads", totals.reads), ("writes", totals.writes), ("fetches", totals.fetches)):
        click.echo(f"  {name:<12} {value:,} ({value / max(totals.accesses, 1):.1%})")
    click.echo(f"  {'footprint':<12} {totals.pages * PAGE_SIZE / 1024:,.0f} KiB")
    click.echo(f"  {'locality':<12} at most {largest:,} pages in {BLOCK_RUNS:,} runs")


def _figures(found: Trace) -> str:
    totals = found.totals
    return (
        f"{totals.accesses:,} accesses in {totals.runs:,} runs over {totals.pages:,} pages, "
        f"{found.size:,} bytes in {found.block_count} blocks"
    )


def _document(found: Trace) -> dict[str, Any]:
    return {
        "trace": str(found.path),
        "bytes": found.size,
        "blocks": found.block_count,
        "header": found.header,
        "totals": asdict(found.totals),
    }


def _target(output: str, source: str) -> Path:
    target = Path(output)
    if output == "-" or (target.exists() and not target.is_file()):
        raise UsageProblem(f"--output {output}: not a regular file; name one, like out.trace")
    if not target.parent.is_dir():
        raise UsageProblem(f"--output {output}: no directory {target.parent}; make it first")
    if source != "-" and target.exists() and os.path.samefile(source, target):
        raise UsageProblem(f"--output {output}: is the input itself; name another file")
    check_replaceable(target, FORMAT.encode(), "--output")
    # A link keeps pointing where it points: the rename replaces what it leads to.
    return target.resolve() if target.is_symlink() else target


@contextmanager
def _told_in_one_line(file: str) -> Iterator[None]:
    """`file` is what an error is about that names none itself, such as a full disk."""
    try:
        yield
    except OSError as error:
        where = click.format_filename(error.filename or file)
        raise UsageProblem(f"{where}: {error.strerror or error}") from None
    except KeyboardInterrupt:
        exits.interrupted("; nothing was written")


def _length(stream: IO[bytes]) -> int:
    """Bytes in a regular file, 0 for a pipe or anything else whose end nobody knows."""
    try:
        return os.fstat(stream.fileno()).st_size
    except (OSError, ValueError):
        return 0
