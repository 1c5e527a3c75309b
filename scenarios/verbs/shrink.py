"""The verb `migrc shrink`: a shorter way to the same broken rule, from a witness or from a recording."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import click

from emulator.explore.ddmin import preemptions
from emulator.explore.schedule import ScheduleProblem, format_schedule
from scenarios.disk import check_replaceable
from scenarios.files.recording import MAGIC, SUFFIX, Recording, is_recording
from scenarios.files.witness import MAGIC as WITNESS_MAGIC
from scenarios.files.witness import SUFFIX as WITNESS_SUFFIX
from scenarios.files.witness import load, save
from scenarios.report.console import print_json
from scenarios.runs.reduction import shorter, shrink_litmus, shrink_workload
from scenarios.usage import UsageProblem
from scenarios.verbs import exits, options

SHRINK_S: Final = 60.0


@click.command()
@click.argument("file", type=options.FILE, metavar="FILE")
@options.seconds("How long to try.", SHRINK_S)
@click.option("--out", type=options.FILE, metavar="FILE", help="Save here instead of over FILE.")
@options.trust
@options.json_
@options.no_seed
def shrink(file: Path, seconds: float, out: Path | None, trust: bool, as_json: bool) -> int:
    """Try hard to find a shorter way to the same broken rule.

    FILE is replaced only by a better one. Ctrl-C keeps the best that was found so far. From the recording of
    a live run a new file is made beside it: a witness for a litmus test, FILE-shrunk for a workload.
    """
    return (_recording if is_recording(file) else _witness)(file, out, seconds, trust, as_json)


def _witness(path: Path, out: Path | None, seconds: float, trust: bool, as_json: bool) -> int:
    witness = load(path)
    options.check_trust(path, witness.subject, trust)
    if out is not None:
        check_replaceable(out, WITNESS_MAGIC.encode(), "--out")
    before = witness.transitions
    try:
        after, violation, interrupted = shorter(witness.subject, before, witness.rule, seconds)
    except ScheduleProblem as problem:
        click.echo(f"migrc: {path}: its rule does not come out again: {problem}", err=True)
        return exits.VIOLATION
    better = (len(after), preemptions(after)) < (len(before), preemptions(before))
    target = path if out is None else out
    if better:
        witness = witness.model_copy(update={"schedule": format_schedule(after), "text": violation.text})
    if better or out is not None:
        save(witness, target)
    if as_json:
        document = {"before": len(before), "after": len(after), "file": str(target), "replaced": better}
        print_json({**document, "rule": witness.rule, "schedule": witness.schedule})
    else:
        click.echo(f"{len(before)} steps before, {len(after)} after")
        click.echo(f"{witness.rule}: {witness.schedule}")
        click.echo(f"saved as {target}" if better or out is not None else f"{path} stays as it was")
    return exits.interrupted() if interrupted else 0


def _recording(path: Path, out: Path | None, seconds: float, trust: bool, as_json: bool) -> int:
    """What a litmus run leads to becomes a witness; a workload stays a recording."""
    with Recording(path) as recording:
        options.check_trust(path, recording.subject(), trust)
        machine = recording.machine()
        litmus = recording.header.kind == "litmus"
        beside = path.with_suffix(WITNESS_SUFFIX) if litmus else path.with_name(f"{path.stem}-shrunk{SUFFIX}")
        target = out or beside
        if target.is_dir():
            raise UsageProblem(f"--out {target}: a directory; the name of a file")
        if target.resolve() == path.resolve():
            raise UsageProblem(f"--out {target}: the recording itself; another file")
        check_replaceable(target, WITNESS_MAGIC.encode() if litmus else MAGIC, "--out")
        if litmus:
            shrunk = shrink_litmus(recording, seconds)
        else:
            shrunk = shrink_workload(recording, machine, seconds, target)
        if shrunk is None:
            how = f" ({recording.problem})" if recording.problem else ""
            click.echo(f"migrc: {path}: no rule breaks in it{how}; nothing to shrink", err=True)
            return exits.VIOLATION
    schedule = None
    if shrunk.witness is not None:
        save(shrunk.witness, target)
        schedule = shrunk.witness.schedule
    counts = {"before": shrunk.before, "cut": shrunk.cut, "after": shrunk.after}
    if as_json:
        rest = {"file": str(target), "rule": shrunk.rule, "tried": shrunk.tried, "schedule": schedule}
        print_json({**counts, **rest})
    else:
        click.echo(
            "{before:,} transitions before, {cut:,} to the broken rule, {after:,} after".format(**counts)
        )
        click.echo(shrunk.rule + (f": {schedule}" if schedule is not None else ""))
        click.echo(f"saved as {target}")
    return exits.interrupted() if shrunk.interrupted else 0
