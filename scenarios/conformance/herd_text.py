"""A litmus test as herd writes it: name, what is there at the start, the threads' text, and the question.

The threads' text is read by the language that the first line names. Addresses are numbers: word number n
lies at `(n + 1) * SPACING`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from scenarios.conformance.code import NotTranslatable, Thread

if TYPE_CHECKING:
    from lark import Lark

SPACING: Final = 0x10000
_COMMENT: Final = re.compile(r"\(\*.*?\*\)", re.DOTALL)
_HEAD: Final = re.compile(r"\s*(\w+)\s+([^\s]+)[^\n]*\n")
# All before the first brace that is in no comment, then what is in the braces.
_BEGINNING: Final = re.compile(r"(?:\(\*.*?\*\)|[^{(]|\((?!\*))*\{((?:\(\*.*?\*\)|[^}])*)\}", re.DOTALL)
_ASKED: Final = re.compile(r"^\s*(?:locations\b|filter\b|exists\b|forall\b|~\s*exists\b)", re.MULTILINE)
_RESULT: Final = re.compile(r"Result:\s*(Never|Sometimes|Always)")
_INITIAL: Final = re.compile(
    r"(?:(?:const\s+)?(?:volatile\s+)?[A-Za-z_]\w*\s+)?\**\s*"
    r"(?:(?P<thread>\d+):)?\[?(?P<name>[A-Za-z_]\w*)\]?"
    r"(?:\s*=\s*(?P<value>-?\d\w*|&?\s*[A-Za-z_]\w*))?"
)

Place = tuple[int, str]
"""A register of a thread, or a word: thread -1."""
State = Mapping[Place, int]
"""What places hold at the end."""
Proposition = Callable[[State], bool]


class Condition(NamedTuple):
    """The question: `quantifier` is exists, ~exists or forall. `text` as it is printed."""

    quantifier: str
    holds: Proposition
    text: str


class Translation(NamedTuple):
    """Of a test whose addresses are translated: its threads' lines, and by thread their flags (as of
    `hardware/descriptors.py`) and what exceptions lead to (as of `code.Pages`). `homes`: where words lie
    physically; `descriptors`: by page what its descriptor is at the start; `names`: of pages;
    `kinds`: of faults, if it asks for one.
    """

    threads: tuple[Thread, ...]
    flags: tuple[int, ...]
    after: tuple[Mapping[int, str], ...]
    again: bool
    homes: Mapping[str, int]
    descriptors: Mapping[int, int]
    names: Mapping[int, str]
    kinds: tuple[str, ...] = ()


class HerdTest(NamedTuple):
    """One test. `registers` at the start by thread; `words` by name; `addresses` of all words that are named.

    `places` are those that the question is about, in the order that herd prints them. `declared`: the verdict
    that its own comment gives, if it does. `translation`: how its addresses are translated, where they are.
    """

    language: str
    name: str
    threads: str
    registers: Mapping[int, Mapping[str, int]]
    words: Mapping[str, int]
    addresses: Mapping[str, int]
    filter: Proposition | None
    condition: Condition
    places: tuple[Place, ...]
    declared: str
    translation: Translation | None = None


@cache
def grammar(name: str) -> Lark:
    """The parser of a grammar that lies here."""
    from lark import Lark

    return Lark(
        files("scenarios.conformance").joinpath(name).read_text(), parser="lalr", maybe_placeholders=False
    )


class Parts(NamedTuple):
    """A test's text cut up. `options`: what stands between the first line and the first brace; `asks`: all
    from the question on. Comments are gone from `start` and `asks`."""

    language: str
    name: str
    options: str
    start: str
    threads: str
    asks: str
    declared: str


def cut(text: str) -> Parts:
    """The text's parts. ValueError where it is no litmus test."""
    declared = _RESULT.search(text)
    head = _HEAD.match(text)
    # Comments, up to the end of what is there at the start: in C "(*" begins none.
    begins = _BEGINNING.match(text, head.end()) if head else None
    if head is None or begins is None:
        raise ValueError(
            "no litmus test: a first line such as 'RISCV NAME', then { what is there at the start }"
        )
    rest = text[begins.end() :]
    asked = [*_ASKED.finditer(rest)]
    if not asked:
        raise ValueError("no litmus test: it asks nothing; exists, ~exists or forall")
    return Parts(
        head[1],
        head[2],
        text[head.end() : begins.start(1) - 1],
        without_comments(begins[1]),
        rest[: asked[0].start()],
        without_comments(rest[asked[0].start() :]),
        declared[1] if declared else "",
    )


def without_comments(text: str) -> str:
    """The text with a space for each (* comment *)."""
    return _COMMENT.sub(" ", text)


def read(text: str) -> HerdTest:
    """The test that the text is. Raises NotTranslatable, and ValueError where it is no litmus test."""
    parts = cut(text)
    start = [*_initial(parts.start)]
    tree = parsed(parts.asks)
    names = [name for thread, name, value in start if thread < 0]
    names += [value for _, _, value in start if isinstance(value, str)]
    question = Question()
    chosen, condition = question.all_of(tree)
    names += question.words
    names += _parameters(parts.threads) if parts.language == "C" else []
    registers: dict[int, dict[str, int]] = {}
    # A name that only the threads' registers hold in conditions is an address as well.
    addresses = {name: (at + 1) * SPACING for at, name in enumerate(dict.fromkeys(names))}
    question.addresses = addresses
    words: dict[str, int] = {}
    for thread, name, value in start:
        number = addresses[value] if isinstance(value, str) else value
        if thread < 0:
            words[name] = number
        else:
            registers.setdefault(thread, {})[name] = number
    return HerdTest(
        parts.language,
        parts.name,
        parts.threads,
        registers,
        words,
        addresses,
        chosen,
        condition,
        tuple(sorted(question.places)),
        parts.declared,
    )


def _parameters(threads: str) -> list[str]:
    """Names of C functions' parameters: words, though nothing else may name them."""
    found = []
    for parameters in re.findall(r"\bP\d+\s*\(([^)]*)\)", threads):
        # One without a name (`int *`) is for the reader of C to refuse.
        found += [name for one in parameters.split(",") for name in one.split("*")[-1].split()[-1:]]
    return found


def _initial(text: str) -> Iterator[tuple[int, str, int | str]]:
    """Thread or -1, name, and a number or the name whose address it is."""
    for part in re.sub(r"//[^\n]*", "", text).split(";"):
        part = part.strip()
        if not part:
            continue
        found = _INITIAL.fullmatch(part)
        if found is None:
            raise NotTranslatable("an initial state of arrays or other types")
        value = found["value"] or "0"
        named = value.lstrip("& ")
        thread = int(found["thread"]) if found["thread"] else -1
        yield thread, found["name"], named if named[0].isalpha() or named[0] == "_" else int(value, 0)


def parsed(tail: str) -> Any:
    """The question's tree. Raises NotTranslatable."""
    from lark.exceptions import LarkError

    try:
        return grammar("herd.lark").parse(re.sub(r"~\s*exists", "~exists", tail))
    except LarkError:
        raise NotTranslatable("a question in another form") from None


class Question:
    """Turns a tree of `herd.lark` into functions of a final state, and notes what they look at."""

    def __init__(self) -> None:
        self.places: set[Place] = set()
        self.words: list[str] = []
        self.addresses: Mapping[str, int] = {}

    def all_of(self, tree: Any) -> tuple[Proposition | None, Condition]:
        """The filter if there is one, and the condition."""
        chosen = None
        for part in tree.children:
            if part.data == "locations":
                for place in part.children:
                    self._place(place)
            elif part.data == "filter":
                chosen = self._proposition(part.children[0])
            else:
                quantifier, proposition = part.children
                holds = self._proposition(proposition)
                condition = Condition(str(quantifier), holds, f"{quantifier} ({_written(proposition)})")
        return chosen, condition

    def _place(self, tree: Any) -> Place:
        tree = tree.children[0] if tree.data == "place" else tree
        *thread, name = tree.children
        place = (int(thread[0]) if thread else -1, str(name))
        if not thread:
            self.words.append(str(name))
        self.places.add(place)
        return place

    def _value(self, tree: Any) -> Callable[[State], int]:
        if tree.data == "number":
            number = int(tree.children[0], 0)
            return lambda state: number
        if tree.data == "address":
            name = str(tree.children[0])
            self.words.append(name)
            return lambda state: self.addresses[name]
        place = self._place(tree.children[0])
        return lambda state: state[place]

    def _proposition(self, tree: Any) -> Proposition:
        if tree.data in ("true", "false"):
            answer = tree.data == "true"
            return lambda state: answer
        if tree.data in ("equals", "differs"):
            place, value = self._place(tree.children[0]), self._value(tree.children[-1])
            equal = tree.data == "equals"
            return lambda state: (state[place] == value(state)) is equal
        parts = [self._proposition(child) for child in tree.children]
        if tree.data == "negated":
            return lambda state: not parts[0](state)
        if tree.data == "both":
            return lambda state: parts[0](state) and parts[1](state)
        if tree.data == "either":
            return lambda state: parts[0](state) or parts[1](state)
        return lambda state: not parts[0](state) or parts[1](state)


def _written(tree: Any) -> str:
    """As herd writes a condition."""
    if isinstance(tree, str):
        return "=" if tree == "==" else str(tree)
    parts = [_written(child) for child in tree.children]
    signs = {"both": r" /\ ", "either": r" \/ ", "implies": " => ", "register": ":"}
    if tree.data in ("both", "either", "implies"):
        parts = [
            f"({part})" if child.data == "either" else part
            for part, child in zip(parts, tree.children, strict=True)
        ]
    return (
        f"not ({parts[0]})" if tree.data == "negated" else signs.get(tree.data, "").join(parts) or tree.data
    )


def printed(places: Iterable[Place], state: State, addresses: Mapping[str, int]) -> str:
    """A final state in herd's way: `0:x5=1; [x]=2;`."""
    names = {address: name for name, address in addresses.items()}
    parts = []
    for thread, name in places:
        value = state[thread, name]
        what = f"{thread}:{name}" if thread >= 0 else f"[{name}]"
        parts.append(f"{what}={names.get(value, value)};")
    return " ".join(parts)
