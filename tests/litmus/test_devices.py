"""What a test says of devices and guests has to be possible."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from emulator.hardware.ordering import ARCHITECTURES
from emulator.machine.litmus import LitmusMachine
from emulator.policies.immediate import Immediate
from scenarios.litmus.devices import UNMAPPED
from scenarios.litmus.walkers import FREED


@pytest.mark.parametrize("setting", [("devices", ((2, 1),)), ("devices", ((1,),)), ("guests", ((1, 1),))])
def test_who_is_no_cpu_of_the_test_is_refused_in_one_line(setting: tuple[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"^litmus setting {setting[0]}: .* with a CPU of the test's$"):
        LitmusMachine(replace(UNMAPPED, settings=(setting,)), ARCHITECTURES["sc"], Immediate)


def test_a_walker_knows_tables_only_where_they_are_things() -> None:
    with pytest.raises(ValueError, match="without the setting walker_caches"):
        LitmusMachine(replace(FREED, settings=()), ARCHITECTURES["sc"], Immediate)
