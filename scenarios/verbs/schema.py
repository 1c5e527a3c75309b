"""The verb `migrc schema`: what `--json` prints and what a workload's file may say, as JSON Schema."""

from __future__ import annotations

from typing import Any, Final

import click
from pydantic import TypeAdapter
from pydantic.json_schema import GenerateJsonSchema

from scenarios.files.results import CheckResults, RunResult, StressResult, SweepResult
from scenarios.report.console import print_json
from scenarios.verbs import options
from scenarios.workloads.kinds import KINDS

RESULTS: Final[dict[str, Any]] = {
    "run": RunResult,
    "sweep": SweepResult,
    "check": CheckResults,
    "stress": StressResult,
}


@click.command()
@click.argument("kind", type=click.Choice((*RESULTS, "workload")), metavar="KIND")
@click.option("--json", is_flag=True, expose_value=False, help="Accepted as by every verb; it is JSON.")
@options.no_seed
def schema(kind: str) -> None:
    """Print a JSON Schema (draft 2020-12).

    KIND is run, sweep, check or stress, for what the verb of that name prints with --json, or workload, for
    workloads' TOML files. Documents may have more keys than the schema of a result names; a workload may not.
    """
    any_workload = KINDS["tiering"]
    for model in KINDS.values():
        any_workload = any_workload | model  # type: ignore[assignment]
    made = TypeAdapter(any_workload if kind == "workload" else RESULTS[kind]).json_schema()
    print_json({"$schema": GenerateJsonSchema.schema_dialect, "title": f"migrc {kind}", **made})
