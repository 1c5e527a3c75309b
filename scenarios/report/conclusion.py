"""What a run's figures come to, in the lines that somebody reads who reads no more.

Did a rule break, what did a policy save and cost against the first one, and what should make one careful?
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from scenarios.report.figures import duration
from scenarios.report.spread import outliers, ratios
from scenarios.runs.document import LATENCIES, Document, Repeats, Run

FEW_INTERRUPTS: Final = 30
_SEEDS: Final = {"timed": "--repeat 5 says how much", "live": "vary --seed"}
_MOVED: Final = ("pgmigrate_success", "pgdemote_kswapd", "pgdemote_direct", "pgpromote_success")


def conclusion(document: Document) -> list[str]:
    """Lines: the verdict, every policy against the first, what to take care of. None if nothing has run."""
    runs = document["runs"]
    if not runs:
        return []
    saved = [_saved(runs[0], run) for run in runs[1:]]
    if "repeats" in document:
        saved += [_over_seeds(document["repeats"], runs[0]["policy"], run["policy"]) for run in runs[1:]]
    care = [f"  - {one}" for one in _care(document)]
    return [_verdict(document), *saved, *(["With care:"] if care else []), *care]


def has_moved(run: Run) -> bool:
    """Some page went from one tier to another."""
    return any(run["vmstat"].get(name) for name in _MOVED)


def _verdict(document: Document) -> str:
    runs = document["runs"]
    stopped = f"; stopped early: {document['stopped']}" if "stopped" in document else ""
    counts = {run["policy"]: len(run["violations"]) for run in runs}
    counts |= document["repeats"]["violations"] if "repeats" in document else {}
    broken = [f"{policy} ({count:,} violations)" for policy, count in counts.items() if count]
    if broken:
        return f"A RULE BROKE under {', '.join(broken)}{stopped}."
    watched = sum(run.get("transitions", 0) for run in runs)
    if watched:
        how = f"happens-before judged {watched:,} steps"
    else:
        samplings = [run["check_sampling"] for run in runs if "check_sampling" in run]
        every = min((one["sample_every"] for one in samplings), default=1)
        how = f"fills and one access in {every:,} were checked, no order of events (--watched)"
    return f"No rule broke under {', '.join(run['policy'] for run in runs)}: {how}{stopped}."


def _saved(first: Run, run: Run) -> str:
    """One policy beside the first."""
    parts = [
        f"{name} {_change(first['vmstat'].get(key, 0), run['vmstat'].get(key, 0))}"
        for name, key in (
            ("remote flushes", "nr_tlb_remote_flush"),
            ("interrupts taken", "nr_tlb_remote_flush_received"),
        )
    ]
    if "shootdown_share" in run and "shootdown_share" in first:
        shares = (first["shootdown_share"], run["shootdown_share"])
        parts.append("time in shootdowns {:.2%} -> {:.2%}".format(*shares))
    parts.append(f"elapsed {_change(first['elapsed_ns'], run['elapsed_ns'], duration)}")
    deferred = run["vmstat"].get("migrc_deferred", 0)
    held = run["pending_peak"]
    cost = f"; put off {deferred:,} folios, held back {held:,} pages at most" if deferred or held else ""
    return f"{run['policy']} against {first['policy']}: {', '.join(parts)}{cost}."


def _over_seeds(repeats: Repeats, first: str, policy: str) -> str:
    """One policy beside the first, seed by seed."""
    parts = []
    for name, key in (("remote flushes", "nr_tlb_remote_flush"), ("elapsed", "elapsed_ns")):
        values = repeats["values"][key]
        found = ratios(values[first], values[policy]) if len(repeats["seeds"]) > 1 else None
        if found is None:
            continue
        if 1 in found:
            parts.append(f"{name} no different ({found.low - 1:+.1%} to {found.high - 1:+.1%})")
        else:
            parts.append(f"{name} {found.mean - 1:+.1%} ({found.low - 1:+.1%} to {found.high - 1:+.1%})")
    told = ", ".join(parts) or "nothing to compare"
    return (
        f"Over {len(repeats['seeds'])} seeds, {policy} against {first}: {told}; in brackets 95 % intervals."
    )


def _change(before: int, after: int, show: object = None) -> str:
    text = show if callable(show) else "{:,}".format
    return f"{f'{after / before - 1:+.0%}' if before else 'from none'} ({text(before)} -> {text(after)})"


def _waiting(runs: Sequence[Run]) -> str:
    """How much of the latencies was waiting for a core, as far as that is known."""
    known = [run["core_wait_share"] for run in runs if run.get("core_wait_share")]
    parts = []
    for kind in (*LATENCIES, "memory"):
        values = [round(one[kind] * 100) for one in known if kind in one]
        if values:
            spread = f"{min(values)}" if min(values) == max(values) else f"{min(values)} to {max(values)}"
            what = "of the time of the memory actor" if kind == "memory" else f"of {kind}"
            parts.append(f"{spread} % {what}")
    told = f", which was {', '.join(parts)}" if parts else ""
    return f"latencies include waiting for one{told}"


def _network(document: Document) -> str:
    """On a cluster interrupts are messages of a network, and what CPUs do meanwhile depends on how long."""
    trips = [trip for run in document["runs"] for trip in run.get("network_ns", {}).values()]
    addresses = {address for run in document["runs"] for address in run.get("network_ns", {})}
    return (
        f"actors on {len(addresses)} nodes ({document['placement']}), whose network has round trips of "
        f"{duration(min(trips))} to {duration(max(trips))}: latencies and counters are not "
        "comparable with those of another network or placement"
    )


def _care(document: Document) -> list[str]:
    """What should keep one from believing the figures."""
    runs = document["runs"]
    found = []
    if not any(map(has_moved, runs)):
        found.append("nothing migrated, so this says nothing of migration: a longer run, a smaller fast tier")
    for run in runs:
        if gone := run.get("unplugged"):
            found.append(
                f"{run['policy']}: actors died, and their CPUs were unplugged ({', '.join(map(str, gone))}): "
                "what they had counted is lost, and their accesses are missing"
            )
    idle = [
        run["policy"]
        for run in runs
        if run["policy"].startswith("migrc") and not run["vmstat"].get("migrc_deferred")
    ]
    if idle:
        found.append(f"nothing was put off under {', '.join(idle)}")
    few = [run["policy"] for run in runs if sum(run["interrupts"]["TLB"]) < FEW_INTERRUPTS]
    if few:
        found.append(
            f"fewer than {FEW_INTERRUPTS} interrupts under {', '.join(few)}: no percentile means much"
        )
    if len(document.get("repeats", {"seeds": []})["seeds"]) > 1:
        found += outliers(document["repeats"])
    elif len(runs) > 1:
        found.append(f"one seed: a difference of a few percent may be chance ({_SEEDS[document['engine']]})")
    if document["engine"] == "live":
        found.append("elapsed is this machine's time, messages included; the timed engine has Linux' prices")
        cores = document.get("cores", 0)
        if "placement" in document:
            found.append(_network(document))
        elif cores and document["cpus"] + 1 > cores:
            processes = document["cpus"] + 1
            found.append(f"{processes} processes shared {cores} cores: {_waiting(runs)}")
    return found
