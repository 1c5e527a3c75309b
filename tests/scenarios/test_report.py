"""The report of a fixed run is the golden file, letter by letter; `MIGRC_GOLDEN=write` writes it anew."""

import io
import os
from pathlib import Path

from emulator.measure import vmstat
from emulator.measure.histogram import Histogram
from scenarios.report.comparison import print_report
from scenarios.report.conclusion import conclusion
from scenarios.runs.document import LATENCIES, Document, Run

GOLDEN = Path(__file__).parent / "golden" / "live_report.txt"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def histogram_of(*values: int) -> Histogram:
    histogram = Histogram()
    for value in values:
        histogram.record(value)
    return histogram


def run_of(policy: str, scale: int, pictures: dict[str, Histogram], violations: list[object]) -> Run:
    counters = {name: 0 for name in vmstat.COUNTERS}
    counters["nr_tlb_remote_flush"] = 72_370 // scale
    counters["nr_tlb_remote_flush_received"] = 213_711 // scale
    counters["migrc_skipped"] = 17 * (scale - 1)
    return {
        "policy": policy,
        "vmstat": counters,
        "interrupts": {"TLB": [71_000 // scale, 71_237 // scale, 71_474 // scale, 0]},
        "ipi_latency_ns": {name: pictures[name].summary() for name in LATENCIES},
        "accesses": 800_000,
        "elapsed_ns": 33_500_000_000 // scale,
        "pending_peak": 512 * (scale - 1),
        "violations": violations,
        "check_sampling": {"sample_every": 1000, "checked": 790, "operations": 4210},
    }


def document_of(*violations: object) -> tuple[Document, dict[str, dict[str, Histogram]]]:
    pictures = {
        "immediate": {
            "delivery": histogram_of(*range(20_000, 200_000, 1_000)),
            "handler": histogram_of(*range(900, 9_000, 45)),
            "round_trip": histogram_of(*range(150_000, 1_500_000, 7_500)),
        },
        "migrc": {
            "delivery": histogram_of(*range(20_000, 200_000, 9_000)),
            "handler": histogram_of(950),
            "round_trip": Histogram(),
        },
    }
    runs = [
        run_of("immediate", 1, pictures["immediate"], []),
        run_of("migrc", 3, pictures["migrc"], list(violations)),
    ]
    return (
        {
            "scenario": "tiering",
            "engine": "live",
            "kernel": "6.6",
            "arch": "x86",
            "mmu": "x86",
            "cpus": 4,
            "seed": 7,
            "runs": runs,
        },
        pictures,
    )


def report_of(document: Document, pictures: dict[str, dict[str, Histogram]]) -> str:
    file = io.StringIO()
    print_report(document, pictures, file)
    return file.getvalue()


def test_the_report_is_the_golden_file() -> None:
    report = report_of(*document_of("stale read of [page] 7 on CPU 2", {"check": "accounting", "pfn": 9}))
    if os.environ.get("MIGRC_GOLDEN") == "write":
        GOLDEN.write_text(report)
    assert report == GOLDEN.read_text()


def test_what_is_set_for_live_runs_is_said() -> None:
    document, pictures = document_of()
    document["live_settings"] = {"scale": 128, "xsbench.grid_reads": 690}
    assert report_of(document, pictures).splitlines()[1] == (
        "set for live runs: scale = 128, xsbench.grid_reads = 690"
    )


def test_nothing_is_drawn_of_no_runs() -> None:
    document, _ = document_of()
    document["runs"] = []
    assert report_of(document, {}) == "tiering: live engine, kernel 6.6, x86, 4 CPUs, seed 7\n"


def test_away_from_a_terminal_there_are_no_escapes_and_no_trailing_padding() -> None:
    report = report_of(*document_of())
    assert "\x1b" not in report
    assert report.isascii()
    assert [line for line in report.splitlines() if line != line.rstrip()] == []


def test_on_a_terminal_the_figures_are_the_same() -> None:
    terminal = Terminal()
    document, pictures = document_of()
    print_report(document, pictures, terminal)
    for figure in ("72,370", "213,711", "33.5 s", "TLB shootdowns (migrc)"):
        assert figure in terminal.getvalue()


def test_sixty_four_cpus_stand_in_one_row() -> None:
    document, pictures = document_of()
    for run in document["runs"]:
        run["interrupts"]["TLB"] = list(range(64))
    rows = [line for line in report_of(document, pictures).splitlines() if line.startswith("TLB:")]
    assert len(rows) == 2
    assert rows[0].split()[1:65] == [str(cpu) for cpu in range(64)]


def test_a_single_policy_has_no_ratio() -> None:
    document, pictures = document_of()
    del document["runs"][1]
    assert "ratio" not in report_of(document, pictures).replace("migration", "")


def test_many_violations_are_counted_and_the_first_shown() -> None:
    report = report_of(*document_of(*(f"violation {number}" for number in range(50))))
    assert "migrc: 50 violations" in report
    assert "violation 19" in report
    assert "violation 20" not in report
    assert "and 30 more" in report


def test_a_policy_that_puts_nothing_off_is_explained() -> None:
    document, pictures = document_of()
    second = document["runs"][1]
    for run in document["runs"]:
        run["vmstat"] |= {"unmap_owed_writable": 3, "unmap_owed_dirty": 1234, "unmap_owed_clean": 5}
    told = "migrc put nothing off: flushes were owed for 3 writable entries, 1,234 dirty and 5 clean ones."
    report = report_of(document, pictures)
    assert told in report and "kernel.migration_entry_ad" in report
    assert "immediate put nothing off" not in report
    second["vmstat"]["migrc_deferred"] = 1
    assert "put nothing off" not in report_of(document, pictures)


def test_what_a_run_comes_to_stands_first_and_last() -> None:
    document, pictures = document_of()
    lines = conclusion(document)
    assert lines[0].startswith(
        "No rule broke under immediate, migrc: fills and one access in 1,000 were checked"
    )
    assert "remote flushes -67% (72,370 -> 24,123)" in lines[1]
    shown = report_of(document, pictures).splitlines()
    assert shown[2 : 2 + len(lines)] == shown[-len(lines) :] == lines
    broken, _ = document_of("stale read")
    assert conclusion(broken)[0] == "A RULE BROKE under migrc (1 violations)."
    broken["stopped"] = "SIGTERM"
    assert conclusion(broken)[0] == "A RULE BROKE under migrc (1 violations); stopped early: SIGTERM."


def test_a_run_that_says_nothing_says_so() -> None:
    document, pictures = document_of()
    care = "\n".join(conclusion(document))
    assert "nothing migrated" in care and "nothing was put off under migrc" in care and "one seed" in care
    assert "interrupts under" not in care and "cores" not in care
    for run in document["runs"]:
        run["vmstat"] |= {"pgdemote_kswapd": 5, "migrc_deferred": 2}
        run["interrupts"]["TLB"] = [3, 4, 0, 0]
    document["cores"] = 2
    care = "\n".join(conclusion(document))
    assert "migrated" not in care and "nothing was put off" not in care
    assert "fewer than 30 interrupts under immediate, migrc" in care
    assert care.endswith("5 processes shared 2 cores: latencies include waiting for one")
    shares = {"delivery": 0.4, "handler": 0.056, "round_trip": 0.25, "memory": 0.1}
    for run, more in zip(document["runs"], (0.0, 0.1), strict=True):
        run["core_wait_share"] = {kind: share + more for kind, share in shares.items()}
    care = "\n".join(conclusion(document))
    assert "waiting for one, which was 40 to 50 % of delivery, 6 to 16 % of handler" in care
    assert "10 to 20 % of the time of the memory actor" in care
    shown = report_of(document, pictures)
    rows = [line.split() for line in shown.splitlines() if line.startswith("waiting for a core")]
    assert [row[4:] for row in rows] == [
        ["40.0", "%", "50.0", "%", "1.25"],
        ["5.6", "%", "15.6", "%", "2.79"],
        ["25.0", "%", "35.0", "%", "1.40"],
    ]


def test_zero_counters_and_tick_sites_are_shown_on_demand() -> None:
    document, pictures = document_of()
    file = io.StringIO()
    print_report(document, pictures, file, whole=True)
    assert "pgmigrate_fail" in file.getvalue() and "(migrate_pages)" in file.getvalue()
    assert "pgmigrate_fail" not in report_of(document, pictures)
    zero = len(vmstat.KERNEL_COUNTERS) - 2
    assert f"{zero} more are zero (-v shows them)" in report_of(document, pictures)
