"""The verb `migrc rerun`: run again what a result says was run, and see whether the same comes out."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import click

from emulator.hardware.ordering import ARCHITECTURES
from scenarios.files.run_result import load_result, subjects_of
from scenarios.report.comparison import print_report
from scenarios.report.conclusion import conclusion
from scenarios.report.console import print_json
from scenarios.runs.document import Pictures, document_of, stop
from scenarios.usage import UsageProblem
from scenarios.verbs import exits, options
from scenarios.verbs.bars import bars

_OTHERWISE: Final = frozenset({"wall_s", "events", "recording"})
"""What is of the one run and not of what was run."""


@click.command()
@click.argument("file", type=options.FILE, metavar="RESULT")
@options.trust
@options.address
@options.json_
@options.quiet
@options.no_seed
def rerun(file: Path, trust: bool, address: str | None, as_json: bool, quiet: bool) -> int:
    """Run again what RESULT says, which `migrc run --json` has printed.

    All settings are taken from there, whatever has changed since in files and defaults. A timed run is
    compared: exit code 1 if anything comes out differently. A live run has real concurrency, and its figures
    are never the same.
    """
    ran, before = load_result(file)
    if ran.arch not in ARCHITECTURES:
        raise UsageProblem(f"{file}: arch {ran.arch!r}; {', '.join(ARCHITECTURES)}")
    subjects = subjects_of(ran, file)
    for subject in subjects:
        options.check_trust(file, subject, trust)
    if ran.engine == "timed" and address:
        raise UsageProblem("--address: the result is of the timed engine, which runs here; leave it out")
    document = document_of(subjects[0], ran.engine)
    pictures: Pictures = {}
    different: list[str] = []

    def tell(stopped: str) -> None:
        stop(document, stopped)
        if not stopped and ran.engine == "timed":
            different.extend(_differences(before["runs"], document["runs"]))
        if as_json:
            document["conclusion"] = conclusion(document)
            same = None if ran.engine == "live" else not different
            print_json(dict(document) | {"same": same, "different": different})
        elif document["runs"]:
            print_report(document, pictures, sys.stdout)

    with exits.told(tell), bars(quiet) as news:
        if ran.engine == "timed":
            from scenarios.runs.timed import run_timed

            run_timed(
                subjects,
                watched=_watched(before),
                events=None,
                progress=news.follow,
                document=document,
                pictures=pictures,
            )
        else:
            # Ray takes a second to import.
            from scenarios.runs.live import run_live

            news.wait_for("starting Ray")
            run_live(
                subjects,
                address=address,
                dashboard=False,
                watched=_watched(before),
                record=None,
                progress=news.follow,
                document=document,
                pictures=pictures,
            )
    if not as_json:
        click.echo()
        for line in different[:10]:
            click.echo(f"different: {line}")
        if ran.engine == "timed" and not different:
            click.echo(f"the same as in {file}, to the last count and ns")
    broken = any(run["violations"] for run in document["runs"])
    return exits.VIOLATION if broken or different else 0


def _watched(before: dict[str, Any]) -> bool:
    """Only what happens-before has judged has transitions."""
    return any("transitions" in run for run in before["runs"])


def _differences(before: Any, after: Any, where: str = "") -> Iterator[str]:
    """Each figure that is another one, by its name."""
    if isinstance(before, dict) and isinstance(after, dict):
        for key in dict.fromkeys((*before, *after)):
            if key not in _OTHERWISE:
                yield from _differences(before.get(key), after.get(key), f"{where}.{key}" if where else key)
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        for number, (old, new) in enumerate(zip(before, after, strict=True)):
            name = old.get("policy", number) if isinstance(old, dict) else number
            yield from _differences(old, new, f"{where}.{name}" if where else f"{name}")
    elif before != after:
        yield f"{where}: {str(before)[:60]}, now {str(after)[:60]}"
