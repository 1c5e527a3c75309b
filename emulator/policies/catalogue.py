"""The policies that can be named, and how a user's own class is found."""

from __future__ import annotations

import importlib
from collections.abc import Callable

from emulator.kernel.policy import Policy
from emulator.policies.immediate import Immediate
from emulator.policies.migrc_rfc1 import MigrcRfc1
from emulator.policies.migrc_rfc2 import MigrcRfc2
from emulator.policies.migrc_v3 import MigrcV3
from emulator.policies.migrc_v9 import MigrcV9

POLICIES: dict[str, Callable[[], Policy]] = {
    "immediate": Immediate,
    "migrc": MigrcV3,
    "migrc:v3": MigrcV3,
    "migrc:rfc1": MigrcRfc1,
    "migrc:rfc2": MigrcRfc2,
    "migrc:v9": MigrcV9,
}


def canonical(name: str) -> str:
    """One name for each policy: `migrc` is `migrc:v3`."""
    return "migrc:v3" if name == "migrc" else name


class UnknownPolicy(Exception):
    """The name is no policy; the message says what would be."""


def find_policy(name: str) -> Callable[[], Policy]:
    """The factory behind a name, or behind `module:Class` for a policy that is not in the table.

    Raises UnknownPolicy, with one line, when there is no such module or class or it is no Policy.
    """
    if name in POLICIES:
        return POLICIES[name]
    known = f"known policies are {', '.join(POLICIES)}, or your own as module:Class"
    module_name, colon, class_name = name.partition(":")
    if not colon or module_name == "migrc":
        raise UnknownPolicy(f"no policy named {name}; {known}")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise UnknownPolicy(f"policy {name}: no module named {error.name}; {known}") from error
    except (Exception, SystemExit) as error:
        raise UnknownPolicy(
            f"policy {name}: importing {module_name} raised {type(error).__name__}: {error}"
        ) from error
    found = getattr(module, class_name, None)
    if not isinstance(found, type) or not issubclass(found, Policy):
        raise UnknownPolicy(
            f"policy {name}: {class_name} in {module_name} is not a class derived from "
            "emulator.kernel.policy.Policy"
        )
    return found
