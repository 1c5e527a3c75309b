"""The verbs `migrc list` and `migrc show`: what can be run and under what, and one of it in full."""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Iterable, Iterator, Mapping
from fnmatch import fnmatchcase
from typing import Any, Final, NamedTuple

import click

from emulator.hardware.ordering import ARCHITECTURES
from emulator.kernel.mmu.catalogue import MMUS
from emulator.machine.litmus import Litmus
from emulator.measure.vmstat import KERNEL_COUNTERS, OWN_COUNTERS
from emulator.policies.catalogue import POLICIES
from scenarios.history import BUGS
from scenarios.history.bug import KINDS, Bug
from scenarios.litmus import LITMUS
from scenarios.mistakes import MISTAKES
from scenarios.report.console import print_json, terminal_width
from scenarios.usage import UsageProblem, did_you_mean
from scenarios.verbs import options
from scenarios.verbs.offers import first_line, flat, there_is
from scenarios.workloads.workload_file import list_workloads, load_workload

TITLES: Final = {
    "scenarios": "scenarios",
    "litmus": "litmus tests (migrc check)",
    "history": "bugs that the kernel had (migrc check --history)",
    "policies": "policies (--policy)",
    "mistakes": "mistakes (--policy, to see a check bark)",
    "archs": "architectures (--arch)",
    "mmus": "how flushes are carried out (--mmu)",
}


@click.command("list")
@click.argument("wanted", nargs=-1, metavar="[KIND] [PATTERN]...")
@options.json_
@options.no_seed
def listing(wanted: tuple[str, ...], as_json: bool) -> None:
    """Show what can be run: scenarios, litmus tests, bugs, policies, mistakes, architectures, mmus.

    KIND is scenarios, litmus, history, policies, mistakes, archs or mmus. PATTERN is a wildcard, or a part of
    a name or of what is said about it.
    """
    kinds = [wanted[0]] if wanted and wanted[0] in TITLES else list(TITLES)
    patterns = wanted[1:] if len(kinds) == 1 else wanted
    rows = {
        kind: {name: text for name, text in section.items() if _meant(patterns, name, text)}
        for kind, section in there_is().items()
        if kind in kinds
    }
    if patterns and not any(rows.values()):
        what = " ".join(patterns)
        where = kinds[0] if len(kinds) == 1 else ", ".join(TITLES)
        raise UsageProblem(f"nothing is called {what!r} or says so in {where}; migrc list shows all there is")
    if as_json:
        listed: dict[str, list[dict[str, str]]] = {
            key: [{"name": name, "description": text} for name, text in section.items()]
            for key, section in rows.items()
        }
        kind_of = {one.name: one.kind for one in list_workloads()}
        for entry in listed.get("scenarios", ()):
            entry["kind"] = kind_of[entry["name"]]
        print_json(listed)
        return
    width = max(len(name) for section in rows.values() for name in section)
    blocks = (
        "\n".join([TITLES[key], *(f"  {name:<{width}}  {text}" for name, text in section.items())])
        for key, section in rows.items()
        if section
    )
    click.echo("\n\n".join(blocks))


def _meant(patterns: Iterable[str], name: str, text: str) -> bool:
    """Whether each pattern fits the name, or is somewhere in what there is to read."""
    whole = f"{name} {text}".lower()
    return all(fnmatchcase(name, one) or one.lower() in whole for one in patterns)


# --- one in full -----------------------------------------------------------------------------------


class Shown(NamedTuple):
    """One thing in full: its kind, name, what is said of it, and facts by title."""

    kind: str
    name: str
    about: str
    facts: dict[str, Any]


@click.command()
@click.argument("name", metavar="NAME")
@options.json_
@options.no_seed
def show(name: str, as_json: bool) -> None:
    """Show one of what `migrc list` has in full, or what a counter counts.

    NAME is a scenario (its settings), a litmus test (what it expects), a bug, its commit or its CVE, a
    policy, mistake, architecture or mmu (what it says of itself, and where), or a counter.
    """
    found = list(_named(name))
    if not found:
        known = [one for section in there_is().values() for one in section]
        raise UsageProblem(f"nothing is called {name!r}; {_close(name, [*known, *_counters()])}")
    if as_json:
        print_json({"shown": [one._asdict() for one in found]})
        return
    click.echo("\n\n".join("\n".join(_in_words(one, terminal_width())) for one in found))


def _close(name: str, known: Iterable[str]) -> str:
    guess = did_you_mean(name, known).partition("known: ")[0]
    return f"{guess}migrc list shows what there is"


def _counters() -> dict[str, str]:
    return {**KERNEL_COUNTERS, **OWN_COUNTERS}


def _named(name: str) -> Iterator[Shown]:
    for one in list_workloads():
        if one.name == name:
            settings = load_workload(name).settings_used()
            about = str(settings.pop("description", one.description))
            yield Shown("scenario", name, about, flat(settings))
    if name in LITMUS:
        yield _litmus(LITMUS[name])
    for bug in BUGS.values():
        if name == bug.name or name in bug.known_as:
            yield _bug(bug)
    classes: tuple[tuple[str, Mapping[str, Any]], ...] = (
        ("policy", POLICIES),
        ("mistake", MISTAKES),
        ("mmu", MMUS),
    )
    for kind, known in classes:
        if name in known:
            yield _class(kind, name, known[name])
    if name in ARCHITECTURES:
        yield Shown("architecture", name, ARCHITECTURES[name].description, {})
    if name in _counters():
        yield Shown("counter", name, _counters()[name], {})


def _litmus(test: Litmus) -> Shown:
    facts: dict[str, Any] = {"cpus": len(test.programs), "mmu": test.mmu}
    facts |= (
        {"settings": ", ".join(f"{key}={value}" for key, value in test.settings)} if test.settings else {}
    )
    facts |= {"asks": ", ".join(test.asks)} if test.asks else {}
    facts["programs"] = ", ".join(_place(program) for program in test.programs)
    for one in test.expected:
        said = one._asdict()
        archs = ", ".join(f"{arch} {said[arch] or 'left out'}" for arch in ARCHITECTURES if arch in said)
        rules = f" ({' or '.join(one.rules)})" if one.rules else ""
        facts[f"under {one.policy}"] = archs + rules
    return Shown("litmus test", test.name, test.question, facts)


def _bug(bug: Bug) -> Shown:
    facts: dict[str, Any] = {
        "is": ", ".join(KINDS[kind] for kind in bug.kinds),
        "affected": bug.affected,
        "read in": bug.source,
        "test": f"{bug.test.name}: breaks with {bug.before}, not with {bug.fixed}",
    }
    facts |= {"left out": bug.left_out} if bug.left_out else {}
    return Shown("bug", bug.name, f"{bug.reference}: {bug.title}\n\n{bug.story}", facts)


def _class(kind: str, name: str, thing: Any) -> Shown:
    about = "\n\n".join(dict.fromkeys(filter(None, (first_line(thing), inspect.getdoc(thing)))))
    inherits = [one for one in getattr(thing, "__mro__", ())[1:] if one is not object]
    own = [key for key, value in vars(thing).items() if inspect.isfunction(value) and not key.startswith("_")]
    facts = {"place": _place(thing)}
    facts |= {"is a": ", ".join(one.__name__ for one in inherits)} if inherits else {}
    facts |= {"does itself": ", ".join(own)} if own else {}
    return Shown(kind, name, about, facts)


def _place(thing: Any) -> str:
    """Module and name."""
    name = getattr(thing, "__qualname__", type(thing).__qualname__).replace(".<locals>", "")
    return f"{getattr(thing, '__module__', type(thing).__module__)}.{name}"


def _in_words(one: Shown, width: int) -> Iterator[str]:
    yield f"{one.name} ({one.kind})"
    for paragraph in one.about.split("\n\n"):
        yield from textwrap.wrap(
            " ".join(paragraph.split()), max(width, 60), initial_indent="  ", subsequent_indent="  "
        )
    column = max((len(title) for title in one.facts), default=0)
    for title, value in one.facts.items():
        yield from textwrap.wrap(
            str(value) or "-",
            max(width, 60),
            initial_indent=f"  {title:<{column}}  ",
            subsequent_indent=" " * (column + 4),
        )
