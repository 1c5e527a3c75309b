"""All that a litmus test is made of, to be imported from one place.

The functions of the kernel are not here: `migrc functions NAME` says where each is imported from.
"""

from __future__ import annotations

from emulator.hardware.operations import *
from emulator.hardware.pte import DIRTY as DIRTY
from emulator.hardware.pte import PSE as PSE
from emulator.hardware.pte import RW as RW
from emulator.hardware.pte import mk_pte as mk_pte
from emulator.hardware.pte import pte_pfn as pte_pfn
from emulator.kernel.instead import instead_of as instead_of
from emulator.kernel.percpu import PF_KSWAPD as PF_KSWAPD
from emulator.kernel.percpu import PerCpu as PerCpu
from emulator.kernel.policy import Policy as Policy
from emulator.kernel.user import user_read as user_read
from emulator.kernel.user import user_write as user_write
from emulator.machine.litmus import FAST as FAST
from emulator.machine.litmus import MM as MM
from emulator.machine.litmus import SLOW as SLOW
from emulator.machine.litmus import Expectation as Expectation
from emulator.machine.litmus import Forbidden as Forbidden
from emulator.machine.litmus import Litmus as Litmus
from emulator.machine.litmus import Setup as Setup
from emulator.memory.zone import Watermarks as Watermarks
from emulator.policies.immediate import Immediate as Immediate
from scenarios.litmus.answers import *
from scenarios.litmus.starts import *
from scenarios.litmus.steps import *
from scenarios.litmus.syscalls import *
