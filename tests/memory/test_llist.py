"""The lock-less list does what a plain list does that is filled at the front and emptied at once."""

from hypothesis import given
from hypothesis import strategies as st

from emulator.memory.llist import LockLessList

# An int is added, None takes everything.
steps = st.lists(st.one_of(st.integers(), st.none()))


@given(steps)
def test_behaves_like_a_plain_list(todo: list[int | None]) -> None:
    llist: LockLessList[int] = LockLessList()
    model: list[int] = []
    for step in todo:
        if step is None:
            assert llist.del_all() == tuple(model)
            model = []
        else:
            assert llist.add(step) == (not model)
            model = [step, *model]
        assert llist.state() == tuple(model)
        assert len(llist) == len(model)
        assert llist.empty() == (not model)


@given(steps)
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
    llist.add("a")
    llist.add("b")
    taken = llist.del_all()
    llist.add("c")
    assert taken == ("b", "a")
    assert llist.state() == ("c",)


def test_state_tells_the_order_of_arrival() -> None:
    one: LockLessList[int] = LockLessList()
    other: LockLessList[int] = LockLessList()
    one.add(1)
    one.add(2)
    other.add(2)
    other.add(1)
    assert one.state() != other.state()


def test_a_list_is_made_from_what_it_was() -> None:
    assert LockLessList((3, 2, 1)).state() == (3, 2, 1)
