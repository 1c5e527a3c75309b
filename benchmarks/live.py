"""What the live engine costs, beside the same traffic as plain Ray actor calls, in one run.

Shootdowns (send to last acknowledgement), operations through the memory actor, time from command to first
access, and TLB hits in one CPU actor. Both sides run on the same Ray, in as many actors, one after the other
in each turn; the plain side does what Ray offers for it: nothing is waited for that need not be.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = str(Path(__file__).resolve().parent.parent)
sys.path.insert(0, ROOT)
# Workers import the packages, too, when this checkout is not installed.
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [ROOT, os.environ.get("PYTHONPATH")]))

CLIENTS = 4
TARGETS = (1, 2, 4, 8)
SHOOTDOWN_LIMIT = 1 / 8
OPERATIONS_LIMIT = 15.0
START_LIMIT = 1.5
HITS_LIMIT = 1e6
WATCHED_LIMIT = 1.4


@dataclass(frozen=True)
class Row:
    """One line of the result: this engine, plain Ray, and whether the target is met."""

    what: str
    unit: str
    live: float
    plain: float | None
    ratio: float | None
    target: str
    met: bool | None


# --- the same traffic, as programs ---------------------------------------------------------------


def live_parts() -> Any:
    """The machine class; made here so that a child that measures plain Ray imports nothing of ours."""
    from emulator.hardware.cpu import Cpu, IpiRequest, Program
    from emulator.hardware.operations import AckIpi, FlushTlb, Operation, handlers_of
    from emulator.hardware.ordering import ARCHITECTURES
    from emulator.hardware.tlb import TlbShape
    from emulator.memory.words import Words

    class Gate:
        def __init__(self) -> None:
            self._words = Words()
            self._handlers = handlers_of(self._words)

        def execute(self, cpu: int, operation: Operation) -> Any:
            return self._handlers[type(operation)](cpu, operation)

        def enabled(self, cpu: int, operation: Any) -> bool:
            # Locks are private here; only words are waited for.
            return self._words.values.get(operation.word, 0) == operation.value

        def results(self) -> dict[str, Any]:
            return {}

    class Kernel:
        def __init__(self) -> None:
            self.accesses = 0
            self.tlb_interrupts = 0
            self.found: dict[str, Any] = {}
            self.cpu: Any = None

        def results(self) -> dict[str, Any]:
            return self.found

        async def interrupt(self, batch: tuple[IpiRequest, ...]) -> None:
            for request in batch:
                await FlushTlb()
                await AckIpi(request.sender, request.number)

    class Machine:
        def __init__(self, bodies: Sequence[Callable[[Any], Coroutine[Any, Any, None]]]) -> None:
            self.bodies = bodies
            self.cpus = len(bodies)

        def memory(self) -> Any:
            return Gate()

        def checks(self, memory: Any) -> list[Any]:
            return []

        def cpu(self, number: int) -> tuple[Cpu, Program, Kernel]:
            kernel = Kernel()
            kernel.cpu = Cpu(number, ARCHITECTURES["x86"], TlbShape(), kernel.interrupt)
            return kernel.cpu, self.bodies[number](kernel), kernel

    return Machine


def live_shootdown(session: Any, targets: int, rounds: int) -> float:
    """Median ns from send to last acknowledgement."""
    from emulator.hardware.operations import SendIpi, Store, WaitAcks, WaitFor

    async def shooter(kernel: Any) -> None:
        for _ in range(rounds):
            await WaitAcks(await SendIpi(tuple(range(1, targets + 1)), "flush", (), True))
        await Store("done", 1)

    async def target(kernel: Any) -> None:
        await WaitFor("done", 1)

    result = session.run(live_parts()([shooter] + [target] * targets))
    return float(result.round_trip.summary()["p50"])


def traffic(client: int) -> list[list[Any]]:
    """One turn of reclaim on the wire: what is issued together, a list each.

    A lock, single reads, a series of atomics (entries taken out), stores that nobody waits for (entries put
    back), a series of reads, and the unlock: 32 operations, of which 9 are not waited for.
    """
    from emulator.hardware.operations import AtomicAdd, AtomicXchg, Load, Lock, Store, Unlock

    lock = f"lock{client}"
    words = [f"entry{client}.{index}" for index in range(8)]
    return [
        [Lock(lock)],
        [Load("watermark")],
        [Load(words[0])],
        [AtomicXchg(word, 0) for word in words],
        *([Store(word, 7)] for word in words),
        [AtomicAdd(f"generation{client}", 1)],
        [Load(word) for word in words],
        [Unlock(lock)],
        *([Load(word)] for word in words[:2]),
        [AtomicAdd(f"count{client}", 1)],
    ]


def live_operations(session: Any, rounds: int) -> float:
    """Operations a second of all clients together, while all of them are at it."""
    from emulator.hardware.operations import AtomicAdd, Series, WaitFor

    def client(number: int) -> Any:
        async def body(kernel: Any) -> None:
            steps = [
                members[0] if len(members) == 1 else Series(tuple(members)) for members in traffic(number)
            ]
            await AtomicAdd("here", 1)
            await WaitFor("here", CLIENTS)
            started = time.monotonic_ns()
            for _ in range(rounds):
                for step in steps:
                    await step
            await AtomicAdd("last", 1)
            kernel.found = {"started": started, "ended": time.monotonic_ns()}

        return body

    result = session.run(live_parts()([client(number) for number in range(CLIENTS)]))
    return operations_a_second([(cpu["started"], cpu["ended"]) for cpu in result.cpus], rounds)


def operations_a_second(spans: list[tuple[int, int]], rounds: int) -> float:
    """Of all clients, from the first one's start to the last one's end (ns)."""
    count = sum(len(members) for members in traffic(0)) * rounds * CLIENTS
    return count / (max(end for _, end in spans) - min(start for start, _ in spans)) * 1e9


def live_hits(session: Any, accesses: int, pages: int) -> float:
    """Accesses a second that hit the TLB, over `pages` pages, a tenth of them writes."""
    from array import array

    from emulator.hardware.operations import LoadCr3, Touch

    async def body(kernel: Any) -> None:
        import random

        generator = random.Random(1)
        trace = array(
            "Q", (generator.randrange(pages) << 1 | (generator.random() < 0.1) for _ in range(1 << 20))
        )
        await LoadCr3(1, 1, False)
        for page in range(pages):
            kernel.cpu.tlb.insert(1, page, page << 12 | 0x63)
        started = time.monotonic_ns()
        while kernel.accesses < accesses:
            index = 0
            while index < len(trace):
                reached = await Touch(trace, index, len(trace))
                kernel.accesses += reached - index
                index = reached
        kernel.found = {"ns": time.monotonic_ns() - started}

    result = session.run(live_parts()([body]))
    return float(result.accesses / result.cpus[0]["ns"] * 1e9)


def live_tiering(session: Any, watched: bool, accesses: int = 50_000) -> float:
    """Seconds that a short run of `tiering` takes on three CPUs."""
    from actors.mode import Mode
    from scenarios.subjects.subject import Subject
    from scenarios.workloads.workload_file import load_workload

    workload = load_workload("tiering", (f"threads.accesses={accesses}",))
    machine = Subject(workload, "migrc", "x86", 3, 1).workload_machine()
    keep = (lambda events, checksum: None) if watched else None
    result = session.run(machine, mode=Mode(watched, watched), keep=keep)
    return float(result.elapsed_ns / 1e9)


# --- the same traffic, as actor calls ------------------------------------------------------------


class PlainCpu:
    """A CPU that is only an actor: flushing is a call, an acknowledgement its result."""

    def __init__(self) -> None:
        self._tlb: dict[int, int] = {}

    def flush(self) -> None:
        self._tlb.clear()

    def now(self) -> int:
        return time.monotonic_ns()

    def shoot(self, targets: list[Any], rounds: int) -> list[int]:
        import ray

        spans = []
        for _ in range(rounds):
            started = time.monotonic_ns()
            ray.get([target.flush.remote() for target in targets])
            spans.append(time.monotonic_ns() - started)
        return spans

    def issue(self, memory: Any, steps: list[list[Any]], client: int, rounds: int) -> tuple[int, int]:
        import ray

        from emulator.hardware.operations import TABLE, Lock

        ray.get(memory.execute.remote(client, steps[1][0]))
        started = time.monotonic_ns()
        for _ in range(rounds):
            for members in steps:
                answers = [memory.execute.remote(client, member) for member in members]
                if TABLE[type(members[0])].answers or isinstance(members[0], Lock):
                    ray.get(answers)
        ray.get(memory.execute.remote(client, steps[1][0]))
        return started, time.monotonic_ns()


class PlainMemory:
    """The same words behind actor calls."""

    def __init__(self) -> None:
        from emulator.hardware.operations import handlers_of
        from emulator.memory.words import Words

        self._handlers = handlers_of(Words())

    def execute(self, cpu: int, operation: Any) -> Any:
        return self._handlers[type(operation)](cpu, operation)


def plain_shootdown(targets: int, rounds: int) -> float:
    """Median ns of calling every target and having every result."""
    import ray

    actor = ray.remote(num_cpus=0)(PlainCpu)
    sender, *others = [actor.remote() for _ in range(targets + 1)]
    ray.get([other.flush.remote() for other in others])
    ray.get(sender.shoot.remote(others, rounds // 10))
    spans = ray.get(sender.shoot.remote(others, rounds))
    for handle in (sender, *others):
        ray.kill(handle)
    return float(statistics.median(spans))


def plain_operations(rounds: int) -> float:
    """Operations a second of all clients together."""
    import ray

    memory = ray.remote(num_cpus=0)(PlainMemory).remote()
    clients = [ray.remote(num_cpus=0)(PlainCpu).remote() for _ in range(CLIENTS)]
    ray.get([client.flush.remote() for client in clients])
    calls = [
        client.issue.remote(memory, traffic(number), number, rounds) for number, client in enumerate(clients)
    ]
    spans = ray.get(calls)
    for handle in (memory, *clients):
        ray.kill(handle)
    return operations_a_second(spans, rounds)


# --- starting ------------------------------------------------------------------------------------


def child_live(cpus: int) -> None:
    """Start everything, do one access on each CPU, and print when the first was done (monotonic ns)."""
    from actors.session import LiveSession
    from emulator.hardware.operations import Load, LoadCr3, Touch

    async def body(kernel: Any) -> None:
        await LoadCr3(1, 1, False)
        kernel.cpu.tlb.insert(1, 5, 0x5063)
        await Load("entry")
        await Touch((10,), 0, 1)
        kernel.found = {"first": time.monotonic_ns()}

    with LiveSession() as session:
        result = session.run(live_parts()([body] * cpus))
        print(min(cpu["first"] for cpu in result.cpus), flush=True)


def child_plain(actors: int) -> None:
    """Start Ray and `actors` bare actors, and print when the last of them was there (monotonic ns)."""
    import logging

    import ray

    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ["RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"] = "0"
    ray.init(address="local", include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    handles = [ray.remote(num_cpus=0)(PlainCpu).remote() for _ in range(actors)]
    print(max(ray.get([handle.now.remote() for handle in handles])), flush=True)
    ray.shutdown()


def time_to_first_access(side: str, count: int) -> float:
    """Seconds from starting the command in a fresh process."""
    started = time.monotonic_ns()
    child = subprocess.run(
        [sys.executable, __file__, f"--child={side}", f"--count={count}"], stdout=subprocess.PIPE, check=True
    )
    return (int(child.stdout.split()[-1]) - started) / 1e9


# --- the table -----------------------------------------------------------------------------------


def measure(options: argparse.Namespace) -> list[Row]:
    """Every row; the two sides take turns, and the median of `repeats` turns counts."""
    from actors.session import LiveSession

    rows: list[Row] = []
    with LiveSession() as session:
        for targets in TARGETS:
            live, plain = alternate(
                options.repeats,
                lambda targets=targets: live_shootdown(session, targets, options.rounds),
                lambda targets=targets: plain_shootdown(targets, options.rounds // 4),
            )
            ratio = live / plain
            bound = targets == TARGETS[-1]
            rows.append(
                Row(
                    f"shootdown to {targets} CPUs, median",
                    "us",
                    live / 1e3,
                    plain / 1e3,
                    ratio,
                    "<= 1/8" if bound else "",
                    ratio <= SHOOTDOWN_LIMIT if bound else None,
                )
            )
        live, plain = alternate(
            options.repeats,
            lambda: live_operations(session, options.rounds),
            lambda: plain_operations(options.rounds // 20),
        )
        ratio = live / plain
        rows.append(
            Row(
                f"memory operations, {CLIENTS} clients",
                "1/s",
                live,
                plain,
                ratio,
                ">= 15",
                ratio >= OPERATIONS_LIMIT,
            )
        )
        for pages in (48, 512):
            hits = statistics.median(
                live_hits(session, options.accesses, pages) for _ in range(options.repeats)
            )
            rows.append(
                Row(f"TLB hits over {pages} pages", "1/s", hits, None, None, ">= 1e6", hits >= HITS_LIMIT)
            )
    with LiveSession() as session:
        live_tiering(session, False, 5_000)
        live, plain = alternate(
            options.repeats,
            lambda: live_tiering(session, True),
            lambda: live_tiering(session, False),
        )
    ratio = live / plain
    rows.append(
        Row("tiering, watched beside unwatched", "s", live, plain, ratio, "<= 1.4", ratio <= WATCHED_LIMIT)
    )
    live, plain = alternate(
        options.repeats,
        lambda: time_to_first_access("live", options.cpus),
        lambda: time_to_first_access("plain", options.cpus + 1),
    )
    ratio = live / plain
    rows.append(
        Row(
            f"command to first access, {options.cpus} CPUs",
            "s",
            live,
            plain,
            ratio,
            "<= 1.5",
            ratio <= START_LIMIT,
        )
    )
    return rows


def alternate(repeats: int, live: Callable[[], float], plain: Callable[[], float]) -> tuple[float, float]:
    """Medians of both sides, measured in turns so that whatever else the machine does hits both."""
    turns = [(live(), plain()) for _ in range(repeats)]
    return statistics.median(turn[0] for turn in turns), statistics.median(turn[1] for turn in turns)


def print_table(rows: list[Row]) -> None:
    """One line for each row, for people."""
    print(f"{'':36} {'live':>12} {'plain Ray':>12} {'ratio':>8}  target")
    for row in rows:
        plain = f"{row.plain:,.6g}" if row.plain is not None else "-"
        ratio = "-" if row.ratio is None else f"{row.ratio:.3f}" if row.ratio < 10 else f"{row.ratio:.1f}"
        verdict = "" if row.met is None else f"{row.target} {'met' if row.met else 'MISSED'}"
        print(f"{row.what:30} {row.unit:>5} {row.live:12,.6g} {plain:>12} {ratio:>8}  {verdict}")


def main() -> int:
    """Run the benchmark; exit code 1 if a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON document instead of the table")
    parser.add_argument("--repeats", type=int, default=3, help="turns of each measurement (default 3)")
    parser.add_argument("--rounds", type=int, default=1000, help="rounds in a turn (default 1,000)")
    parser.add_argument(
        "--accesses", type=int, default=10_000_000, help="hits in a turn (default 10 million)"
    )
    parser.add_argument("--cpus", type=int, default=4, help="CPUs to start (default 4)")
    parser.add_argument("--child", choices=("live", "plain"), help=argparse.SUPPRESS)
    parser.add_argument("--count", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        {"live": child_live, "plain": child_plain}[options.child](options.count)
        return 0
    if options.rounds < 20 or options.repeats < 1 or options.accesses < 1 or options.cpus < 1:
        parser.error("--rounds must be 20 or more, the others 1 or more")
    rows = measure(options)
    if options.json:
        print(json.dumps([{name: getattr(row, name) for name in Row.__dataclass_fields__} for row in rows]))
    else:
        print_table(rows)
    return int(any(row.met is False for row in rows))


if __name__ == "__main__":
    sys.exit(main())
