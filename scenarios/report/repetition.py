"""What the replay of a recording has found: the document, and the same for people."""

from __future__ import annotations

from typing import Any

import click

from scenarios.report.console import print_violations
from scenarios.runs.replays import Replay


def as_document(again: Replay, elapsed_s: float) -> dict[str, Any]:
    """The JSON document."""
    recording, referee = again.recording, again.referee
    header, end = recording.header, recording.end
    return {
        **{
            key: getattr(header, key) for key in ("kind", "scenario", "policy", "arch", "mmu", "cpus", "seed")
        },
        "recording": str(recording.path),
        "recorded_with": header.project or None,
        "chaos": header.chaos,
        "whole": not recording.problem and not again.different,
        "problem": recording.problem or None,
        "blocks": again.blocks,
        "transitions": referee.engine.steps,
        "recorded_transitions": end.transitions if end is not None else None,
        "operations": again.operations,
        "same": not again.different,
        "different": again.different and again.different._asdict(),
        "violations": [one._asdict() for one in referee.violations()],
        "recorded_violations": [one._asdict() for one in end.violations] if end is not None else None,
        "not_looked_at": list(header.not_looked_at),
        "came_out_again": again.rules_again if end is not None else None,
        "broken_at": again.broken_at or None,
        "fault": again.fault or None,
        "elapsed_s": round(elapsed_s, 3),
        "columns": list(again.drawing.steps) if again.drawing is not None else None,
    }


def print_repetition(again: Replay, elapsed_s: float, width: int) -> None:
    """Write it to standard output, and to standard error what is wrong with the file."""
    recording, referee = again.recording, again.referee
    click.echo(recording.header.title() + "\n")
    if again.drawing is not None:
        click.echo(f"the last transitions before a rule broke, at {again.broken_at:,}:\n")
        click.echo(again.drawing.text(width) + "\n")
    click.echo(
        f"{referee.engine.steps:,} transitions, {again.operations:,} operations, "
        f"{again.blocks:,} blocks in {elapsed_s:.1f} s"
    )
    if again.different:
        click.echo(f"went another way: {again.different.text}")
    elif recording.end is not None:
        click.echo("the same as recorded, to the end: answers, memory, TLBs")
    else:
        click.echo("the same as recorded, as far as that goes")
    found = referee.violations()
    blind = str(recording.subject().looked)
    click.echo((f"{len(found)} violations" if found else "no rule broke") + (f"; {blind}" if blind else ""))
    print_violations(click.echo, [f"{one.rule}: {one.text}" for one in found])
    if again.fault:
        click.echo(f"a program raised: {again.fault}")
    if not again.rules_again and not again.different:
        click.echo("a rule that the run itself found broken did not break again")
    if recording.problem:
        click.echo(
            f"migrc: {recording.path}: {recording.problem}; used up to transition {referee.engine.steps:,}",
            err=True,
        )
