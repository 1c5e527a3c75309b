"""What following a recording again has found: the document, and the same for people."""

from __future__ import annotations

from typing import Any, Final

import click

from scenarios.drawing.phrases import shortened
from scenarios.runs.replays import Following

_RULES_SHOWN: Final = 20


def as_document(following: Following, elapsed_s: float) -> dict[str, Any]:
    """The JSON document."""
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


def print_repetition(following: Following, elapsed_s: float, width: int) -> None:
    """Write it to standard output, and to standard error what is wrong with the file."""
    recording, stepper = following.recording, following.stepper
    click.echo(recording.header.title() + "\n")
    if following.drawing is not None:
        click.echo(f"the last transitions before a rule broke, at {following.broken_at:,}:\n")
        click.echo(following.drawing.text(width) + "\n")
    click.echo(
        f"{stepper.engine.steps:,} transitions, {stepper.shared.operations:,} operations, "
        f"{following.blocks:,} blocks in {elapsed_s:.1f} s"
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
