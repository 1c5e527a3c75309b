"""The verb `migrc conformance`: published litmus tests of memory models, run on the architectures here."""

from __future__ import annotations

import random
import sys
import time
from pathlib import Path

import click

from scenarios.conformance.judgement import NOT_FINISHED, TOO_STRONG, TOO_WEAK, Judged, judged
from scenarios.conformance.suites import SUITES, Entry, Verdicts, entries_in, goldens, of_names, read_verdicts
from scenarios.report.console import print_json
from scenarios.report.published_verdicts import as_document, faults, herd_lines, print_conformance
from scenarios.usage import UsageProblem
from scenarios.verbs import exits, options
from scenarios.verbs.bars import bars


@click.command()
@click.argument("suite", type=click.Choice(tuple(SUITES)))
@click.argument(
    "directory",
    required=False,
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    metavar="[DIR]",
)
@options.archs("Only this one; repeatable.  [default: all that the suite is about]")
@click.option("--name", metavar="GLOB", default="*", help="Only these tests, such as 'MP+*'.")
@click.option(
    "--expected",
    type=options.FILE,
    metavar="FILE",
    help="Verdicts: herd's output, its kinds.txt (NAME Forbidden), or lines NAME.litmus,1 (it is so).",
)
@click.option("--sample", type=options.COUNT, metavar="N", help="Only so many tests, drawn by --seed.")
@options.seed("Of --sample; nothing else here is random.")
@click.option(
    "--ets2", is_flag=True, help="AArch64: CPUs have FEAT_ETS2; faults then come after what is older."
)
@options.seconds("For how long at most; what is not finished then is told.")
@click.option("--herd", "as_herd", is_flag=True, help="Print final states as herd does, for mcompare.")
@options.json_
@options.quiet
@click.option("-v", "--verbose", is_flag=True, help="Name all that disagree.")
def conformance(
    suite: str,
    directory: Path | None,
    archs: tuple[str, ...],
    name: str,
    expected: Path | None,
    sample: int | None,
    seed: int,
    ets2: bool,
    seconds: float | None,
    as_herd: bool,
    as_json: bool,
    quiet: bool,
    verbose: bool,
) -> int:
    """Run published litmus tests, every interleaving of each, and compare with their verdicts.

    DIR is a clone of such a suite; without it the shipped tests are run. Exit code 1 if something forbidden
    is seen, or a shipped test is not as its verdict says.
    """
    if as_json and as_herd:
        raise UsageProblem("--json and --herd: one or the other")
    about = SUITES[suite]
    if strangers := sorted(set(archs).difference(about.archs)):
        raise UsageProblem(f"--arch {strangers[0]}: {suite} is about {', '.join(about.archs)}")
    chosen = archs or about.archs
    if as_herd and len(chosen) > 1:
        raise UsageProblem(f"--herd: of which architecture? --arch, one of {', '.join(about.archs)}")
    if ets2 and (directory is None or not about.translates):
        translating = ", ".join(name for name, one in SUITES.items() if one.translates)
        raise UsageProblem(f"--ets2: only of {translating}, with DIR; the shipped verdicts are without it")
    tests = _tests(suite, directory, expected, name, sample, seed, ets2)
    source = str(directory) if directory else "shipped"
    ends = None if seconds is None else time.monotonic() + seconds
    jobs = [(entry, arch) for entry in tests for arch in chosen]
    found: list[Judged] = []

    def over() -> bool:
        return ends is not None and time.monotonic() > ends

    def tell(stopped: str) -> None:
        if as_json:
            print_json(as_document(found, suite, source, stopped == "interrupted"))
        elif as_herd:
            click.echo("\n".join(lines for one in found if (lines := herd_lines(one))))
        elif found:
            title = f"{suite} ({source}): tests of {about.model}"
            print_conformance(found, title, verbose, sys.stdout)

    with exits.told(tell, lambda: f" after {len(found)} of {len(jobs)}"), bars(quiet) as news:
        for entry, arch in jobs:
            if over():
                found.append(Judged(entry, arch, NOT_FINISHED, reason="no time left"))
            else:
                found.append(judged(entry, arch, about.bound, over))
            wrong = sum(one.kind in (TOO_WEAK, TOO_STRONG) for one in found)
            news.show("conformance", len(found) / len(jobs), f"{len(found)} of {len(jobs)}, {wrong} differ")
    bad = faults(found) if directory is None else [one for one in found if one.kind == TOO_WEAK]
    return exits.VIOLATION if bad else 0


def _tests(
    suite: str,
    directory: Path | None,
    expected: Path | None,
    name: str,
    sample: int | None,
    seed: int,
    ets2: bool,
) -> list[Entry]:
    """What is to be run. UsageProblem if that is nothing."""
    if directory is None and expected is not None:
        raise UsageProblem("--expected: only with DIR; the shipped tests have their verdicts")
    verdicts = read_verdicts(expected) if expected is not None else Verdicts()
    every = goldens(suite) if directory is None else [*entries_in(directory, suite, verdicts, ets2)]
    tests = of_names(every, name)
    if not tests:
        raise UsageProblem(f"--name {name}: matches none of {len(every)} tests; such as {every[0].name}")
    if sample is not None and sample < len(tests):
        tests = sorted(random.Random(seed).sample(tests, sample), key=lambda one: one.path)
    return tests
