"""The policies that can be named."""

from __future__ import annotations

from collections.abc import Callable

from emulator.kernel.policy import Policy
from emulator.policies.immediate import Immediate
from emulator.policies.luf import LufV12, LufV12Required
from emulator.policies.luf_v10 import LufV10, LufV11
from emulator.policies.migrc_rfc1 import MigrcRfc1
from emulator.policies.migrc_rfc2 import MigrcRfc2
from emulator.policies.migrc_v3 import MigrcV3
from emulator.policies.migrc_v9 import MigrcV9
from emulator.policies.nomad import Nomad
from emulator.policies.table_generations import GenerationsRepaired, GenerationsRfc
from emulator.policies.tpp import Tpp

POLICIES: dict[str, Callable[[], Policy]] = {
    "immediate": Immediate,
    "migrc": MigrcV3,
    "migrc:v3": MigrcV3,
    "migrc:rfc1": MigrcRfc1,
    "migrc:rfc2": MigrcRfc2,
    "migrc:v9": MigrcV9,
    "luf:v10": LufV10,
    "luf:v11": LufV11,
    "luf:v12": LufV12,
    "luf:v12-required": LufV12Required,
    "generations:rfc": GenerationsRfc,
    "generations:repaired": GenerationsRepaired,
    "tpp": Tpp,
    "nomad": Nomad,
}


def canonical(name: str) -> str:
    """One name for each policy: `migrc` is `migrc:v3`."""
    return "migrc:v3" if name == "migrc" else name
