"""Do the tests notice? Breaks one line at a time, as `benchmarks/mutants/` lists them, and runs a few tests.

Each mutant is applied in a copy of the tree, never in the tree itself, and the smallest tests that should
notice are run until one fails. An entry of a list gives the text before, which must be there exactly once,
the text after, and what that breaks; `equivalent` says why no test can tell it from the code as it is.
What is known of the very same mutant and tests is kept in a file of results.
`python benchmarks/mutants.py --only 'emulator/kernel/*'`.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import tomllib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import suppress
from fnmatch import fnmatchcase
from hashlib import blake2b
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from pathlib import Path
from queue import SimpleQueue
from random import Random
from typing import Any, Final, NamedTuple

ROOT: Final = Path(__file__).resolve().parents[1]
LISTS: Final = ROOT / "benchmarks" / "mutants"
RESULTS: Final = Path(tempfile.gettempdir()) / "migrc-mutants.jsonl"
COPIED: Final = ("emulator", "actors", "scenarios", "benchmarks", "tests", "docs", "pyproject.toml")
CPU_S: Final = 120
"""Of processor time: tests that take more hang. The lists name none that takes half of it."""

WALL_S: Final = 1800.0
"""And of time at all, for those that wait for ever."""

# Test runs are forked from a process that has pytest in it already, which spares each of them a second.
_FORKS: Final = get_context("forkserver")
_FORKS.set_forkserver_preload(["pytest", "hypothesis", "click", "msgpack", "pydantic", "rich.console", "zmq"])

_FAILED: Final = re.compile(r"^(?:FAILED|ERROR) (.+?)(?: - .*)?$", re.M)
KILLED, HANG, SURVIVED, EQUIVALENT = "killed", "killed (hangs)", "survived", "equivalent"
UNKNOWN: Final = "unknown"  # its tests are at fault


class Problem(Exception):
    """The list, or a test on the code as it is, is not as it should be; in one line."""


class Mutant(NamedTuple):
    """One change of one place of one file, and the tests that should notice, the smallest first."""

    file: str
    before: str
    after: str
    breaks: str
    tests: tuple[str, ...]
    equivalent: str = ""

    def applied(self, text: str) -> str:
        """The file's text with the change. Problem if the place is not there exactly once."""
        found = text.count(self.before)
        if found != 1:
            raise Problem(f"{self.file}: {self.before!r} is there {found} times, not once; mend the list")
        changed = text.replace(self.before, self.after)
        try:
            compile(changed, self.file, "exec")
        except SyntaxError as problem:
            raise Problem(f"{self.file}: {self.after!r} is no Python: {problem.msg}") from None
        return changed

    def key(self, tree: Path) -> str:
        """A name for this mutant of this text with these tests."""
        digest = blake2b(self.applied((tree / self.file).read_text()).encode(), digest_size=12)
        for test in self.tests:
            digest.update(test.encode())
            digest.update((tree / test.partition("::")[0]).read_bytes())
        return digest.hexdigest()


class Verdict(NamedTuple):
    """What became of a mutant; `by` is the test that failed."""

    key: str
    outcome: str
    by: str
    seconds: float


def mutants_in(lists: Iterable[Path]) -> list[Mutant]:
    """All that the lists name. Problem if one of them is not as it should be."""
    found: list[Mutant] = []
    for path in lists:
        with path.open("rb") as file:
            try:
                document = tomllib.load(file)
            except tomllib.TOMLDecodeError as problem:
                raise Problem(f"{path.name}: {problem}") from None
        for name, section in document.items():
            for entry in section["mutants"]:
                given = {"tests": section.get("tests", []), **entry}
                unknown = given.keys() - set(Mutant._fields)
                missing = {"before", "after", "breaks"} - given.keys()
                if unknown or missing or not given["tests"]:
                    raise Problem(f"{path.name}: {name}: {entry}: wants before, after, breaks and tests")
                found.append(Mutant(name, **{**given, "tests": tuple(given["tests"])}))
    return found


class Trees:
    """Copies of the tree in a temporary folder, one for each job, and the test runs in them."""

    def __init__(self, folder: Path, jobs: int, seed: int) -> None:
        self.stopped = threading.Event()
        self._seed = seed
        self._running: set[BaseProcess] = set()
        self._passed: set[str] = set()
        self._asking = threading.Lock()
        self.free: SimpleQueue[Path] = SimpleQueue()
        first = folder / "0"
        for name in COPIED:
            source, target = ROOT / name, first / name
            if source.is_dir():
                shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__", ".*"))
            else:
                first.mkdir(exist_ok=True)
                shutil.copy(source, target)
        # Compiled files that go by content: with a time stamp a mutant's would be taken for the original's.
        compiled = [
            sys.executable,
            "-m",
            "compileall",
            "-q",
            "--invalidation-mode",
            "checked-hash",
            str(first),
        ]
        subprocess.run(compiled, check=True)
        self.free.put(first)
        for job in range(1, jobs):
            self.free.put(shutil.copytree(first, folder / str(job)))

    def stop(self) -> None:
        """End every test run."""
        self.stopped.set()
        for process in list(self._running):
            _end(process)

    def verdict(self, mutant: Mutant) -> Verdict:
        """Apply it in a tree that nobody uses, run its tests, put the file back."""
        tree = self.free.get()
        try:
            key = mutant.key(tree)
            path = tree / mutant.file
            original = path.read_text()
            path.write_text(mutant.applied(original))
            began = time.monotonic()
            try:
                code, output = self._run(tree, mutant.tests)
            finally:
                path.write_text(original)
            seconds = time.monotonic() - began
            if code is None:
                return Verdict(key, HANG, "", seconds)
            if code not in (0, 1, 2) or (code and not _FAILED.search(output)):
                raise Problem(f"{mutant.file}: {mutant.after!r}: pytest ended with {code}: {output[-300:]!r}")
            if not code:
                return Verdict(key, EQUIVALENT if mutant.equivalent else SURVIVED, "", seconds)
            by = _FAILED.findall(output)[0]
            self._passes(tree, by)
            return Verdict(key, KILLED, by, seconds)
        finally:
            self.free.put(tree)

    def _passes(self, tree: Path, test: str) -> None:
        """Problem if a test fails on the code as it is, too; asked once of each."""
        with self._asking:
            if test not in self._passed:
                code, output = self._run(tree, (test,))
                if code and not self.stopped.is_set():
                    raise Problem(f"{test} fails without a mutant: {output[-300:]!r}")
                self._passed.add(test)

    def _run(self, tree: Path, tests: Sequence[str]) -> tuple[int | None, str]:
        """pytest's exit code, None if it hangs, and what it printed."""
        output = tree.with_suffix(".output")
        process = _FORKS.Process(target=_tested, args=(tree, tuple(tests), self._seed, output), daemon=True)
        if self.stopped.is_set():
            return -1, ""
        process.start()
        self._running.add(process)
        try:
            process.join(WALL_S)
            hangs = process.exitcode in (None, -signal.SIGXCPU) and not self.stopped.is_set()
            return None if hangs else process.exitcode, output.read_text()
        finally:
            _end(process)
            self._running.discard(process)


def _tested(tree: Path, tests: Sequence[str], seed: int, output: Path) -> None:
    """Run tests in a tree, as a process of its own that has imported none of the project yet."""
    os.setsid()
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_S, CPU_S + 1))
    with output.open("w") as file:
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)
    os.chdir(tree)
    sys.path.insert(0, str(tree))
    sys.dont_write_bytecode = True
    import pytest

    command = ["-x", "-q", "--no-header", "--tb=no", "-m", "not live", "-p", "no:cacheprovider"]
    # Plugins are imported already, see above.
    command += ["-W", "ignore::pytest.PytestAssertRewriteWarning"]
    code = pytest.main([*command, f"--rootdir={tree}", f"--hypothesis-seed={seed}", *tests])
    sys.stdout.flush()
    os._exit(int(code))


def _end(process: BaseProcess) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid or 0, signal.SIGKILL)
    process.kill()
    process.join()


def known_verdicts(path: Path) -> dict[str, Verdict]:
    """What a file of results says; a line that was cut is left out."""
    found: dict[str, Verdict] = {}
    for line in path.read_text().splitlines() if path.exists() else ():
        with suppress(ValueError, TypeError):
            verdict = Verdict(**json.loads(line))
            found[verdict.key] = verdict
    return found


def judged(
    mutants: Sequence[Mutant], results: Path, jobs: int, seed: int
) -> Iterator[tuple[Mutant, Verdict]]:
    """Each mutant and what became of it, as it is known; new verdicts are added to the file of results."""
    known = known_verdicts(results)
    left = []
    for mutant in mutants:
        verdict = known.get(mutant.key(ROOT))
        if verdict is None:
            left.append(mutant)
        else:
            yield mutant, verdict
    if not left:
        return
    with tempfile.TemporaryDirectory(prefix="migrc-mutants-") as folder, results.open("a") as file:
        trees = Trees(Path(folder), jobs, seed)
        pool = ThreadPoolExecutor(jobs)
        try:
            running = {pool.submit(trees.verdict, mutant): mutant for mutant in left}
            for done in as_completed(running):
                try:
                    verdict = done.result()
                except Problem as problem:
                    yield running[done], Verdict("", UNKNOWN, str(problem), 0.0)
                    continue
                file.write(json.dumps(verdict._asdict()) + "\n")
                file.flush()
                yield running[done], verdict
        finally:
            # Also after Ctrl-C: nothing may run on in a folder that goes.
            pool.shutdown(wait=False, cancel_futures=True)
            trees.stop()
            pool.shutdown()


def figures(found: Sequence[tuple[Mutant, Verdict]]) -> dict[str, Any]:
    """How many of each outcome; the share of those killed is of all that can be."""
    counts = Counter(verdict.outcome for _, verdict in found)
    killed = counts[KILLED] + counts[HANG]
    share = killed / (killed + counts[SURVIVED]) if killed + counts[SURVIVED] else 1.0
    return {"mutants": len(found), **counts, "killed_share": round(share, 4)}


def _chosen(mutants: Sequence[Mutant], only: Sequence[str], sample: int | None, seed: int) -> list[Mutant]:
    found = [
        one for one in mutants if not only or any(fnmatchcase(one.file, p) or p in one.breaks for p in only)
    ]
    return Random(seed).sample(found, min(sample, len(found))) if sample is not None else found


def main(arguments: Sequence[str] | None = None) -> int:
    """0 if at least 95 % are killed and none survives unexplained, 1 if not, 2 if the list is wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("lists", nargs="*", type=Path, help="TOML files; those of benchmarks/mutants if none")
    parser.add_argument("--jobs", type=int, default=1, help="test runs at a time")
    parser.add_argument("--only", action="append", default=[], help="files (wildcards) or words of `breaks`")
    parser.add_argument("--sample", type=int, help="so many of them, drawn")
    parser.add_argument("--seed", type=int, default=0, help="of --sample and of the tests' random examples")
    parser.add_argument(
        "--results", type=Path, default=RESULTS, help="what is known already, and is added to"
    )
    parser.add_argument("--check", action="store_true", help="only whether the list fits the code")
    parser.add_argument("--json", action="store_true", dest="as_json")
    options = parser.parse_args(arguments)
    found: list[tuple[Mutant, Verdict]] = []
    try:
        chosen = _chosen(
            mutants_in(options.lists or sorted(LISTS.glob("*.toml"))),
            options.only,
            options.sample,
            options.seed,
        )
        stale = []
        for mutant in chosen:
            try:
                mutant.key(ROOT)
            except (Problem, OSError) as problem:
                stale.append(str(problem))
        if stale:
            raise Problem("\n".join(stale))
        if not options.check:
            for mutant, verdict in judged(chosen, options.results, options.jobs, options.seed):
                found.append((mutant, verdict))
                if not options.as_json:
                    print(
                        f"{verdict.outcome:14} {verdict.seconds:5.1f} s  {mutant.file}: {mutant.breaks}",
                        flush=True,
                    )
    except Problem as problem:
        print(f"mutants: error: {problem}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("mutants: interrupted; what is known is kept", file=sys.stderr)
    total = figures(found)
    if options.as_json:
        results = [{**mutant._asdict(), **verdict._asdict()} for mutant, verdict in found]
        print(json.dumps({**total, "results": results}, indent=2))
    else:
        for mutant, verdict in found:
            if verdict.outcome in (SURVIVED, EQUIVALENT, UNKNOWN):
                why = f" ({mutant.equivalent or verdict.by})" if mutant.equivalent or verdict.by else ""
                print(f"{verdict.outcome}: {mutant.file}: {mutant.before!r} -> {mutant.after!r}{why}")
        print(*[f"{name}: {value}" for name, value in total.items()], sep=", ")
    if len(found) < len(chosen) and not options.check:
        return 130
    if total.get(UNKNOWN):
        return 2
    return int(total["killed_share"] < 0.95 or total.get(SURVIVED, 0) > 0)


if __name__ == "__main__":
    # Also where a shell has put this behind: there Ctrl-C would be ignored.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    sys.exit(main())
