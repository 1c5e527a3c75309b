"""Symmetry: two states that differ only in which of two CPUs is which are searched once.

Emerson and Sistla, "Symmetry and model checking"; Ip and Dill, "Better verification through symmetry" (both
in Formal Methods in System Design 9, 1996); with persistent sets: Emerson, Jha and Peled (TACAS 1997). There
CPU numbers have a type of their own, by which a state is renamed. Here they are in words, masks, queues,
locals and whatever a check remembers, so nothing is renamed: what swapping two CPUs of one program makes of a
state is *found out*, in pairs. At the start each CPU's state is made its counterpart's. What a state of a CPU
offers is made what its counterpart offers; if the one changes cells and answers, this is made what the other
changes and answers; and the state after the one is made the state after the other. All of it is carried out,
the counterparts too, and each pair has to agree with all others.

The argument. Let `g` be what the swap makes of things. Whatever has been learnt has its counterpart. Of each
way through what is shared (the values that were read decide answer and changes, `footprints`) it has been
seen that in every state with `g` of these values, `g` of the action answers `g` of the answer, changes `g` of
the cells to `g` of the values, and breaks the same rule or none; where the counterpart reads more, the way is
narrowed by that; if states were led along it before, CPUs are not alike. Of each edge of a CPU, that
its counterpart leads to the counterpart, tells watchers the counterpart, and breaks the same rule. So what a
state does, `g` of it does, step by step: the two are bisimilar, and what follows from one breaks the same
rules, ends and deadlocks as what follows from the other.
(That `g` is a renaming is used nowhere.) Counterparts are learnt as well and have their own, so this holds
along every sequence of swaps. If two pairs disagree, the CPUs are not alike, and the search begins anew
without that swap.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Sequence
from contextlib import suppress
from typing import Any, Final

from emulator.explore.footprints import Footprints, Path, State
from emulator.explore.learned import LearnedMachine, Snapshot
from emulator.explore.parts import CpuNode, Edge, Option
from emulator.hardware.cpu import Kind

MOST_SWAPS: Final = 15
_CALLS: Final = {"call": 3, "ack": 2}  # carriers of happens-before: CPUs are in front of this place


class NotAlike(Exception):
    """Two CPUs are not alike; or they may be, but by `names` that were not known. Search anew."""

    def __init__(self, swap: Swap, why: str, names: bool = False) -> None:
        super().__init__(f"CPUs {swap.one} and {swap.other}: {why}")
        self.swap = swap
        self.names = names


class _Unknown(Exception):
    """What the swap makes of this is not known yet."""


class _Pairs(dict[Any, Any]):
    """What a swap makes of what; swapped twice, all is as it was. `told`: pairs in the order of finding."""

    def __init__(self, swap: Swap) -> None:
        super().__init__()
        self._swap = swap
        self.told: list[tuple[Any, Any]] = []

    def pair(self, one: Hashable, other: Hashable) -> bool:
        """These two are each other's counterparts; whether that is new."""
        known = self.get(one, self)
        if known is self and other not in self:
            self[one], self[other] = other, one
            self.told.append((one, other))
            return True
        if known != other:
            raise NotAlike(self._swap, "two counterparts")
        return False


class _Image:
    """What a swap makes of one part: of its cells, of what is in them, of actions, and of answers."""

    def __init__(self, swap: Swap, footprints: Footprints) -> None:
        self._swap = swap
        self._footprints = footprints
        self.cells: list[int] = []
        self.values = _Pairs(swap)  # of (cell, number)
        self.actions: dict[int, list[int]] = {}
        self.answers: dict[tuple[int, int], _Pairs] = {}

    def grow(self) -> bool:
        """Find the counterparts of all cells there are; whether that has made new ones."""
        cells, swap = self._footprints.cells, self._swap
        before = len(cells.owners)
        while len(self.cells) < len(cells.owners):
            at = len(self.cells)
            owner = cells.owners[at]
            cells.grown.clear()
            self.cells.append(owner.cell(swap.key(owner, owner.keys_in[at])))
            self._footprints.outdate()
        return len(cells.owners) > before

    def of_state(self, state: State) -> State:
        """The counterpart of a state. _Unknown if that is not known yet."""
        found = [0] * len(self.cells)
        cells, values = self.cells, self.values
        last = -1
        for at, number in enumerate(state):
            if number:
                pair = values.get((at, number))
                if pair is None:
                    raise _Unknown
                cell = cells[at]
                found[cell] = pair[1]
                last = max(last, cell)
        return tuple(found[: last + 1])

    def put(self, cell: int, number: int, image: int) -> None:
        """This in a cell is that in its counterpart."""
        if number or image:
            if not (number and image):
                raise NotAlike(self._swap, "something is nothing")
            self.values.pair((cell, number), (self.cells[cell], image))

    def act(self, one: int, other: int) -> bool:
        """These actions are counterparts, at least in one place; whether that is new."""
        known = self.actions.setdefault(one, [])
        if other in known:
            return False
        known.append(other)
        self.answers[one, other] = self.answers[other, one] = _Pairs(self._swap)
        if one != other:
            self.actions.setdefault(other, []).append(one)
        return True

    def answer(self, one: int, other: int, answer: Any, image: Any) -> None:
        """These are their answers. Those of the one and of the other are kept apart."""
        if bool(answer) != bool(image):
            raise NotAlike(self._swap, "something is nothing")
        pairs = self.answers[one, other]
        if one == other:
            pairs.pair(answer, image)
        else:
            pairs.pair((one, answer), (other, image))

    def answered(self, one: int, other: int, answer: Any) -> Any:
        """The counterpart of an answer. _Unknown if that is not known yet."""
        pairs = self.answers[one, other]
        with suppress(KeyError):
            return pairs[answer] if one == other else pairs[one, answer][1]
        raise _Unknown


class Swap:
    """Two CPUs, and what swapping them makes of everything. `names`: of names of words, locks and lists."""

    def __init__(self, one: int, other: int, names: dict[str, str], parts: Sequence[Footprints]) -> None:
        self.one, self.other = one, other
        self.names = names
        self.nodes = _Pairs(self)
        self.images = [_Image(self, footprints) for footprints in parts]
        self._named: set[str] = set()

    def cpu(self, number: int) -> int:
        """The counterpart of a CPU."""
        return self.other if number == self.one else self.one if number == self.other else number

    def key(self, owner: Any, key: Any) -> Any:
        """Where the counterpart of what a container has under this key is to be looked for: a guess, as all
        that follows from it is tried."""
        if type(key) is str:
            self._named.add(key)
            return self.names.get(key, key)
        if type(key) is not tuple:
            return self.cpu(key) if owner.by_cpu else key
        numbered = _CALLS.get(key[0], 0) if key and type(key[0]) is str else int(owner.by_cpu)
        found = []
        for at, item in enumerate(key):
            if type(item) is str and at:
                item = self.key(owner, item)
            found.append(self.cpu(item) if at < numbered and type(item) is int else item)
        return tuple(found)

    def name(self, one: str, other: str) -> None:
        """What two CPUs call by these names are counterparts."""
        if self.names.get(one) == other:
            return
        if one in self.names or other in self.names:
            raise NotAlike(self, f"{one} is {other}, or {self.names.get(one)}")
        self.names[one], self.names[other] = other, one
        if one != other and not self._named.isdisjoint((one, other)):
            raise NotAlike(self, f"{one} is {other}", names=True)


def _name(swap: Swap, one: Any, other: Any) -> None:
    """What is asked for by one and by the other has names that are counterparts."""
    if isinstance(one, tuple) and isinstance(other, tuple) and len(one) == len(other):
        for item, its in zip(one, other, strict=True):
            _name(swap, item, its)
    elif type(one) is str and type(other) is str:
        swap.name(one, other)


class Symmetry:
    """Of one learned machine: `swaps` of CPUs that have proved alike as far as anything has been learnt."""

    def __init__(self, machine: LearnedMachine, swaps: Sequence[tuple[int, int, dict[str, str]]]) -> None:
        self._machine = machine
        machine.symmetry = self
        self.reached = set(machine.reached)  # before anything was learnt by a swap
        self._parts = (machine.sharing.footprints, machine.watching.footprints)
        self.swaps = [Swap(*one, self._parts) for one in swaps[:MOST_SWAPS]]
        self._paths: list[dict[int, list[tuple[int, Path]]]] = [{}, {}]  # with their places in the order
        self._seen_paths = [0, 0]
        self._followed = [0, 0]  # paths that states may have been led along already
        self._seen_edges = 0
        self._ahead: deque[tuple[Any, ...]] = deque()
        self._ranks: dict[CpuNode, int] = {}
        self.ranked: list[tuple[CpuNode, int]] = []
        self._judged: tuple[dict[State, str], dict[State, str]] = ({}, {})
        self._grow()
        for swap in self.swaps:
            self._begin(swap)

    def _begin(self, swap: Swap) -> None:
        machine = self._machine
        starts = machine.sharing.start.state, machine.watching.start.state
        for image, state in zip(swap.images, starts, strict=True):
            full = (*state, *[0] * (len(image.cells) - len(state)))
            for cell, number in enumerate(full):
                image.put(cell, number, full[image.cells[cell]])
        for cpu, learner in enumerate(machine.learners):
            other = machine.learners[swap.cpu(cpu)]
            swap.nodes.pair(learner.dead, other.dead)
            self._pair(swap, learner.start, other.start)

    def _grow(self) -> None:
        while any([image.grow() for swap in self.swaps for image in swap.images]):
            pass

    # --- what is learnt, and its counterparts -------------------------------------------------------------

    def close(self) -> None:
        """Find the counterparts of all that has been learnt. Raises NotAlike."""
        if not self.swaps:
            return
        put_off: list[tuple[Any, ...]] = []
        moved = True
        while moved or self._news():
            moved = False
            self._ahead.extend(put_off)
            put_off.clear()
            while self._ahead:
                one = self._ahead.popleft()
                swap = one[0]
                try:
                    self._edge(*one) if isinstance(one[1], Option) else self._path(*one)
                    moved = True
                except _Unknown:
                    put_off.append(one)
                except NotAlike:
                    raise
                except Exception as problem:
                    # What cannot be may do anything.
                    raise NotAlike(swap, repr(problem)) from problem
                self._news()
            moved = moved and bool(put_off)
        if put_off:
            raise NotAlike(put_off[0][0], "something has no counterpart")
        self._followed = list(self._seen_paths)

    def _news(self) -> bool:
        """Put what has been learnt since before what is ahead; whether that is anything."""
        before = len(self._ahead)
        for at, footprints in enumerate(self._parts):
            paths = footprints.paths
            if len(paths) == self._seen_paths[at]:
                continue
            self._grow()
            for place, path in enumerate(paths[self._seen_paths[at] :], self._seen_paths[at]):
                if path.leaf is None:
                    self._paths[at].pop(path.action, None)
                    continue
                self._paths[at].setdefault(path.action, []).append((place, path))
                for swap in self.swaps:
                    for other in swap.images[at].actions.get(path.action, ()):
                        self._ahead.append((swap, at, place, path, other))
            self._seen_paths[at] = len(paths)
        log = self._machine.log
        for option, answer, edge in log[self._seen_edges :]:
            self._ahead.extend([(swap, option, answer, edge) for swap in self.swaps])
        self._seen_edges = len(log)
        return len(self._ahead) > before

    def _act(self, swap: Swap, at: int, one: int, other: int) -> None:
        """These actions are counterparts: so are all that is known of them."""
        if swap.images[at].act(one, other):
            for action, image in {(one, other), (other, one)}:
                self._ahead.extend([(swap, at, *known, image) for known in self._paths[at].get(action, ())])

    def _path(self, swap: Swap, at: int, place: int, path: Path, other: int) -> None:
        """What a path comes to is what its counterpart comes to, in all states that it fits."""
        image, footprints = swap.images[at], self._parts[at]
        known = footprints.path(path.state, path.action)
        if known is not path and known != path:
            return  # it has been narrowed, or counts no more
        found = footprints.path(image.of_state(path.state), other)
        assert path.leaf is not None and found.leaf is not None
        (outcome, changes), (its_outcome, its_changes) = path.leaf, found.leaf
        if (outcome is None) != (its_outcome is None):
            raise NotAlike(swap, "only one is possible")
        if outcome is not None:
            self._same_rule(swap, outcome[-1], its_outcome[-1])
            if len(outcome) > 1:
                image.answer(path.action, other, outcome[0], its_outcome[0])
        self._grow()
        cells = image.cells
        puts = dict(its_changes)
        if {cells[cell] for cell, _ in changes} != puts.keys():
            raise NotAlike(swap, "other cells are changed")
        for cell, number in changes:
            image.put(cell, number, puts[cells[cell]])
        read = {cell for cell, _ in path.read}
        if more := [cells[cell] for cell, _ in found.read if cells[cell] not in read]:
            if place < self._followed[at]:
                # States have been led along it that differ in what is to be looked at now.
                raise NotAlike(swap, "more is looked at than before")
            footprints.narrow(path, more)

    def _edge(self, swap: Swap, option: Option, answer: Any, edge: Edge) -> None:
        node = option.node
        other = swap.nodes.get(node)
        if other is None:
            raise _Unknown
        its = other.options[node.options.index(option)]
        image = None if option.action < 0 else swap.images[0].answered(option.action, its.action, answer)
        found = self._machine.edge_of(its, image)
        self._same_rule(swap, edge.violation, found.violation)
        if (edge.event < 0) != (found.event < 0):
            raise NotAlike(swap, "watchers are told of one only")
        if edge.event >= 0:
            self._act(swap, 1, edge.event, found.event)
        self._pair(swap, edge.node, found.node)

    def _pair(self, swap: Swap, one: CpuNode, other: CpuNode) -> None:
        """These states of CPUs are counterparts, and what they offer."""
        if not swap.nodes.pair(one, other):
            return
        if (one.dead, one.idle, len(one.options)) != (other.dead, other.idle, len(other.options)):
            raise NotAlike(swap, "they stand elsewhere")
        for mine, its in zip(one.options, other.options, strict=True):
            operation, its_operation = mine.operation[0], its.operation[0]
            if (mine.transition.kind, mine.operation[1], type(operation), mine.action < 0) != (
                *(its.transition.kind, its.operation[1], type(its_operation)),
                its.action < 0,
            ):
                raise NotAlike(swap, "they do something else")
            if mine.cpu != its.cpu:
                _name(swap, operation, its_operation)
            if mine.action < 0:
                continue
            self._act(swap, 0, mine.action, its.action)
            if mine.transition.kind is Kind.WALK:
                fetched = one.cached[mine.transition.at], other.cached[its.transition.at]
                if None not in fetched:
                    swap.images[0].answer(mine.action, its.action, *fetched)
                elif fetched != (None, None):
                    raise NotAlike(swap, "only one has fetched")

    def _same_rule(self, swap: Swap, one: Any, other: Any) -> None:
        if (one and one.rule) != (other and other.rule):
            raise NotAlike(swap, "another rule breaks")

    # --- what is the same in all counterparts of something ------------------------------------------------

    def rank(self, node: CpuNode) -> int:
        """A number that a node has in common with its counterparts, and with no other."""
        rank = self._ranks.get(node)
        if rank is None:
            rank = len(self.ranked)
            ahead = [node]
            while ahead:
                one = ahead.pop()
                if one not in self._ranks:
                    self._ranks[one] = rank
                    self.ranked.append((one, rank))
                    ahead += [swap.nodes[one] for swap in self.swaps]
        return rank

    def judge(self, snapshot: Snapshot) -> None:
        """See to it that a last state breaks what all its counterparts break. Raises NotAlike."""
        nodes, shared, clocks = snapshot
        if all(node.idle for node in nodes):
            for at, state in enumerate((shared.state, clocks.state)):
                self.judge_part(at, state)

    def judge_part(self, at: int, state: State) -> None:
        """The same, of a part: 0 is what is shared."""
        ahead = [state] if state not in self._judged[at] else []
        while ahead:
            one = ahead.pop()
            rule = self._rule(at, one)
            for swap in self.swaps:
                image = swap.images[at].of_state(one)
                if image not in self._judged[at]:
                    ahead.append(image)
                if self._rule(at, image) != rule:
                    raise NotAlike(swap, "another rule breaks at the end")

    def _rule(self, at: int, state: State) -> str:
        judged = self._judged[at]
        if state not in judged:
            machine = self._machine
            part = machine.watching if at else machine.sharing
            broken = part.audited(state) if not at or machine.machine.drains else None
            judged[state] = broken.rule if broken is not None else ""
        return judged[state]

    # --- for the next search ------------------------------------------------------------------------------

    def is_of(self, machine: LearnedMachine) -> bool:
        """Nothing has been forgotten since."""
        return machine.sharing.footprints is self._parts[0]

    def refresh(self) -> None:
        """Somebody else may have used the machine meanwhile. Raises NotAlike."""
        self.reached |= self._machine.reached
        # What is known of states counts only as far as it has been tried.
        for shared in self._machine.sharing.nodes.values():
            shared.edges.clear()
            shared.offers.clear()
        for clocks in self._machine.watching.nodes.values():
            clocks.edges.clear()
        self._followed = [0, 0]
        self._grow()
        self.close()


def symmetry_of(machine: LearnedMachine) -> Symmetry | None:
    """That of a machine, to be searched from now on; None if no two CPUs are alike."""
    if machine.twins is None:
        machine.twins = [(one, other, {}) for one, other in machine.machine.twins()]
    while machine.twins:
        try:
            known: Symmetry | None = machine.symmetry
            if known is None or not known.is_of(machine):
                known = Symmetry(machine, machine.twins)
            known.refresh()
            return known
        except NotAlike as problem:
            apart(machine, problem)
    return None


def apart(machine: LearnedMachine, problem: NotAlike) -> None:
    """Go on without this swap, or with the names that have been found: what was learnt by it may never be."""
    swap = problem.swap
    twins = machine.twins or []
    if not problem.names:
        machine.twins = [one for one in twins if one[:2] != (swap.one, swap.other)]
    machine.relearn(machine.symmetry.reached)
    machine.symmetry = None
