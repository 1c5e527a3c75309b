"""The lock-less list does what a plain list does that is filled at the front and emptied at once."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emulator.memory.llist import LockLessList

# An int is added alone, a list as a batch, None takes everything.
steps = st.lists(st.one_of(st.integers(), st.lists(st.integers(), min_size=1, max_size=5), st.none()))


@given(steps)
def test_behaves_like_a_plain_list(todo: list[int | list[int] | None]) -> None:
    llist: LockLessList[int] = LockLessList()
    model: list[int] = []
    for step in todo:
        if step is None:
            assert llist.del_all() == tuple(model)
            model = []
        elif isinstance(step, list):
            assert llist.add_batch(step) == (not model)
            model = step + model
        else:
            assert llist.add(step) == (not model)
            model = [step, *model]
        assert llist.state() == tuple(model)
        assert len(llist) == len(model)
        assert llist.empty() == (not model)


@given(st.lists(st.integers()), st.lists(st.integers(), min_size=1))
def test_a_batch_is_its_nodes_added_last_to_first(before: list[int], batch: list[int]) -> None:
    at_once: LockLessList[int] = LockLessList()
    one_by_one: LockLessList[int] = LockLessList()
    for node in before:
        at_once.add(node)
        one_by_one.add(node)
    was_empty = at_once.add_batch(batch)
    first_of_them, *_ = [one_by_one.add(node) for node in reversed(batch)]
    assert at_once.state() == one_by_one.state()
    assert was_empty == first_of_them


@given(st.lists(st.one_of(st.integers(), st.none())))
def test_exactly_one_adder_per_emptying_is_told_to_start_work(todo: list[int | None]) -> None:
    llist: LockLessList[int] = LockLessList()
    starts = takes_of_something = 0
    for step in [*todo, None]:
        if step is None:
            takes_of_something += bool(llist.del_all())
        else:
            starts += llist.add(step)
    assert starts == takes_of_something


def test_what_was_taken_does_not_change_afterwards() -> None:
    llist: LockLessList[str] = LockLessList()
    batch = ["b", "a"]
    llist.add_batch(batch)
    batch.append("not in the list")
    taken = llist.del_all()
    llist.add("c")
    assert taken == ("b", "a")
    assert llist.state() == ("c",)


def test_state_tells_the_order_of_arrival() -> None:
    one: LockLessList[int] = LockLessList()
    other: LockLessList[int] = LockLessList()
    one.add_batch([1, 2])
    other.add_batch([2, 1])
    assert one.state() != other.state()


def test_an_empty_batch_is_refused_and_changes_nothing() -> None:
    llist: LockLessList[int] = LockLessList()
    llist.add(1)
    with pytest.raises(ValueError, match=r"^llist: add_batch of no nodes, must be at least one$"):
        llist.add_batch([])
    assert llist.state() == (1,)
