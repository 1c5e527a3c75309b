"""A histogram loses nothing when it is merged or sent, and its figures are those of the recorded values."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emulator.measure.histogram import LARGEST_NS, Histogram

durations = st.lists(
    st.one_of(st.integers(0, 5_000), st.integers(0, LARGEST_NS), st.integers(0, 2**64 - 1)), max_size=60
)


def histogram_of(values: list[int]) -> Histogram:
    histogram = Histogram()
    for value in values:
        histogram.record(value)
    return histogram


@given(durations, durations)
def test_merging_is_the_same_as_recording_everything_in_one(one: list[int], other: list[int]) -> None:
    merged = histogram_of(one)
    merged.merge(histogram_of(other))
    everything = histogram_of(one + other)
    assert merged == everything
    assert merged.summary() == everything.summary()


@given(durations)
def test_what_is_sent_arrives_unchanged(values: list[int]) -> None:
    histogram = histogram_of(values)
    arrived = Histogram.decode(histogram.encode())
    assert arrived == histogram
    assert arrived.summary() == histogram.summary()
    assert arrived.powers_of_two() == histogram.powers_of_two()


@given(durations.filter(bool), durations)
def test_a_received_histogram_merges_like_a_local_one(one: list[int], other: list[int]) -> None:
    total = Histogram()
    for part in (one, other):
        total.merge(Histogram.decode(histogram_of(part).encode()))
    assert total == histogram_of(one + other)
    assert total.summary()["max"] == max(one + other)


@given(st.lists(st.integers(0, LARGEST_NS), min_size=1, max_size=60))
def test_percentiles_are_recorded_values_to_three_digits(values: list[int]) -> None:
    summary = histogram_of(values).summary()
    assert summary["count"] == len(values)
    assert summary["max"] == max(values)
    percentiles = [summary[name] for name in ("p50", "p90", "p99", "p99_9")]
    assert percentiles == sorted(percentiles, key=lambda value: value or 0)
    for percentile in percentiles:
        assert percentile is not None
        assert any(value <= percentile <= value + value // 1000 + 1 for value in values)


@given(st.lists(st.integers(0, LARGEST_NS), max_size=60))
def test_powers_of_two_are_exact(values: list[int]) -> None:
    expected: dict[int, int] = {}
    for value in values:
        expected[value.bit_length()] = expected.get(value.bit_length(), 0) + 1
    assert histogram_of(values).powers_of_two() == expected


def test_known_values_have_known_percentiles() -> None:
    summary = histogram_of(list(range(1, 1001))).summary()
    assert summary == {"count": 1000, "p50": 500, "p90": 900, "p99": 990, "p99_9": 999, "max": 1000}


def test_nothing_recorded_has_no_figures_and_no_picture() -> None:
    empty = Histogram()
    assert empty.summary() == {
        "count": 0,
        "p50": None,
        "p90": None,
        "p99": None,
        "p99_9": None,
        "max": None,
    }
    assert empty.picture() == ""
    assert Histogram.decode(empty.encode()) == empty


def test_longer_than_an_hour_counts_and_keeps_its_true_maximum() -> None:
    histogram = histogram_of([LARGEST_NS * 5])
    assert len(histogram) == 1
    assert histogram.summary()["max"] == LARGEST_NS * 5


@pytest.mark.parametrize("duration", [-1, 2**64])
def test_impossible_durations_are_refused(duration: int) -> None:
    with pytest.raises(ValueError, match="must be 0 or more"):
        Histogram().record(duration)


whole = histogram_of([1, 2, 3]).encode()


@pytest.mark.parametrize("wire", [b"", b"x", whole[:8], whole[:-3], whole[:8] + b"x" * 40, b"\0" * 60])
def test_damaged_bytes_are_refused(wire: bytes) -> None:
    with pytest.raises(ValueError, match="no encoded histogram"):
        Histogram.decode(wire)


def test_the_picture_is_bpftraces() -> None:
    histogram = histogram_of([0, 1, 1, 3] + [1500] * 8 + [5000])
    assert histogram.picture(width=8).splitlines() == [
        "[0]                     1 |@       |",
        "[1]                     2 |@@      |",
        "[2, 4)                  1 |@       |",
        "[4, 8)                  0 |        |",
        "[8, 16)                 0 |        |",
        "[16, 32)                0 |        |",
        "[32, 64)                0 |        |",
        "[64, 128)               0 |        |",
        "[128, 256)              0 |        |",
        "[256, 512)              0 |        |",
        "[512, 1K)               0 |        |",
        "[1K, 2K)                8 |@@@@@@@@|",
        "[2K, 4K)                0 |        |",
        "[4K, 8K)                1 |@       |",
    ]
    assert histogram_of([2**30, LARGEST_NS]).picture().splitlines()[-1].startswith("[2T, 4T) ")
