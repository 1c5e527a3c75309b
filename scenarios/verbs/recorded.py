"""`migrc replay` and `migrc shrink` on the recording of a live run: the same again, in one process.

Exit codes of a replay: 1 if a rule broke or it went another way, else 2 if the file was cut or damaged.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import click

from scenarios.drawing.phrases import shortened
from scenarios.files.headers import recorded_machine
from scenarios.files.recording import SUFFIX, Header, Recording
from scenarios.files.witness import save
from scenarios.runs.reduction import Shrunk, shrink_litmus, shrink_workload
from scenarios.runs.replays import Following, Look
from scenarios.usage import UsageProblem

BROKEN: Final = 1
UNUSABLE: Final = 2
INTERRUPTED: Final = 130
_RULES_SHOWN: Final = 20


def replay_recording(path: Path, as_json: bool, width: int) -> int:
    """Replay, compare, tell; the exit code."""
    with Recording(path) as recording:
        following = Following(recording, recorded_machine(recording))
        began = time.monotonic()
        with _progress(recording) as look:
            following.run(look)
        document = _document(following, time.monotonic() - began)
    if as_json:
        click.echo(json.dumps(document, indent=2))
    else:
        _tell(following, document, width)
    if following.stepper.violation is not None or following.different or not following.rules_again:
        return BROKEN
    return UNUSABLE if recording.problem else 0


def _document(following: Following, elapsed_s: float) -> dict[str, Any]:
    recording, stepper = following.recording, following.stepper
    header, end = recording.header, recording.end
    different = None
    if following.different:
        different = {
            "block": following.different_block,
            "transition": following.different_transition,
            "text": following.different,
        }
    return {
        **{key: getattr(header, key) for key in ("kind", "scenario", "policy", "arch", "cpus", "seed")},
        "recording": str(recording.path),
        "recorded_with": header.project or None,
        "chaos": header.chaos,
        "whole": not recording.problem and not following.different,
        "problem": recording.problem or None,
        "blocks": following.blocks,
        "transitions": stepper.engine.steps,
        "recorded_transitions": end.transitions if end is not None else None,
        "operations": stepper.shared.operations,
        "same": not following.different,
        "different": different,
        "violations": [one._asdict() for one in stepper.violations()],
        "recorded_violations": [one._asdict() for one in end.violations] if end is not None else None,
        "came_out_again": following.rules_again if end is not None else None,
        "broken_at": following.broken_at or None,
        "fault": stepper.fault or None,
        "elapsed_s": round(elapsed_s, 3),
        "columns": list(following.drawing.steps) if following.drawing is not None else None,
    }


def _tell(following: Following, document: dict[str, Any], width: int) -> None:
    recording, stepper = following.recording, following.stepper
    click.echo(_title(recording.header) + "\n")
    if following.drawing is not None:
        click.echo(f"the last transitions before a rule broke, at {following.broken_at:,}:\n")
        click.echo(following.drawing.text(width) + "\n")
    click.echo(
        f"{document['transitions']:,} transitions, {document['operations']:,} operations, "
        f"{document['blocks']:,} blocks in {document['elapsed_s']:.1f} s"
    )
    if following.different:
        click.echo(f"went another way: {following.different}")
    elif recording.end is not None:
        click.echo("the same as recorded, to the end: answers, memory, TLBs")
    else:
        click.echo("the same as recorded, as far as that goes")
    found = stepper.violations()
    click.echo(f"{len(found)} violations" if found else "no rule broke")
    for violation in found[:_RULES_SHOWN]:
        click.echo(f"  {violation.rule}: {shortened(violation.text)}")
    if len(found) > _RULES_SHOWN:
        click.echo(f"  and {len(found) - _RULES_SHOWN} more; --json has them all")
    if stepper.fault:
        click.echo(f"a program raised: {stepper.fault}")
    if not following.rules_again and not following.different:
        click.echo("a rule that the run itself found broken did not break again")
    if recording.problem:
        click.echo(
            f"migrc: {recording.path}: {recording.problem}; used up to transition {stepper.engine.steps:,}",
            err=True,
        )


def _title(header: Header) -> str:
    stressed = ", stressed" if header.chaos else ""
    return (
        f"{header.scenario} under {header.policy} on {header.arch}, {header.cpus} CPUs, "
        f"seed {header.seed}{stressed}"
    )


@contextmanager
def _progress(recording: Recording) -> Iterator[Look]:
    """A bar if standard error is a terminal, else nothing."""
    if not sys.stderr.isatty():
        yield lambda transitions, position: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (BarColumn(), TimeElapsedColumn(), TextColumn("{task.fields[text]}", markup=False))
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        task = bars.add_task("", total=max(recording.size, 1), text="")
        yield lambda transitions, position: bars.update(
            task, completed=position, text=f"{transitions:,} transitions"
        )


def shrink_recording(path: Path, out: Path | None, seconds: float, as_json: bool) -> int:
    """Make a recording with a broken rule shorter; the exit code.

    What a litmus run leads to becomes a witness; a workload stays a recording.
    """
    with Recording(path) as recording:
        machine = recorded_machine(recording)
        litmus = recording.header.kind == "litmus"
        target = out or (
            path.with_suffix(".mpk") if litmus else path.with_name(f"{path.stem}-shrunk{SUFFIX}")
        )
        if target.is_dir():
            raise UsageProblem(f"--out {target}: a directory; the name of a file")
        if target.resolve() == path.resolve():
            raise UsageProblem(f"--out {target}: the recording itself; another file")
        if litmus:
            shrunk = shrink_litmus(recording, seconds)
        else:
            shrunk = shrink_workload(recording, machine, seconds, target)
        if shrunk is None:
            how = f" ({recording.problem})" if recording.problem else ""
            click.echo(f"migrc: {path}: no rule breaks in it{how}; nothing to shrink", err=True)
            return BROKEN
    if shrunk.witness is not None:
        save(shrunk.witness, target)
    _tell_shrunk(shrunk, target, as_json)
    if shrunk.interrupted:
        click.echo("migrc: interrupted", err=True)
        return INTERRUPTED
    return 0


def _tell_shrunk(shrunk: Shrunk, target: Path, as_json: bool) -> None:
    if as_json:
        document = {
            "before": shrunk.before,
            "cut": shrunk.cut,
            "after": shrunk.after,
            "file": str(target),
            "rule": shrunk.rule,
            "tried": shrunk.tried,
            "schedule": shrunk.witness.schedule if shrunk.witness is not None else None,
        }
        click.echo(json.dumps(document, indent=2))
        return
    click.echo(
        f"{shrunk.before:,} transitions before, {shrunk.cut:,} to the broken rule, {shrunk.after:,} after"
    )
    click.echo(shrunk.rule + (f": {shrunk.witness.schedule}" if shrunk.witness is not None else ""))
    click.echo(f"saved as {target}")
