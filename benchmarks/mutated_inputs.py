"""Files that nobody should send, given to the verbs that read them: what do they answer?

    python benchmarks/mutated_inputs.py 10000 --seed 0 [--format sweep] [--seconds 3600] [--shell 500]

Every format is mutated in its bytes and in its values (`mutations.py`) and read by the verb in this process;
one in so many also by the command itself. A mutant fails if it ends with a traceback, an exit code that
README does not have, more than one line of error, after more than ten seconds or with more than 1 GiB. Prints
counts per format, and each kind of failure with what makes it again.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import msgpack

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from actors.errors import SessionError
from actors.recorder import note
from benchmarks.mutations import (
    Mutate,
    bytes_of,
    of_events,
    of_json,
    of_lines,
    of_recording,
    of_search,
    of_table,
    of_text,
    of_toml,
    of_trace,
    of_witness,
    of_words,
)
from emulator.explore.schedule import parse_schedule
from emulator.machine.referee import Referee
from scenarios.events.event_file import EventHeader, written
from scenarios.files.recording import MAGIC, Writer
from scenarios.runs import trials
from scenarios.runs.event_sources import tell_schedule
from scenarios.runs.replays import SharedSum, end_of, sum_of
from scenarios.runs.swarm import Pace
from scenarios.runs.tally import Outcome, Tally
from scenarios.runs.tally_file import TallyFile
from scenarios.subjects.programs import LitmusName, machine_of
from scenarios.subjects.subject import Subject
from scenarios.traces.format import TraceWriter
from scenarios.verbs.cli import migrc
from scenarios.verbs.exits import exit_code
from scenarios.verbs.export import FORMATS as EXPORTS

CODES = frozenset({0, 1, 2, 3})
CHUNK = 100  # mutants of a format before it is another one's turn
LONGEST_S = 10  # of CPU time, as others may use the machine too
HANGS_S = 600
LARGEST = 1 << 30
OPTIONS = (
    ("replay", "{text}", "--litmus", "shootdown", "--policy", "immediate", "--arch", "x86"),
    (
        "run",
        "tiering",
        "--engine",
        "timed",
        "--quiet",
        "--cpus",
        "2",
        "--set",
        "threads.accesses=50",
        "--set",
        "{text}",
    ),
    ("sweep", "tiering", "--quiet", "--set", "threads.accesses=50", "--cpus", "2", "--vary", "{text}"),
    ("check", "shootdown", "--arch", "sc", "--schedules", "2", "--policy", "{text}"),
    ("check", "shootdown", "--arch", "sc", "--schedules", "2", "--rule", "{text}"),
    ("check", "{text}", "--policy", "immediate", "--arch", "sc", "--schedules", "2"),
    ("check", "shootdown", "--policy", "immediate", "--arch", "sc", "--schedules", "2", "--mmu", "{text}"),
    ("run", "tiering", "--address", "{text}"),
)

SHOOTDOWN = (
    "tlb_flush: pages:8 reason:remote IPI send (4)",
    "csd_queue_cpu: cpu=1 callsite=f+0x20/0x60 func=flush_tlb_func csd=0000de6eb726",
    "ipi_send_cpumask: cpumask=2 callsite=f+0x1/0x2 callback=g+0x0/0x10",
    "csd_function_entry: func=flush_tlb_func csd=0000de6eb726",
    "tlb_flush: pages:8 reason:remote shootdown (1)",
    "csd_function_exit: func=flush_tlb_func csd=0000de6eb726",
)

BROKEN = ("mprotect-reclaimed", "--policy", "mistake:before-3ea277194daa", "--arch", "sc")


class Format:
    """A good file, what reads it, and how its values are mutated."""

    def __init__(
        self,
        suffix: str,
        good: bytes,
        arguments: tuple[tuple[str, ...], ...],
        values: Mutate,
        where: Path = Path(),
    ) -> None:
        self.suffix = suffix
        self.good = good
        self.arguments = arguments
        self.values = values
        self.where = where  # the directory of the mutant

    def command(self, random: Random, file: Path) -> tuple[str, ...]:
        """What reads the mutant: its path, or in options one word of it."""
        words = file.read_text(errors="replace").split(" ")
        text = random.choice(words).replace("\0", "")
        return tuple(
            text if part == "{text}" else str(file) if part == "{}" else part
            for part in random.choice(self.arguments)
        )


def formats(folder: Path) -> dict[str, Format]:
    """Good files of every kind, small and made here."""
    made: dict[str, Format] = {}
    tell("check", *BROKEN, "--save", str(folder), "--json")
    witnesses = list(folder.glob("*.mpk"))
    if not witnesses:
        raise SystemExit("mutated_inputs: the check that makes a witness found none")
    quick = ("--seconds", "0.05")
    witness = witnesses[0].read_bytes()
    reads = (("replay", "{}"), ("replay", "{}", "--json"), ("shrink", "{}", *quick))
    made["witness"] = Format(".mpk", witness, reads, of_witness)

    test = LitmusName(BROKEN[0])
    subject = Subject(
        test, msgpack.unpackb(witness)["policy"], "sc", machine_of(test, "immediate", "sc").cpus
    )
    referee = Referee(machine_of(test, subject.policy, "sc"), SharedSum)
    recording = folder / "good.mrec"
    with Writer(recording, subject.header()) as writer:
        for transition in parse_schedule(msgpack.unpackb(witness)["schedule"]):
            referee.step(transition)
            events: list[int] = []
            note(events, transition.kind, transition.cpu, transition.at, 1)
            writer.keep(events, sum_of(referee).total.value)
        writer.end(end_of(referee))
    assert recording.read_bytes().startswith(MAGIC)
    made["recording"] = Format(".mrec", recording.read_bytes(), reads, of_recording)

    told = folder / "good.mev"
    header = EventHeader(title=subject.title(), cpus=referee.cpus, unit="steps")
    with written(told, header) as emit:
        tell_schedule(subject, parse_schedule(msgpack.unpackb(witness)["schedule"]), emit)
    outs = tuple(word for name in EXPORTS for word in (f"--{name}", str(folder / f"out.{name}")))
    made["events"] = Format(".mev", told.read_bytes(), (("export", "{}", *outs),), of_events)

    trace = folder / "good.trace"
    with TraceWriter(trace, {"source": "made here"}) as runs:
        for page in range(40):
            runs.add(page % 7, page % 3, 1 + page % 5)
    few = ("--set", "replay.accesses_per_thread=300", "--cpus", "2", "--policy", "migrc", "--quiet")
    reads = (("trace", "info", "{}"), ("run", "replay", "--engine", "timed", "--trace", "{}", *few))
    made["trace"] = Format(".trace", trace.read_bytes(), reads, of_trace)

    lines = b"==1== Lackey\n" + b"".join(
        b" %s 1f%03x,8\n" % (b"LSM"[at % 3 :][:1], 96 * at) for at in range(60)
    )
    imports = ("trace", "import", "lackey", "{}", "-o", str(folder / "made.trace"))
    made["lackey"] = Format(".txt", lines, (imports, (*imports, "--window", "1")), of_text)

    kernel = "".join(
        f"           storm-{30156 + at // 3 % 2}   [00{at // 3 % 2}] d..2. {68938 + at / 1e6:.6f}: {said}\n"
        for at, said in enumerate(SHOOTDOWN * 4)
    )
    made_of = ("-o", str(folder / "made.mev"))
    reads = tuple(("trace", "import", tool, "{}", *made_of, "--quiet") for tool in ("ftrace", "perf"))
    reads += (("calibrate", "{}", "--quiet"),)
    made["capture"] = Format(".txt", b"# tracer: nop\n" + kernel.encode(), reads, of_text)

    printed = io.StringIO()
    one = ("check", "shootdown", "--arch", "sc", "--schedules", "2", "--policy", "immediate", "--json")
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(io.StringIO()):
        exit_code(migrc, one)
    reads = ((*one, "--baseline", "{}"),)
    made["baseline"] = Format(".json", printed.getvalue().encode(), reads, of_json)

    sweep = (
        "sweep",
        "tiering",
        "--vary",
        "seed=1,2",
        "--set",
        "threads.accesses=300",
        "--cpus",
        "2",
        "--quiet",
    )
    out = folder / "good.jsonl"
    tell(*sweep, "--out", str(out))
    made["sweep"] = Format(".jsonl", out.read_bytes(), ((*sweep, "--out", "{}"),), of_lines)

    root = Path(__file__).parent.parent / "scenarios"
    small = ("--set", "threads.accesses=200", "--cpus", "2", "--policy", "migrc", "--quiet")
    workload = (root / "workloads" / "tiering.toml").read_bytes()
    made["workload"] = Format(".toml", workload, (("run", "{}", "--engine", "timed", *small),), of_toml)

    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(io.StringIO()):
        exit_code(migrc, ("run", "tiering", "--engine", "timed", "--json", *small))
    reads = (("rerun", "{}", "--quiet"),)
    made["result"] = Format(".json", printed.getvalue().encode(), reads, of_json)

    table = b"\n".join((root / "linux" / "recorded" / "6.12.tsv").read_bytes().splitlines()[:16]) + b"\n"
    reads = (("compare", "linux", "--kernel", "6.12", "--cases", "{}", "--quiet"),)
    made["cases"] = Format(".tsv", table, reads, of_table)

    tally = folder / "good.tally"
    stressed = trials.target(Subject(LitmusName("shootdown"), "immediate", "x86"))
    pace = Pace(stressed.machine.cpus)
    pace.add([20] * stressed.machine.cpus, [(0, "r word", 2)])
    one = Tally(stressed, runs=2)
    with contextlib.closing(TallyFile(tally, [stressed], 0, 2)) as kept:
        kept.save(Outcome(tallies=[one], elapsed_s=1.0), [pace], True)
    trials.LiveSession = _no_ray  # type: ignore[misc,assignment]
    command = (
        "stress",
        "shootdown",
        "--policy",
        "immediate",
        "--arch",
        "x86",
        "--runs",
        "2",
        "--resume",
        "{}",
    )
    made["tally"] = Format(".tally", tally.read_bytes(), (command, (*command, "--json")), of_json)

    half = folder / "good.half"
    command = (
        "check",
        "deferred-copy",
        "--policy",
        "migrc",
        "--arch",
        "x86",
        "--strategy",
        "exhaustive",
        "--resume",
    )
    tell(*command, str(half), "--states", "500")
    if half.exists():
        again = (*command, "{}", "--seconds", "0.2")
        made["search"] = Format(".half", half.read_bytes(), (again,), of_search)

    goldens = root / "conformance" / "goldens"
    for suite, name in (("lkmm", "lkmm-MP+polocks"), ("riscv", "riscv-SB")):
        golden = next(iter(sorted(goldens.glob(f"{name}*.litmus"))))
        where = folder / suite
        where.mkdir()
        reads = (("conformance", suite, str(where), "--seconds", "0.2", "--quiet"),)
        made[suite] = Format(".litmus", golden.read_bytes(), reads, of_text, where)
    (folder / "one").mkdir()
    (folder / "one" / golden.name).write_bytes(golden.read_bytes())
    reads = (
        ("conformance", "riscv", str(folder / "one"), "--expected", "{}", "--seconds", "0.2", "--quiet"),
    )
    observed = f"Test {golden.stem} Allowed\nStates 2\n0:x7=0; 1:x7=0;\n0:x7=1; 1:x7=1;\nNo\n"
    observed += f"Observation {golden.stem} Never 0 2\n{golden.name},1\n"
    made["verdicts"] = Format(".txt", observed.encode(), reads, of_text)

    good = (
        "0*3 1*2 0 i1 memory.fast_pages=64 cpus=2,4 seed=1 immediate migrc:v3 mistake:lock-order shootdown "
        "10.0.0.1:6379"
    )
    made["options"] = Format(".txt", good.encode(), OPTIONS, of_words)
    return made


def _no_ray(*_: Any, **__: Any) -> Any:
    raise SessionError("no Ray here")


def tell(*arguments: str) -> tuple[int, str]:
    """Exit code and what was said on standard error."""
    said = io.StringIO()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(said):
        code = exit_code(migrc, arguments)
    return code, said.getvalue()


def _too_long(*_: Any) -> None:
    raise TimeoutError


def peak() -> int:
    """Most bytes of memory that were resident since it was last set back."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) << 10


def ended(arguments: tuple[str, ...], code: int, said: str) -> str:
    """What is wrong with how a mutant ends; empty if nothing is."""
    errors = [line for line in said.splitlines() if line.startswith("migrc: error")]
    if code not in CODES:
        return f"exit code {code}: {said.splitlines()[-1] if said else ''}"[:200]
    # What is wrong with a recording after its last good block is said in the report.
    if "Traceback" in said or (
        len(errors) != (code >= 2) and not (code == 2 and arguments[1].endswith(".mrec"))
    ):
        return f"exit code {code} with {len(errors)} lines of error"
    return ""


def judge(arguments: tuple[str, ...]) -> str:
    """Read it in this process; what is wrong with how that ends."""
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    signal.setitimer(signal.ITIMER_PROF, LONGEST_S)
    signal.alarm(HANGS_S)
    try:
        code, said = tell(*arguments)
    except BaseException as problem:
        return f"{type(problem).__name__}: {problem}"[:200]
    finally:
        signal.alarm(0)
        signal.setitimer(signal.ITIMER_PROF, 0)
    return ended(arguments, code, said) or ("more than 1 GiB" if peak() > LARGEST else "")


def by_command(arguments: tuple[str, ...]) -> str:
    """Read it by the command, in a process of its own; what is wrong with how that ends."""
    root = str(Path(__file__).resolve().parent.parent)
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "scenarios", *arguments],
            env={**os.environ, "PYTHONPATH": root},
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=errors,
        )  # fmt: skip
        signal.alarm(HANGS_S)
        try:
            _, status, used = os.wait4(process.pid, 0)
        except TimeoutError:
            process.kill()
            process.wait()
            return f"more than {HANGS_S} s"
        finally:
            signal.alarm(0)
        process.returncode = os.waitstatus_to_exitcode(status)
        errors.seek(0)
        said = errors.read().decode(errors="replace")
    if used.ru_utime + used.ru_stime > LONGEST_S:
        return f"more than {LONGEST_S} s"
    return ended(arguments, process.returncode, said) or (
        "more than 1 GiB" if used.ru_maxrss << 10 > LARGEST else ""
    )


class Count(NamedTuple):
    """Of one format: mutants read here, those also read by the command, and how often what was wrong."""

    here: int
    shell: int
    wrong: Counter[str]


def tried(kind: str, one: Format, numbers: range, seed: int, shell: int, before: Count) -> Count:
    """Try these mutants of a format too, telling of each kind of failure once."""
    wrong = before.wrong.copy()
    shells = before.shell
    for number in numbers:
        random = Random(f"{seed} {kind} {number}")
        mutate = one.values if random.random() < 0.7 else bytes_of
        file = one.where.absolute() / f"mutant{one.suffix}"
        bad = mutate(random, one.good)
        file.write_bytes(bad)
        arguments = one.command(random, file)
        found = [judge(arguments)]
        # What goes on from a tally starts Ray.
        if shell and number % shell == 0 and kind != "tally":
            shells += 1
            file.write_bytes(bad)
            found.append(by_command(arguments))
        for problem in filter(None, found):
            wrong[problem] += 1
            if wrong[problem] == 1:
                print(f"{kind} {number}: {problem}: migrc {' '.join(arguments)}", flush=True)
        file.unlink(missing_ok=True)
    return Count(before.here + len(numbers), shells, wrong)


def main() -> int:
    """Try them; exit code 1 if one fails."""
    parser = argparse.ArgumentParser(description="Mutated files, and how verbs end.")
    parser.add_argument("count", type=int, help="of every format, at most")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--format", action="append", help="only this one; repeatable")
    parser.add_argument("--first", type=int, default=0, help="number of the first mutant")
    parser.add_argument("--seconds", type=float, help="for so long; each format gets as much of it")
    parser.add_argument(
        "--shell", type=int, default=0, help="each mutant of so many also by the command itself"
    )
    options = parser.parse_args()
    for number in (signal.SIGALRM, signal.SIGPROF):
        signal.signal(number, _too_long)
    with tempfile.TemporaryDirectory(prefix="migrc-mutated-") as name:
        os.chdir(name)
        made = formats(Path(name))
        chosen = {kind: one for kind, one in made.items() if not options.format or kind in options.format}
        counts = {kind: Count(0, 0, Counter()) for kind in chosen}
        spent_s = dict.fromkeys(chosen, 0.0)

        def left() -> list[str]:
            some = [kind for kind in chosen if counts[kind].here < options.count]
            return [] if options.seconds and sum(spent_s.values()) > options.seconds else some

        while kinds := left():
            kind = min(kinds, key=spent_s.__getitem__)
            began = time.monotonic()
            before = counts[kind]
            first = options.first + before.here
            last = min(first + CHUNK, options.first + options.count)
            numbers = range(first, last)
            counts[kind] = tried(kind, chosen[kind], numbers, options.seed, options.shell, before)
            spent_s[kind] += time.monotonic() - began
    for kind, count in counts.items():
        shell = f", {count.shell:,} also by the command" if count.shell else ""
        good = count.here + count.shell - count.wrong.total()
        here = f"{count.here:,} mutants in {spent_s[kind]:.0f} s"
        print(f"{kind}: {here}{shell}, {good:,} as documented; {dict(count.wrong)}")
    print(f"{sum(count.here for count in counts.values()):,} mutants, seed {options.seed}")
    return 1 if any(count.wrong for count in counts.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
