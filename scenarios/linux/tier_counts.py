"""What a tiering program counted on a real kernel, run by run, and the ratios by which it is compared.

A text file of tab-separated lines below a header: a counter, by the name that it has here, in which part of
the program, and its value in each run. Ratios are made of the same counters on both sides.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Final, NamedTuple

from scenarios.disk import content, file_problems
from scenarios.usage import UsageProblem

FOLDER: Final = Path(__file__).parent / "recorded" / "tiers"
PHASES: Final = ("tables", "lookups")
"""Writing the tables, by one thread; then what all do."""
RIGHT: Final = "a recording of `migrc compare tiers --record`"
NEAR: Final = 0.2
"""How far a ratio may be from what was recorded."""

INTERRUPTS: Final = "tlb_interrupts"
"""Flush interrupts, with the number of the CPU behind."""

SCAN_PAGES: Final = "scan_pages"
TABLES: Final = "numa_page_tables"
TABLE_PAGES: Final = 512

Counts = Mapping[str, float]


class TierRecording(NamedTuple):
    """What the header says, and of each run what was counted in each part of the program."""

    about: dict[str, str]
    runs: tuple[Mapping[str, Counts], ...]

    def whole(self) -> list[dict[str, float]]:
        """Each run's counts from its beginning to its end."""
        found = [
            {name: sum(run[phase].get(name, 0) for phase in PHASES) for name in run[PHASES[0]]}
            for run in self.runs
        ]
        return [with_tables(counts, int(self.about[SCAN_PAGES])) for counts in found]


def with_tables(counts: Counts, scan_pages: int) -> dict[str, float]:
    """The same counts, and how many page tables the scans went through."""
    return {**counts, TABLES: counts["numa_scans"] * scan_pages / TABLE_PAGES}


def recorded_tiers() -> list[str]:
    """The versions of which there is a recording, oldest first."""
    return sorted((path.stem for path in FOLDER.glob("*.tsv")), key=lambda name: [*map(int, name.split("."))])


def tiers_path(kernel: str) -> Path:
    """Where the recording of a version is, or would be."""
    return FOLDER / f"{kernel}.tsv"


def read_tiers(path: Path) -> TierRecording:
    """The recording in a file. Raises UsageProblem, one line, for anything that is wrong."""
    with file_problems(f"{path}: not readable as a recording of tiers", RIGHT):
        lines = content(path).decode().splitlines()
    about: dict[str, str] = {}
    runs: list[dict[str, dict[str, float]]] = []
    for number, line in enumerate(lines, 1):
        if line.startswith("#"):
            key, _, value = line[1:].partition(":")
            about[key.strip()] = value.strip()
            continue
        name, *rest = line.split("\t")
        try:
            phase, *values = rest
            counted = [float(value) for value in values]
            if phase not in PHASES or not counted or (runs and len(runs) != len(counted)):
                raise ValueError
        except ValueError:
            raise UsageProblem(f"{path}: line {number}: {line[:60]!r} is no counter; {RIGHT}") from None
        runs = runs or [{phase: {} for phase in PHASES} for _ in counted]
        for run, count in zip(runs, counted, strict=True):
            run[phase][name] = count
    if not about.get(SCAN_PAGES, "").isdigit():
        raise UsageProblem(f"{path}: no '# {SCAN_PAGES}: number' in its header; {RIGHT}")
    if not runs or any(set(run[PHASES[0]]) != set(run[PHASES[1]]) for run in runs):
        raise UsageProblem(f"{path}: no counters, or not the same of both parts; {RIGHT}")
    return TierRecording(about, tuple(runs))


def tiers_text(recording: TierRecording) -> str:
    """The recording as the text of a file."""
    lines = [f"# {key}: {value}" for key, value in recording.about.items()]
    for phase in PHASES:
        for name in recording.runs[0][phase]:
            values = "\t".join(f"{run[phase][name]:g}" for run in recording.runs)
            lines.append(f"{name}\t{phase}\t{values}")
    return "\n".join(lines) + "\n"


def ratios(counts: Counts) -> dict[str, float]:
    """What is compared of one run, and stays about the same if counts are all larger by a factor."""
    remote = counts["nr_tlb_remote_flush"]
    demoted = counts["pgdemote_kswapd"]
    promoted = counts["pgpromote_success"]
    hints = counts["numa_hint_faults"]
    hot = counts["pgpromote_candidate"]
    flushes = counts["tlb_remote_flush_demotion"]
    interrupts = [value for name, value in counts.items() if name.startswith(INTERRUPTS)]
    return {
        "received / remote": counts["nr_tlb_remote_flush_received"] / remote,
        "pages per demotion flush": demoted / flushes,
        "remote flushes per demoted page": remote / demoted,
        "flushes that are not demotion's": 1 - flushes / remote,
        "scanner's flushes per page table": counts["tlb_remote_flush_scan"] / counts[TABLES],
        "promotion's flushes per promotion": counts["tlb_remote_flush_promotion"] / promoted,
        "marked of the pages scanned": counts["numa_pte_updates"] / counts[TABLES] / TABLE_PAGES,
        "hint faults per marked entry": hints / counts["numa_pte_updates"],
        "hot of hint faults": hot / hints,
        "promotions per hint fault": promoted / hints,
        "promotions per hot page": promoted / hot,
        "demotions per promotion": demoted / promoted,
        "pages scanned per demoted": counts["pgscan"] / demoted,
        "activated per scanned": counts["pgactivate"] / counts["pgscan"],
        "interrupts of the CPU with most": max(interrupts) / sum(interrupts),
    }


class Beside(NamedTuple):
    """One ratio: of the recorded runs the middle one, the least and the most, and ours."""

    name: str
    linux: float
    least: float
    most: float
    ours: float

    @property
    def near(self) -> bool:
        """Within 20 per cent of what some recorded run had."""
        return self.least * (1 - NEAR) <= self.ours <= self.most * (1 + NEAR)


def beside(recording: TierRecording, ours: Sequence[Counts]) -> list[Beside]:
    """Every ratio, ours the middle one of our runs."""
    theirs = [ratios(counts) for counts in recording.whole()]
    mine = [ratios(counts) for counts in ours]
    return [
        Beside(
            name,
            median(one[name] for one in theirs),
            min(one[name] for one in theirs),
            max(one[name] for one in theirs),
            median(one[name] for one in mine),
        )
        for name in theirs[0]
    ]
