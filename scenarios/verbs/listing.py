"""The verb `migrc list`: what can be run, and under what."""

from __future__ import annotations

import inspect

import click

from emulator.hardware.ordering import ARCHITECTURES
from emulator.kernel.mmu.catalogue import MMUS
from emulator.policies.catalogue import POLICIES, canonical
from scenarios.history import BUGS
from scenarios.litmus import LITMUS
from scenarios.mistakes import MISTAKES
from scenarios.report.console import print_json
from scenarios.verbs import options
from scenarios.workloads.workload_file import list_workloads


@click.command("list")
@options.json_
@options.no_seed
def listing(as_json: bool) -> None:
    """Show what can be run: scenarios, litmus tests, bugs, policies, mistakes, architectures, mmus."""
    workloads = list_workloads()
    rows = {
        "scenarios": {one.name: one.description for one in workloads},
        "litmus": {name: one.question for name, one in LITMUS.items()},
        "history": {name: f"{bug.reference}: {bug.title}" for name, bug in BUGS.items()},
        "policies": described_policies(),
        "mistakes": {name: _first_line(one) for name, one in MISTAKES.items()},
        "archs": {name: one.description for name, one in ARCHITECTURES.items()},
        "mmus": {name: one.description for name, one in MMUS.items()}
        | {"MODULE:CLASS": "your own mmu class"},
    }
    if as_json:
        listed = {
            key: [{"name": name, "description": text} for name, text in section.items()]
            for key, section in rows.items()
        }
        for entry, one in zip(listed["scenarios"], workloads, strict=True):
            entry["kind"] = one.kind
        print_json(listed)
        return
    titles = {
        "litmus": "litmus tests (migrc check)",
        "history": "bugs that the kernel had (migrc check --history)",
        "policies": "policies (--policy)",
        "mistakes": "mistakes (--policy, to see a check bark)",
        "archs": "architectures (--arch)",
        "mmus": "how flushes are carried out (--mmu)",
    }
    width = max(len(name) for section in rows.values() for name in section)
    blocks = (
        "\n".join([titles.get(key, key), *(f"  {name:<{width}}  {text}" for name, text in section.items())])
        for key, section in rows.items()
        if section
    )
    click.echo("\n\n".join(blocks))


def described_policies() -> dict[str, str]:
    """What `--policy` takes besides mistakes, each with what its class says of itself."""
    told = {name: _first_line(POLICIES[name]) for name in POLICIES if name != canonical("migrc")}
    return told | {"MODULE:CLASS": "your own policy class"}


def _first_line(thing: object) -> str:
    return vars(thing).get("description") or (inspect.getdoc(thing) or "").partition("\n")[0]
