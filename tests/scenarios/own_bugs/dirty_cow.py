"""19be0eaffa3a (v4.9, CVE-2016-5195): get_user_pages breaks COW, and then looks again as if it only read."""

from emulator.kernel.gup import get_user_pages_unlocked
from emulator.kernel.memory import handle_mm_fault
from scenarios.litmus.kit import *

SHARED = PAGE + 0x20


class Before(Immediate):
    @instead_of(get_user_pages_unlocked)
    async def looks_again(self, cpu, mm, vpn, write, pins):
        await handle_mm_fault(cpu, mm, vpn, write)
        return await get_user_pages_unlocked(cpu, mm, vpn, False, pins)


def private(setup):
    setup.area(PAGE, 1, file=FILE)


LITMUS = Litmus(
    name="dirty-cow",
    question="The kernel writes to a private page that is given up meanwhile: does the file stay as it is?",
    programs=(
        in_order(direct_write, returns),
        in_order(call(madvise, PAGE, MADV_DONTNEED), once_returned(call(finds, VERSION, vpn=SHARED))),
    ),
    setup=starts(cached_file(at=SHARED), private),
    expected=(never("immediate", "litmus_after_return"), sometimes(Before, WRONG_VERSION)),
    drain=False,
    ignore=(RANGE_REUSED,),
)
