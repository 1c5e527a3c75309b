"""Each rule of RVWMO's preserved program order: a test that it forbids, and one like it that is allowed."""

from __future__ import annotations

import pytest

from emulator.hardware.ordering import ARCHITECTURES
from scenarios.conformance.code import NotTranslatable
from scenarios.conformance.herd_text import read
from scenarios.conformance.judgement import explored

MP = """RISCV MP
{{
0:x5=x; 0:x6=y;
1:x5=y; 1:x6=x; 1:x9=z;
}}
 P0             | P1 ;
 li x7,1        | {} ;
 sw x7,0(x5)    | {} ;
 fence w,w      | {} ;
 li x8,1        | {} ;
 sw x8,0(x6)    | {} ;
                | {} ;
exists ({})
"""


def happens(text: str, arch: str = "riscv") -> bool:
    outcome = explored(read(text), ARCHITECTURES[arch], lambda: False)
    assert outcome is not None
    return outcome.happens


def mp(*lines: str, asks: str = r"1:x7=1 /\ 1:x8=0") -> bool:
    return happens(MP.format(*lines, *["nop"] * (6 - len(lines)), asks))


LOADS = ("lw x7,0(x5)", "lw x8,0(x6)")


def test_loads_of_different_words_overtake_each_other() -> None:
    assert mp(*LOADS)


def test_a_fence_keeps_what_it_names_apart_and_nothing_else() -> None:
    assert not mp(LOADS[0], "fence r,r", LOADS[1])
    assert mp(LOADS[0], "fence w,w", LOADS[1])
    assert mp(LOADS[0], "fence r,w", LOADS[1])


def test_an_address_that_was_read_is_waited_for() -> None:
    assert not mp(LOADS[0], "xor x10,x7,x7", "add x11,x6,x10", "lw x8,0(x11)")


def test_loads_are_carried_out_before_branches_are_decided() -> None:
    assert mp(LOADS[0], "bne x7,x0,L", "L:", LOADS[1])


def test_stores_wait_for_branches() -> None:
    # What P1 stores behind the branch it reads itself: rule 11 keeps the store, not the load.
    text = """RISCV LB
{
0:x5=x; 0:x6=y;
1:x5=y; 1:x6=x;
}
 P0          | P1           ;
 lw x7,0(x5) | lw x7,0(x5)  ;
 BRANCH      | fence rw,rw  ;
 L:          | li x8,1      ;
 li x8,1     | sw x8,0(x6)  ;
 sw x8,0(x6) |              ;
exists (0:x7=1 /\\ 1:x7=1)
"""
    assert happens(text.replace("BRANCH      ", "nop         "))
    assert not happens(text.replace("BRANCH      ", "bne x7,x0,L "))


def test_a_store_that_depends_on_what_was_read_hands_nothing_on_before() -> None:
    # Rule 12, by the stored value and by the address.
    by_value = (LOADS[0], "sw x7,0(x9)", "lw x10,0(x9)", "xor x11,x10,x10", "add x12,x6,x11", "lw x8,0(x12)")
    assert not mp(*by_value)
    address = """RISCV PPOAA
{
0:x5=x; 0:x6=y;
1:x5=y; 1:x6=x; 1:x9=z;
}
 P0          | P1              ;
 li x7,1     | lw x7,0(x5)     ;
 sw x7,0(x5) | xor x10,x7,x7   ;
 fence w,w   | add x11,x9,x10  ;
 li x8,1     | li x12,1        ;
 sw x8,0(x6) | sw x12,0(x11)   ;
             | lw x13,0(x9)    ;
             | xor x14,x13,x13 ;
             | add x15,x6,x14  ;
             | lw x8,0(x15)    ;
exists (1:x7=1 /\\ 1:x8=0)
"""
    assert not happens(address)
    assert happens(address.replace("add x11,x9,x10 ", "add x11,x9,x0  "))


@pytest.mark.parametrize(("marks", "seen"), [("", True), (".aq", False), (".rl", True)])
def test_an_atomic_acquires_only_if_it_says_so(marks: str, seen: bool) -> None:
    assert mp("li x10,0", f"amoadd.w{marks} x7,x10,(x5)", LOADS[1]) is seen


def test_two_loads_of_a_word_see_its_stores_in_order() -> None:
    assert not mp("lw x7,0(x5)", "lw x8,0(x5)")


def test_a_load_goes_ahead_of_an_access_to_an_address_that_is_read() -> None:
    # The address is another's: it may. It is its own: it has guessed wrong, or has to see the same.
    other = ("andi x10,x7,8", "add x11,x9,x10", "lw x12,0(x11)", LOADS[1])
    assert mp(LOADS[0], *other)
    assert not mp(
        LOADS[0], "andi x10,x7,8", "add x11,x6,x10", "lw x12,0(x11)", LOADS[1], asks="1:x12=1 /\\ 1:x8=0"
    )
    assert not mp(LOADS[0], "andi x10,x7,8", "add x11,x6,x10", "sw x5,0(x11)", LOADS[1], asks="1:x8=0")


def test_a_pair_of_reserved_load_and_conditional_store_is_one() -> None:
    text = """RISCV SC
{
0:x5=x;
1:x5=x;
}
 P0              | P1              ;
 li x6,1         | li x6,2         ;
 lr.w x7,0(x5)   | lr.w x7,0(x5)   ;
 sc.w x8,x6,0(x5)| sc.w x8,x6,0(x5);
exists (ASKED)
"""
    assert not happens(text.replace("ASKED", r"0:x8=0 /\ 1:x8=0 /\ 0:x7=0 /\ 1:x7=0"))
    assert happens(text.replace("ASKED", r"0:x8=0 /\ 1:x8=0 /\ 1:x7=1"))
    assert happens(text.replace("ASKED", r"0:x8=1 /\ 1:x8=1"))


def test_a_word_that_has_its_value_again_has_been_stored_to() -> None:
    text = """RISCV ABA
{
0:x5=x; 0:x6=y;
1:x5=x; 1:x6=y;
}
 P0               | P1           ;
 lr.w x7,0(x5)    | li x7,1      ;
 fence rw,rw      | sw x7,0(x6)  ;
 lw x10,0(x6)     | fence rw,rw  ;
 fence rw,rw      | sw x7,0(x5)  ;
 li x9,2          | sw x0,0(x5)  ;
 sc.w x8,x9,0(x5) |              ;
exists (0:x7=0 /\\ 0:x8=0 /\\ x=2 /\\ 0:x10=ASKED)
"""
    assert not happens(text.replace("ASKED", "0"))
    assert happens(text.replace("ASKED", "1"))


def test_filters_leave_states_out() -> None:
    text = MP.format(*LOADS, *["nop"] * 4, r"1:x8=0")
    assert happens(text)
    assert not happens(text.replace("exists", "filter (1:x8=1)\nexists"))


@pytest.mark.parametrize(
    ("line", "reason"),
    [("lh x7,0(x5)", "mixed sizes"), ("wfi", "wfi"), ("fence.vma x1", "operands|fence|instruction")],
)
def test_what_is_not_here_is_said(line: str, reason: str) -> None:
    with pytest.raises(NotTranslatable, match=reason):
        mp(line, LOADS[1])
