"""The verb `migrc workload new`: a workload of one's own to begin with."""

from __future__ import annotations

from pathlib import Path

import click

from scenarios.disk import file_problems
from scenarios.report.console import print_json
from scenarios.usage import UsageProblem
from scenarios.verbs import options
from scenarios.workloads.workload_file import load_workload, shipped_text


@click.group()
def workload() -> None:
    """Files of workloads."""


@workload.command()
@click.argument("scenario", shell_complete=options.scenarios)
@click.argument("file", type=options.FILE, metavar="FILE.toml")
@options.json_
@options.no_seed
def new(scenario: str, file: Path, as_json: bool) -> None:
    """Write a copy of the shipped SCENARIO to FILE.toml, to be changed and run by its path.

    Its keys are those of `migrc show SCENARIO`; migrc schema workload has what each may be.
    """
    text = shipped_text(scenario)
    if file.suffix != ".toml":
        raise UsageProblem(f"{file}: a workload's file ends in .toml")
    with file_problems(str(file), "a name of no file yet"), open(file, "x", encoding="utf-8") as new_file:
        new_file.write(text)
    kind = load_workload(str(file.resolve())).kind
    if as_json:
        print_json({"file": str(file), "kind": kind, "from": scenario})
    else:
        click.echo(f"{file}: a workload of kind {kind}; migrc run {file}")
