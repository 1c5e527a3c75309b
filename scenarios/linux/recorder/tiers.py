"""Records the tiering program: boots a kernel with a lower tier, and counts what its guest hands over.

The guest's clock counts instructions (`-icount`), so that a busy host changes nothing. What each probe is and
how CPUs take turns, stands in `tiers.c`.
"""

from __future__ import annotations

import datetime
import lzma
import re
import shutil
import subprocess
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final, NamedTuple

from scenarios.linux.recorder.booted import QEMU
from scenarios.linux.recorder.initial_files import cpio, kernel_package, output
from scenarios.linux.recorder.traced import BrokenTrace
from scenarios.linux.tier_counts import INTERRUPTS, PHASES, SCAN_PAGES, TierRecording
from scenarios.usage import UsageProblem

_CPUS: Final = 4
_PAGE_BYTES: Final = 4096
# Of node 1 the kernel gets whole blocks of 128 MiB: 896 MiB.
_NODES_MIB: Final = (384, 1152)
_APPEND: Final = (
    "console=ttyS0 quiet panic=-1 no_timer_check no5lvl mitigations=off nowatchdog nokaslr skew_tick=1 "
    f"workqueue.power_efficient=0 maxcpus=1 memmap={_NODES_MIB[1]}M!{_NODES_MIB[0]}M"
)
_MODULES: Final = ("libnvdimm", "nd_e820", "dax_pmem", "kmem")
# A scan period, in ms of the guest. The shortest is divided by how many scans go through all tables, and so
# comes to the same: the period does not adapt. Hot is what is used within one.
_PERIOD_MS: Final = 500
_WINDOWS: Final = 24
# Rounds of a loop after each lookup, which make 18 periods of all lookups.
_WORK: Final = 600
_HOST_SECONDS: Final = 1800

_EVENT: Final = re.compile(r"\s*(\S+)-(\d+)\s+\[\d+\]\s+\S+\s+(\d+\.\d+): (\w+): (.*)")
_RANGE: Final = re.compile(r"start=(\w+) end=(\w+)")
_COUNTED: Final = (
    *("pgdemote_kswapd", "pgdemote_direct", "pgpromote_success", "pgpromote_candidate"),
    *("numa_pte_updates", "numa_hint_faults", "numa_pages_migrated", "pgmigrate_success", "pgmigrate_fail"),
    *("pgactivate", "pgdeactivate", "allocstall_normal", "pageoutrun", "kswapd_low_wmark_hit_quickly"),
)
_REASONS: Final = ("demotion", "promotion", "scan", "compaction", "other")


class Program(NamedTuple):
    """What runs in the guest: tables in pages, lookups of all threads and at once, reads of
    the grid in each, and pages that a scan goes through."""

    grid_pages: int
    index_pages: int
    lookups: int
    lookups_at_once: int
    grid_reads: int
    scan_pages: int

    def settings(self, seed: int) -> str:
        """The line that the guest reads."""
        periods = _PERIOD_MS, _PERIOD_MS * _WINDOWS, 3 * _PERIOD_MS, _PERIOD_MS
        return " ".join(map(str, (*self[:5], _WORK, seed, self.scan_pages >> 8, *periods))) + "\n"


def record_tiers(
    version: str,
    program: Program,
    runs: int,
    packages: Path | None,
    look: Callable[[int], None] = lambda done: None,
) -> TierRecording:
    """Run the program on Linux `version`, with other lookups in each run; `look` is told how many are over.

    Raises UsageProblem if something that is needed is missing, or if the guest dies.
    """
    if shutil.which(QEMU) is None:
        raise UsageProblem(f"--record: no {QEMU} here; docs/linux.md says what to install")
    found = []
    with TemporaryDirectory(prefix="migrc-record-") as folder:
        scratch = Path(folder)
        unpacked = scratch / "kernel"
        output(["dpkg-deb", "-x", str(kernel_package(version, packages, scratch)), str(unpacked)])
        image = next((unpacked / "boot").glob("vmlinuz-*"))
        for seed in range(1, runs + 1):
            line = _boot(image, _archive(unpacked, program.settings(seed), scratch), scratch)
            try:
                with open(line, errors="replace") as text:
                    found.append(counted(text))
            except (BrokenTrace, OSError) as problem:
                raise UsageProblem(f"--record: {problem}") from None
            look(seed)
    about = {
        "kernel": image.name.removeprefix("vmlinuz-"),
        "date": datetime.date.today().isoformat(),
        "machine": f"x86-64, {_CPUS} CPUs, QEMU TCG, thread=single, icount: 1 ns an instruction of any CPU",
        "nodes": f"{_NODES_MIB[0]} MiB with the CPUs; 896 MiB of persistent memory, a lower tier",
        "scans": f"every {_PERIOD_MS} ms of guest time, hot within as many; {_WORK} rounds after a lookup",
        SCAN_PAGES: str(program.scan_pages),
        **found[0].zones,
    }
    return TierRecording(about, tuple(one.phases for one in found))


def _archive(unpacked: Path, settings: str, scratch: Path) -> Path:
    here = Path(__file__).parent
    init = scratch / "init"
    sources = [str(here / name) for name in ("tiers.c", "basics.c")]
    output(["gcc", "-O1", "-static-pie", "-pthread", "-o", str(init), *sources])
    files = [("init", 0o100755, init.read_bytes()), ("settings", 0o100644, settings.encode())]
    files.append(("dev", 0o040755, b""))
    for name in _MODULES:
        module = next(unpacked.rglob(f"{name}.ko*"), None)
        if module is None:
            raise UsageProblem(f"--record: no module {name} in the kernel's package; one of Debian's has it")
        content = module.read_bytes()
        files.append(
            (f"{name}.ko", 0o100644, lzma.decompress(content) if module.suffix == ".xz" else content)
        )
    archive = scratch / "initial.cpio"
    archive.write_bytes(cpio(files))
    return archive


def _boot(image: Path, archive: Path, scratch: Path) -> Path:
    """Let the guest run to its end; what it wrote to its second serial line."""
    line = scratch / "line"
    nodes = []
    for number, size in enumerate(_NODES_MIB):
        nodes += ["-object", f"memory-backend-ram,id=node{number},size={size}M"]
        cpus = "" if number else f",cpus=0-{_CPUS - 1}"
        nodes += ["-numa", f"node,nodeid={number},memdev=node{number}{cpus}"]
    command = [
        *("nice", "-n", "2", QEMU, "-accel", "tcg,thread=single", "-icount", "shift=0,sleep=off"),
        *("-cpu", "max", "-smp", str(_CPUS), "-m", f"{sum(_NODES_MIB)}M", *nodes),
        *("-nodefaults", "-display", "none", "-no-reboot"),
        *("-serial", f"file:{scratch / 'console'}", "-serial", f"file:{line}"),
        *("-kernel", str(image), "-initrd", str(archive), "-append", _APPEND),
    ]
    try:
        subprocess.run(command, stdin=subprocess.DEVNULL, timeout=_HOST_SECONDS, check=True)
    except (subprocess.SubprocessError, OSError) as problem:
        raise UsageProblem(f"--record: {QEMU}: {problem}") from None
    return line


class TierRun(NamedTuple):
    """One run: its counters by part of the program, and what the kernel said of its zones."""

    phases: dict[str, dict[str, float]]
    zones: dict[str, str]


def counted(lines: Iterable[str]) -> TierRun:
    """What the guest has handed over. Raises BrokenTrace if that is not all of it."""
    files: dict[tuple[str, str], list[str]] = {}
    listed: list[str] = []
    for text in lines:
        words = text.split()
        if words[:1] == ["FILE"] and len(words) == 3:
            listed = files[words[1], words[2]] = []
        elif words[:1] == ["OVER"]:
            if words[1] != "0":
                raise BrokenTrace(f"the guest's program ended with status {words[1]}")
            break
        else:
            listed.append(text)
    else:
        raise BrokenTrace("the guest did not come to its end")
    before = ("start", *PHASES)
    phases = {
        phase: _difference(_snapshot(files, earlier), _snapshot(files, phase))
        for earlier, phase in zip(before, PHASES, strict=False)
    }
    for phase, traced in _traced(files["trace", "whole"]).items():
        phases[phase] |= traced
    return TierRun(phases, _zones(files["zoneinfo", "start"]))


def _snapshot(files: dict[tuple[str, str], list[str]], phase: str) -> dict[str, float]:
    try:
        vmstat = {name: float(value) for name, value in map(str.split, files["vmstat", phase])}
        row = next(line for line in files["interrupts", phase] if line.strip().startswith("TLB:"))
    except (KeyError, ValueError, StopIteration):
        raise BrokenTrace(f"no counters of {phase}") from None
    found = {name: vmstat.get(name, 0) for name in _COUNTED}
    try:
        found["kswapd_us"] = int(files["kswapd", phase][0].split()[0]) // 1000
    except (KeyError, IndexError, ValueError):
        raise BrokenTrace("no time of kswapd") from None
    found["pgscan"] = vmstat["pgscan_kswapd"] + vmstat["pgscan_direct"]
    interrupts = [float(word) for word in row.split()[1 : _CPUS + 1]]
    found["nr_tlb_remote_flush_received"] = sum(interrupts)
    return found | {f"{INTERRUPTS}{cpu}": value for cpu, value in enumerate(interrupts)}


def _difference(before: dict[str, float], after: dict[str, float]) -> dict[str, float]:
    return {name: value - before[name] for name, value in after.items()}


def _traced(lines: Iterable[str]) -> dict[str, dict[str, float]]:
    """Of each part of the program: flushes that went to other CPUs, by reason; scans, and their time.

    A kernel that never flushes for a batch (before v6.3) flushes for each page that it moves.
    """
    phase = PHASES[0]
    flushes: dict[str, Counter[tuple[str, str, bool]]] = {one: Counter() for one in PHASES}
    scanning: dict[str, float] = {}
    scans: Counter[str] = Counter()
    began: dict[str, str] = {}
    sent: dict[str, float] = {}
    waits: defaultdict[tuple[str, str], float] = defaultdict(float)
    batches = False
    scan_s = 0.0
    marks: list[float] = []
    begun = 0.0
    for task, pid, time, kind, text in _events(lines):
        if kind == "tracing_mark_write":
            if text == "over":
                break
            if text == "part":
                marks.append(time)
            else:
                phase, begun = text, time
        elif kind == "scan":
            scanning[pid] = time
        elif kind == "scanned":
            scan_s += time - scanning.pop(pid)
            scans[phase] += 1
        elif kind in ("ranged", "batched"):
            batches |= kind == "batched"
            began[pid] = "page" if _one_page(text) else kind
            sent.pop(pid, None)
        elif kind == "tlb_flush":
            sent[pid] = time
            flushes[phase][task, began.get(pid, ""), pid in scanning] += 1
        elif kind in ("flushed", "ranged_done") and pid in sent:
            waits[phase, kind] += time - sent.pop(pid)
    else:
        raise BrokenTrace("the trace has no end")
    moves, done = ("batched", "flushed") if batches else ("page", "ranged_done")
    found: dict[str, dict[str, float]] = {}
    for one in PHASES:
        reasons: Counter[str] = Counter()
        for (task, function, scans_too), times in flushes[one].items():
            reasons[_reason(task, scans_too, function == moves, one)] += times
        found[one] = {f"tlb_remote_flush_{reason}": reasons[reason] for reason in _REASONS}
        found[one]["nr_tlb_remote_flush"] = sum(reasons.values())
        found[one]["numa_scans"] = scans[one]
        found[one]["batch_flush_us"] = round(1e6 * waits[one, done])
        found[one]["scan_us"] = round(1e6 * scan_s) if one != PHASES[0] else 0
        found[one]["guest_ms"] = round(1e3 * (marks[-1] - begun)) if one != PHASES[0] and marks else 0
    return found


def _one_page(text: str) -> bool:
    """Whether the arguments of a range flush say that it is of one page."""
    range_ = _RANGE.search(text)
    return range_ is not None and int(range_[2], 16) - int(range_[1], 16) == _PAGE_BYTES


def _events(lines: Iterable[str]) -> Iterator[tuple[str, str, float, str, str]]:
    """Task, its pid, time in s, event, what it says."""
    for line in lines:
        event = _EVENT.match(line)
        if event is not None:
            yield event[1], event[2], float(event[3]), event[4], event[5].strip()
        elif line.strip() and not line.startswith("#"):
            raise BrokenTrace(f"{line.strip()[:80]!r} is no event")


def _reason(task: str, scanning: bool, moves: bool, phase: str) -> str:
    """Whose flush it is: by the task, whether that is in task_numa_work, and whether pages move."""
    if task.startswith("kswapd"):
        return "demotion"
    if task.startswith("kcompactd"):
        return "compaction"
    if scanning:
        return "scan"
    # Direct reclaim there is only while the tables are written.
    return "other" if not moves else "promotion" if phase == PHASES[1] else "demotion"


def _zones(lines: Iterable[str]) -> dict[str, str]:
    """Of each zone that has pages: free ones and watermarks."""
    found = {}
    zone = ""
    figures: dict[str, str] = {}
    for line in lines:
        words = line.split()
        if words[:1] == ["Node"]:
            zone, figures = f"node {words[1].strip(',')} {words[3]}", {}
        elif words[:2] == ["pages", "free"]:
            figures["free"] = words[2]
        elif len(words) == 2 and words[0] in ("min", "low", "high", "managed"):
            figures.setdefault(words[0], words[1])
            if words[0] == "managed" and words[1] != "0":
                found[zone] = ", ".join(f"{name} {value}" for name, value in figures.items())
    return found
