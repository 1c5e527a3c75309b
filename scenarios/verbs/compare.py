"""The verb `migrc compare`: the emulator beside the real thing."""

from __future__ import annotations

import sys
from fnmatch import fnmatchcase
from pathlib import Path

import click

from emulator.kernel.versions import DEFAULT, VERSIONS
from scenarios.disk import file_problems, whole_file
from scenarios.linux.agreement import Verdict, verdicts
from scenarios.linux.cases import Recording, read_recording, written
from scenarios.linux.operations import CALLS
from scenarios.linux.recorder import booted
from scenarios.linux.recorder.plan import OPERATIONS as PLANNED
from scenarios.linux.recorder.plan import planned
from scenarios.linux.shipped import path_of, recorded_kernels, recording_of
from scenarios.report.beside_linux import document, print_agreement
from scenarios.report.console import print_json
from scenarios.usage import UsageProblem, did_you_mean
from scenarios.verbs import exits, options
from scenarios.verbs.bars import bars
from scenarios.verbs.compare_tiers import tiers


@click.group()
def compare() -> None:
    """Put the emulator beside the real thing."""


compare.add_command(tiers)


@compare.command()
@click.option(
    "--kernel",
    type=click.Choice(tuple(VERSIONS)),
    help="Which version: its recording, and what the emulator's kernel does as it does.",
)
@click.option(
    "--cases",
    type=options.FILE,
    metavar="FILE",
    help="Recorded cases, instead of the shipped ones.",
)
@click.option("--operation", metavar="GLOB", default="*", help="Only these operations, such as 'munmap_*'.")
@click.option(
    "--record",
    is_flag=True,
    help="First record the version under QEMU: in place of the shipped recording, or as --cases.",
)
@click.option(
    "--packages",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    metavar="DIR",
    help="For --record: where the kernel's package is; without it apt is asked.",
)
@click.option(
    "--runs", type=click.IntRange(1, 100), default=3, show_default=True, help="Of each case to record."
)
@options.json_
@options.quiet
@click.option("-v", "--verbose", is_flag=True, help="What was counted in every case.")
def linux(
    kernel: str | None,
    cases: Path | None,
    operation: str,
    record: bool,
    packages: Path | None,
    runs: int,
    as_json: bool,
    quiet: bool,
    verbose: bool,
) -> int:
    """Run recorded operations on memory and compare what was flushed with what Linux flushed.

    Without --kernel every recorded version is compared. Exit code 1 if something differs that is not known to
    differ, or does not although it is.
    """
    if record:
        _record(kernel, cases, operation, packages, runs, quiet)
    elif packages is not None:
        raise UsageProblem("--packages: only for --record")
    unexpected = False
    documents = []
    for version, recording, label in _recordings(kernel, cases):
        chosen = [case for case in recording.cases if fnmatchcase(case.operation, operation)]
        if not chosen:
            known = sorted({case.operation for case in recording.cases})
            raise UsageProblem(
                f"--operation {operation}: in no case of {label}; {did_you_mean(operation, known)}"
            )
        found: list[Verdict] = []
        with bars(quiet) as news:
            for verdict in verdicts(chosen, CALLS, version, recording.pcid):
                found.append(verdict)
                news.show(verdict.case.operation, len(found) / len(chosen), verdict.case.configuration)
        pcid = "with PCIDs" if recording.pcid else "without PCIDs"
        release = recording.kernel or "not named"
        if as_json:
            about = {"kernel": version, "recorded": recording.about, "pcid": recording.pcid, "source": label}
            documents.append(document(found, about))
        else:
            print_agreement(
                found, f"kernel = {version}, {pcid}, beside Linux {release} ({label})", verbose, sys.stdout
            )
        unexpected |= not all(verdict.expected for verdict in found)
    if as_json:
        print_json(documents[0] if len(documents) == 1 else {"kernels": documents})
    return exits.VIOLATION if unexpected else 0


def _record(
    kernel: str | None, cases: Path | None, operation: str, packages: Path | None, runs: int, quiet: bool
) -> None:
    """Record the planned cases of a version and keep them."""
    if kernel is None:
        raise UsageProblem("--record: of which version? --kernel says so")
    plan = [one for one in planned() if fnmatchcase(one[0], operation)]
    if not plan:
        raise UsageProblem(f"--operation {operation}: none is planned; {did_you_mean(operation, PLANNED)}")
    path = cases or path_of(kernel)
    kept = read_recording(path) if cases is None and len(plan) < len([*planned()]) else None
    with bars(quiet) as news:
        whole = len(plan) * runs
        recording, lost = booted.record(
            kernel, plan, runs, packages, lambda done: news.show("record", done / whole, f"{done} of {whole}")
        )
    if kept is not None:
        recording = _in_place(recording, kept, path)
    with file_problems(f"{path}: cannot be written", "another FILE"), whole_file(path) as file:
        file.write(written(recording).encode())
    if lost:
        names = ", ".join(" ".join(key) for key in lost[:8])
        raise UsageProblem(f"--record: {path} is without {len(lost)} cases that failed in every run: {names}")


def _in_place(some: Recording, kept: Recording, path: Path) -> Recording:
    """All cases of `kept`, with `some` in place of theirs; both are of one release."""
    if some.kernel != kept.kernel:
        raise UsageProblem(
            f"--operation: {path} is of {kept.kernel}, recorded was {some.kernel}; --packages DIR with that, "
            "--cases FILE, or all operations"
        )
    found = {case.key: case for case in (*kept.cases, *some.cases)}
    return kept._replace(cases=tuple([found[key] for key in planned() if key in found]))


def _recordings(kernel: str | None, cases: Path | None) -> list[tuple[str, Recording, str]]:
    """Version, recording, and where it is from."""
    if cases is None:
        shipped = recorded_kernels()
        if kernel is not None and kernel not in shipped:
            raise UsageProblem(f"--kernel {kernel}: not recorded; {', '.join(shipped)}, or --cases FILE")
        return [(one, recording_of(one), "shipped") for one in ([kernel] if kernel else shipped)]
    recording = read_recording(cases)
    version = ".".join(recording.kernel.split("-")[0].split(".")[:2])
    if version and kernel and version != kernel:
        raise UsageProblem(f"--kernel {kernel}: {cases} is of {recording.kernel}; leave it out")
    if version and version not in VERSIONS:
        raise UsageProblem(f"{cases}: kernel {recording.kernel}: {did_you_mean(version, VERSIONS)}")
    return [(kernel or version or DEFAULT, recording, str(cases))]
