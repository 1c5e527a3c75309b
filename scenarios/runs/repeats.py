"""A run again with other seeds: how much of a difference between policies is chance."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Final

from scenarios.runs.document import Document, Repeats, Run
from scenarios.runs.timed import Progress, timed_run
from scenarios.subjects.subject import Subject
from scenarios.workloads.settings import MAX_SEED

MEASURES: Final[Mapping[str, Callable[[Run], float]]] = {
    "elapsed_ns": lambda run: run["elapsed_ns"],
    "nr_tlb_remote_flush": lambda run: run["vmstat"]["nr_tlb_remote_flush"],
    "nr_tlb_remote_flush_received": lambda run: run["vmstat"]["nr_tlb_remote_flush_received"],
    "shootdown_share": lambda run: run.get("shootdown_share", 0.0),
    "pending_peak": lambda run: run["pending_peak"],
}
"""What is compared over seeds, by its key in a run."""


def seeds_of(first: int, count: int) -> list[int]:
    """`first` and as many after it as make `count`."""
    return [(first + number) % (MAX_SEED + 1) for number in range(count)]


def run_again(
    subjects: Sequence[Subject], count: int, watched: bool, progress: Progress, document: Document
) -> None:
    """Every policy with each further seed; `document["repeats"]` grows by one seed at a time.

    The runs of the first seed are in the document already. What breaks a rule joins them.
    """
    if not document["runs"]:
        return
    first, *others = seeds_of(subjects[0].seed, count)
    repeats = document["repeats"] = _begun(first, document["runs"])
    for seed in others:
        runs = []
        for subject in subjects:
            run, _ = timed_run(replace(subject, seed=seed), watched, _named(progress, seed))
            runs.append(run)
        repeats["seeds"].append(seed)
        for measure, run, values in _places(repeats, runs):
            values.append(MEASURES[measure](run))
        for run in runs:
            repeats["violations"][run["policy"]] += len(run["violations"])


def _begun(seed: int, runs: Iterable[Run]) -> Repeats:
    known = list(runs)
    values = {measure: {run["policy"]: [value(run)] for run in known} for measure, value in MEASURES.items()}
    return Repeats(
        seeds=[seed], values=values, violations={run["policy"]: len(run["violations"]) for run in known}
    )


def _places(repeats: Repeats, runs: Sequence[Run]) -> Iterator[tuple[str, Run, list[float]]]:
    for measure, policies in repeats["values"].items():
        for run in runs:
            yield measure, run, policies[run["policy"]]


def _named(progress: Progress, seed: int) -> Progress:
    return lambda policy, share, text: progress(f"{policy}, seed {seed}", share, text)
