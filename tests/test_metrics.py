"""Statistics beside the figures: Wilson intervals, percentiles, figures that are no numbers."""

import math
import random

import numpy
import pytest

from stages.common.metrics import finite_or_none, percentile, wilson_interval


def test_wilson_interval_of_a_textbook_sample():
    # 81 of 263: Newcombe, Statistics in Medicine 17 (1998) 857-872, table I, method 3
    low, high = wilson_interval(81, 263)
    assert (round(low, 4), round(high, 4)) == (0.2553, 0.3662)


def test_wilson_interval_touches_the_ends_exactly_and_never_leaves_them():
    assert wilson_interval(0, 20)[0] == 0.0
    assert wilson_interval(20, 20)[1] == 1.0
    assert 0 < wilson_interval(0, 20)[1] < 0.2
    assert 0.8 < wilson_interval(20, 20)[0] < 1


def test_wilson_interval_of_no_trials_excludes_nothing():
    assert wilson_interval(0, 0) == (0.0, 1.0)


def test_wilson_interval_narrows_with_the_sample():
    small = wilson_interval(9, 10)
    large = wilson_interval(900, 1000)
    assert large[1] - large[0] < (small[1] - small[0]) / 5


@pytest.mark.parametrize(("successes", "total"), [(2, 1), (-1, 3)])
def test_an_impossible_count_is_refused(successes: int, total: int):
    with pytest.raises(ValueError, match="successes of"):
        wilson_interval(successes, total)


@pytest.mark.parametrize("percent", [0, 5, 50, 95, 99.9, 100])
def test_percentile_agrees_with_numpy(percent: float):
    values = [random.Random(7).expovariate(1) for _ in range(101)]
    assert percentile(values, percent) == pytest.approx(numpy.percentile(values, percent))


def test_a_percentile_of_nothing_is_refused():
    with pytest.raises(ValueError, match="no values"):
        percentile([], 50)


def test_a_figure_that_is_no_number_becomes_null():
    assert finite_or_none(1.5) == 1.5
    assert [finite_or_none(value) for value in (math.nan, math.inf, -math.inf)] == [None, None, None]
