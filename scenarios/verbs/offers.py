"""What has a name: for lists, and for shells that complete it."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from emulator.hardware.ordering import ARCHITECTURES
from emulator.kernel.mmu.catalogue import MMUS
from emulator.policies.catalogue import POLICIES, canonical
from scenarios.history import BUGS
from scenarios.litmus import LITMUS
from scenarios.mistakes import MISTAKES
from scenarios.workloads.workload_file import list_workloads


def there_is() -> dict[str, dict[str, str]]:
    """Everything that has a name, by its kind, with what it is in one line."""
    return {
        "scenarios": {one.name: one.description for one in list_workloads()},
        "litmus": {name: one.question for name, one in LITMUS.items()},
        "history": {name: f"{bug.reference}: {bug.title}" for name, bug in BUGS.items()},
        "policies": described_policies(),
        "mistakes": {name: first_line(one) for name, one in MISTAKES.items()},
        "archs": {name: one.description for name, one in ARCHITECTURES.items()},
        "mmus": {name: one.description for name, one in MMUS.items()}
        | {"MODULE:CLASS": "your own mmu class"},
    }


def described_policies() -> dict[str, str]:
    """What `--policy` takes besides mistakes, each with what its class says of itself."""
    told = {name: first_line(POLICIES[name]) for name in POLICIES if name != canonical("migrc")}
    return told | {"MODULE:CLASS": "your own policy class"}


def first_line(thing: object) -> str:
    """What a class says of itself, in its description or its docstring."""
    return vars(thing).get("description") or (inspect.getdoc(thing) or "").partition("\n")[0]


def flat(settings: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    """Settings as `--set` has them."""
    found: dict[str, Any] = {}
    for key, value in settings.items():
        found |= flat(value, f"{before}{key}.") if isinstance(value, dict) else {f"{before}{key}": value}
    return found
