import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from etl.reports.axes import axis_over, log_ticks, number_as_text, numbers_as_text, tick_labels, ticks


@pytest.mark.parametrize("low, high, expected", [
    (0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1]),
    (0.13, 0.87, [0, 0.2, 0.4, 0.6, 0.8, 1]),
    (2.1, 10.9, [2, 4, 6, 8, 10, 12]),
    (0, 512, [0, 100, 200, 300, 400, 500, 600]),
    (-3, 3, [-3, -2, -1, 0, 1, 2, 3]),
    (0, 0.3, [0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3]),
])
def test_ticks(low, high, expected):
    assert ticks(low, high) == expected


numbers = st.floats(-1e300, 1e300)


@given(numbers, numbers)
def test_ticks_are_round_even_and_enclose_the_range(low, high):
    assume(high - low > 1e-9 * max(abs(low), abs(high)) and high - low > 1e-290)
    marks = ticks(low, high)
    step = (marks[-1] - marks[0]) / (len(marks) - 1)
    assert 3 <= len(marks) <= 8
    assert marks[0] <= low + 1e-5 * step and high - 1e-5 * step <= marks[-1]
    assert all(b - a == pytest.approx(step, rel=1e-3) for a, b in zip(marks, marks[1:]))
    digit = step / 10.0 ** math.floor(math.log10(step * 1.001))
    assert min(abs(digit - wanted) for wanted in (1, 2, 5)) < 1e-2


@pytest.mark.parametrize("low, high, expected", [
    (0.1, 100, [0.1, 1, 10, 100]),
    (3, 70, [2, 5, 10, 20, 50, 100]),
    (2.1, 2.9, [2.0, 2.2, 2.4, 2.6, 2.8, 3.0]),
    (1e-9, 1e3, [1e-9, 1e-7, 1e-5, 1e-3, 0.1, 10, 1000]),
])
def test_log_ticks(low, high, expected):
    assert log_ticks(low, high) == expected


@given(st.floats(1e-290, 1e290), st.floats(1 + 1e-8, 1e10))
def test_log_ticks_are_positive_and_enclose_the_range(low, ratio):
    marks = log_ticks(low, low * ratio)
    assert 2 <= len(marks) <= 9 and marks == sorted(set(marks)) and marks[0] > 0
    assert marks[0] <= low * (1 + 1e-6) and low * ratio <= marks[-1] * (1 + 1e-6)


@pytest.mark.parametrize("marks, expected", [
    ([0, 0.5, 1.0], ["0", "0.5", "1.0"]),
    ([0, 500000, 1000000], ["0", "0.5M", "1.0M"]),
    ([0, 20000, 40000], ["0", "20k", "40k"]),
    ([0, 2e9], ["0", "2G"]),
    ([0, 0.0005, 0.001], ["0", "0.0005", "0.0010"]),
    ([0, 2e-5, 4e-5], ["0", "2×10⁻⁵", "4×10⁻⁵"]),
    ([1e13], ["1×10¹³"]),
    ([-1, 0, 1], ["−1", "0", "1"]),
    ([], []),
])
def test_tick_labels(marks, expected):
    assert tick_labels(marks) == expected


@pytest.mark.parametrize("values, expected", [
    ([12, 1201, None], ["12", "1,201", ""]),
    ([9.21, 7.0312, 6.5], ["9.210", "7.031", "6.500"]),
    ([2, 2.5], ["2.0", "2.5"]),
    ([0.5, 0.25], ["0.50", "0.25"]),
    ([1234.56, 2.5], ["1,235", "2"]),
    ([12345.6, 0.5], ["12,346", "0.5"]),
    ([1e-5, 2.25e-5], ["1.00×10⁻⁵", "2.25×10⁻⁵"]),
    ([np.float32(0.5), np.int64(3)], ["0.5", "3.0"]),
    ([math.nan, math.inf, 1.5], ["nan", "inf", "1.5"]),
    ([math.nan, -2e-5, None], ["nan", "-2×10⁻⁵", ""]),
    ([1.5e20], ["1.5×10²⁰"]),
    ([0.0], ["0"]),
    ([5e-324], ["0"]),
    ([], []),
])
def test_numbers_of_a_column(values, expected):
    assert numbers_as_text(values) == expected


@pytest.mark.parametrize("value, expected", [
    (0.1, "0.1"), (0.60981, "0.6098"), (2.153421, "2.153"), (51200000, "51,200,000"), (1834.4, "1,834"),
    (1.2e-5, "1.2×10⁻⁵")])
def test_one_number(value, expected):
    assert number_as_text(value) == expected


def test_axis_over_places_values():
    axis = axis_over([0, 100])
    assert (axis.low, axis.high, axis.place(25)) == (0, 100, 0.25)
    log = axis_over([1, 100], log=True)
    assert log.place(10) == pytest.approx(0.5)


def test_tight_axis_ends_at_the_values():
    axis = axis_over([130, 870], tight=True)
    assert (axis.low, axis.high) == (130, 870) and axis.ticks == [200, 400, 600, 800]


def test_whole_axis_has_no_ticks_between_integers():
    assert axis_over([1, 3], tight=True, whole=True).ticks == [1, 2, 3]


@pytest.mark.parametrize("values", [[], [0], [5], [1e-5], [-2, -2], [1e16, 1e16 + 2], [5e-324]])
def test_axis_over_one_value_has_room(values):
    axis = axis_over(values)
    assert axis.low < axis.high and all(0 <= axis.place(value) <= 1 for value in values)


def test_axis_over_zeros_begins_at_zero():
    assert axis_over([0, 0], whole=True).ticks == [0, 1]
