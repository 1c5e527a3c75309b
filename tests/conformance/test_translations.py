"""What orders translations on arm64: each a test that is forbidden, and one like it that is allowed."""

from __future__ import annotations

import pytest

from emulator.hardware.ordering import ARCHITECTURES
from scenarios.conformance.code import NotTranslatable
from scenarios.conformance.isla_text import read_isla
from scenarios.conformance.judgement import explored
from scenarios.conformance.vmsa_text import read_vmsa

UNMAP = """AArch64 UNMAP
{OPTIONS}
{{
0:X0=(oa:PA(p),valid:0); 0:X1=PTE(p); 0:X3=p; 0:X7=flag;
1:X3=p; 1:X7=flag;
}}
 P0                 | P1  ;
 LSR X4,X3,#12      | {0} ;
 STR X0,[X1]        | {1} ;
 DSB {DOMAIN}       | {2} ;
 TLBI {TLBI}        | {3} ;
 {COMPLETES}        | {4} ;
 MOV X6,#1          | {5} ;
 STR X6,[X7]        | {6} ;
exists ({ASKS})
"""
SEEN = r"1:X2=1 /\ ~fault(P1:G,p)"


def happens(text: str, ets2: bool = False) -> bool:
    outcome = explored(read_vmsa(text, ets2), ARCHITECTURES["arm64"], lambda: False)
    assert outcome is not None
    return outcome.happens


def unmap(*reader: str, tlbi: str = "VALE1IS,X4", completes: str = "DSB ISH", options: str = "") -> bool:
    lines = [*reader, *["NOP"] * (7 - len(reader))]
    return happens(
        UNMAP.format(*lines, OPTIONS=options, DOMAIN="ISH", TLBI=tlbi, COMPLETES=completes, ASKS=SEEN)
    )


READER = ("LDR X2,[X7]", "DSB ISH", "ISB", "G: LDR X5,[X3]")


def test_who_has_seen_the_flag_does_not_get_through() -> None:
    assert not unmap(*READER)


@pytest.mark.parametrize("without", ["the TLBI's DSB", "the TLBI", "everybody else's TLB"])
def test_every_part_of_the_sequence_is_needed(without: str) -> None:
    if without == "the TLBI's DSB":
        assert unmap(*READER, completes="DMB ISH")
    elif without == "the TLBI":
        assert unmap(*READER, tlbi="VALE1IS,X6")
    else:
        assert unmap(*READER, tlbi="VALE1,X4")


def test_a_dsb_waits_for_what_was_translated_before() -> None:
    assert not unmap("LDR X2,[X7]", "DMB LD", "G: LDR X5,[X3]")
    assert unmap("LDR X2,[X7]", "G: LDR X5,[X3]")


def test_all_pages_at_once() -> None:
    assert not unmap(*READER, tlbi="VMALLE1IS")


MAP = """AArch64 MAP
{OPTIONS}
{{
[PTE(p)]=(oa:PA(p),valid:0);
0:X0=(oa:PA(p)); 0:X1=PTE(p); 0:X3=p;
}}
 P0          ;
 STR X0,[X1] ;
 {0}         ;
 {1}         ;
 G: LDR X2,[X3] ;
exists (fault(P0:G,p{KIND}))
"""


def mapped(*lines: str, ets2: bool = False, kind: str = "") -> bool:
    text = MAP.format(*lines, *["NOP"] * (2 - len(lines)), OPTIONS="", KIND=kind)
    return happens(text, ets2)


def test_walks_are_held_by_a_dsb_and_an_isb_together() -> None:
    assert mapped() and mapped("DMB SY") and mapped("DSB SY") and mapped("ISB")
    assert not mapped("DSB SY", "ISB")


def test_with_feat_ets2_a_fault_comes_after_what_is_older() -> None:
    assert not mapped("DSB SY", ets2=True)


def test_kinds_of_faults_are_told_apart() -> None:
    assert mapped(kind=",MMU:Translation") and not mapped(kind=",MMU:Permission")


def test_a_fault_is_tried_again_where_it_is_handled() -> None:
    text = MAP.format("NOP", "NOP", OPTIONS="Variant=handled", KIND="")
    assert happens(text)
    assert not happens(text.replace("exists (", r"exists (0:X2=7 /\ "))
    assert happens(text.replace("{\n", "{\np=7;\n", 1).replace("exists (", r"exists (0:X2=7 /\ "))


def test_isla_says_the_same_in_its_own_words() -> None:
    text = """arch = "AArch64"
name = "CoWTf.inv"
symbolic = ["p", "q"]
page_table_setup = '''
    physical f;
    p |-> invalid;
    p ?-> f;
    q |-> f;
    *f = 1;
'''
[thread.0]
code = '''
    STR X0,[X1]
    BARRIERS
    LDR X2,[X3]
'''
[thread.0.reset]
R0 = "desc3(q, page_table_base)"
R1 = "pte3(p, page_table_base)"
R3 = "p"
VBAR_EL1 = "extz(0x1000, 64)"
"PSTATE.EL" = "0b00"
[section.handler]
address = "0x1400"
code = '''
    MOV X2,#0
    MRS X9,ELR_EL1
    ADD X9,X9,#4
    MSR ELR_EL1,X9
    ERET
'''
[final]
assertion = "0:X2 = 0"
"""

    def answer(barriers: str) -> bool:
        test = read_isla(text.replace("BARRIERS", barriers))
        outcome = explored(test, ARCHITECTURES["arm64"], lambda: False)
        assert outcome is not None
        return outcome.happens

    assert answer("NOP") and not answer("DSB SY\n    ISB")


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("LDR X2,[X3]", "LDRB W2,[X3]", "the instruction LDRB"),
        ("(oa:PA(p))", "(oa:PA(p),attrs:0)", "descriptors with attrs"),
        ("[PTE(p)]", "q[2]", "an initial state of arrays or other types"),
        ("STR X0", "TLBI ASIDE1IS,X3; STR X0", "TLBI ASIDE1IS"),
        (",p))", ",p,MMU:Odd))", "faults of the kind Odd"),
    ],
)
def test_what_is_not_translatable_says_why(old: str, new: str, reason: str) -> None:
    text = MAP.format("NOP", "NOP", OPTIONS="", KIND="")
    assert old in text
    with pytest.raises(NotTranslatable) as raised:
        explored(read_vmsa(text.replace(old, new)), ARCHITECTURES["arm64"], lambda: False)
    assert str(raised.value) == reason


def test_with_feat_ets2_a_fault_of_permission_stays_where_it_is() -> None:
    text = """AArch64 F
{
[PTE(p)]=(oa:PA(p),START);
0:X0=(oa:PA(p)); 0:X1=PTE(p); 0:X3=p; 0:X5=flag;
1:X3=p; 1:X5=flag;
}
 P0             | P1             ;
 LSR X4,X3,#12  | MOV X2,#1      ;
 STR X0,[X1]    | STR X2,[X5]    ;
 DSB ISH        | G: STR X2,[X3] ;
 TLBI VAE1IS,X4 |                ;
 DSB ISH        |                ;
 LDR X7,[X5]    |                ;
exists (0:X7=0 /\\ fault(P1:G,p))
"""
    denied, unmapped = text.replace("START", "db:0"), text.replace("START", "valid:0")
    assert happens(denied) and happens(denied, ets2=True)
    assert happens(unmapped) and not happens(unmapped, ets2=True)
