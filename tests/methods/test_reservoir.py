"""A learning set is the same however the stream is cut, and every spectrum of a stratum has the same chance."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from phidias_lab.errors import InputError
from phidias_lab.methods import reservoir
from phidias_lab.methods.reservoir import Reservoir, keys

STRATA = 3


def granule(number, lines, rows=7):
    """Line, row, stratum and spectrum of each pixel of a granule."""
    random = np.random.default_rng(number)
    line, row = (part.ravel() for part in np.indices((lines, rows)))
    stratum = random.integers(-1, STRATA, line.size)
    spectra = np.column_stack([np.full(line.size, number), line, row, stratum]).astype(np.float32)
    return line, row, stratum, spectra


def same(one, other):
    assert one.keys() == other.keys()
    for name in one:
        assert np.array_equal(one[name], other[name]), name


cuts = st.lists(st.lists(st.integers(1, 40), min_size=1, max_size=3), min_size=1, max_size=5)


@settings(max_examples=60, deadline=None)
@given(cuts, st.lists(st.integers(0, 40), min_size=3, max_size=3), st.integers(1, 4), st.randoms(), st.booleans())
def test_parts_in_any_order_merged_in_any_order_are_the_whole(blocks, shares, workers, random, resumed):
    shares[0] += 1
    whole = Reservoir(shares, seed=5)
    pieces = []
    for g, lengths in enumerate(blocks):
        line, row, stratum, spectra = granule(g, sum(lengths))
        whole.add(f"g{g}", line, row, stratum, spectra)
        ends = np.r_[0, np.cumsum(lengths)] * 7
        for a, b in pairwise(ends):
            pieces.append((f"g{g}", *(part[a:b] for part in (line, row, stratum, spectra))))
    random.shuffle(pieces)
    parts = [Reservoir(shares, seed=5) for _ in range(workers)]
    for piece in pieces:
        at = random.randrange(workers)
        parts[at].add(*piece)
        if resumed:
            parts[at] = Reservoir.of(parts[at].state())
    random.shuffle(parts)
    for part in parts[1:]:
        parts[0].merge(part)
    same(whole.state(), parts[0].state())


def test_the_values_kept_are_those_of_their_pixels():
    drawn = Reservoir([50, 60, 70])
    for g in range(30):
        drawn.add(f"g{g}", *granule(g, 100))
    kept = drawn.kept()
    expected = np.column_stack([[int(name[1:]) for name in kept.granule], kept.line, kept.row, kept.stratum])
    assert len(kept.values) == 180
    assert np.array_equal(kept.values, expected)


def test_room_for_values_does_not_grow(monkeypatch):
    drawn = Reservoir([20, 20, 20])
    drawn._portion, drawn._free = 10, np.arange(70)
    for g in range(200):
        drawn.add(f"g{g}", *granule(g, 20))
    assert drawn.values.shape == (70, 4)
    assert np.array_equal(drawn.kept().values[:, 1], drawn.kept().line)


def test_a_granule_that_comes_twice_changes_nothing_in_what_is_kept():
    once, twice = Reservoir([10, 10, 10]), Reservoir([10, 10, 10])
    for g in range(4):
        once.add(f"g{g}", *granule(g, 20))
    for g in (0, 1, 1, 2, 3, 0):
        twice.add(f"g{g}", *granule(g, 20))
    for one, other in zip(once.kept()[:5], twice.kept()[:5], strict=True):
        assert np.array_equal(one, other)


def test_another_seed_draws_another_set():
    sets = []
    for seed in (0, 1):
        drawn = Reservoir([200], seed)
        drawn.add("g", *np.divmod(np.arange(20_000), 100), np.zeros(20_000, int))
        kept = drawn.kept()
        sets.append(set((kept.line * 100 + kept.row).tolist()))
    assert len(sets[0] & sets[1]) < 20  # 2 are expected by chance


def test_each_pixel_of_a_stratum_has_the_same_chance():
    # Counts of lines, of rows and of granules in the set against equal ones.
    drawn = Reservoir([3000, 3000], seed=2)
    for g in range(20):
        line, row = (part.ravel() for part in np.indices((50, 100)))
        drawn.add(f"g{g}", line, row, row % 2)
    kept = drawn.kept()
    names = np.unique(kept.granule.astype(str), return_inverse=True)[1]
    for counts in (np.bincount(kept.line), np.bincount(kept.row), np.bincount(names)):
        assert stats.chisquare(counts).pvalue > 1e-3


def test_random_numbers_are_uniform_and_do_not_follow_each_other():
    # The numbers stay as they are: sets drawn years apart must fit together.
    line, row = (part.ravel() for part in np.indices((400, 215)))
    random = keys(7, "a", line, row) / 2.0**64
    assert stats.kstest(random, "uniform").pvalue > 1e-3
    assert np.unique(random).size == random.size
    image = random.reshape(400, 215)
    for one, other in ((image[1:], image[:-1]), (image[:, 1:], image[:, :-1])):
        assert abs(np.corrcoef(one.ravel(), other.ravel())[0, 1]) < 4 / np.sqrt(random.size)
    other = keys(7, "b", line, row) / 2.0**64
    assert abs(np.corrcoef(random, other)[0, 1]) < 4 / np.sqrt(random.size)
    assert keys(7, "a", np.array([1]), np.array([2])).tolist() == [18349244716616389396]


def test_coverage_tells_what_came_and_what_is_kept():
    drawn = Reservoir([10, 10, 0])
    drawn.add(
        "g", np.arange(100), np.zeros(100, int), np.r_[np.zeros(4, int), np.ones(90, int), [2, 2, -1, -1, -1, -1]]
    )
    assert drawn.coverage(["sea", "land", "ice"]) == [("sea", 4, 4, 10), ("land", 90, 10, 10), ("ice", 2, 0, 0)]
    weight = drawn.kept().weight
    assert weight.tolist() == [1.0] * 4 + [9.0] * 10


def test_only_the_spectra_that_may_stay_are_read():
    class Read:
        shape, dtype, rows = (100_000, 2), np.float32, 0

        def __getitem__(self, rows):
            self.rows += len(rows)
            return np.zeros((len(rows), 2), np.float32)

    spectra = Read()
    drawn = Reservoir([100])
    for g in range(20):
        drawn.add(f"g{g}", *np.divmod(np.arange(100_000), 100), np.zeros(100_000, int), spectra)
        drawn.kept()
    # The expected number is 100 000 of the first granule and 100 / g of granule g.
    assert spectra.rows < 100_500


def test_what_does_not_fit_together_is_refused():
    with pytest.raises(InputError, match="needs the number of items"):
        Reservoir([0, 0])
    with pytest.raises(InputError, match="different seeds or shares"):
        Reservoir([5]).merge(Reservoir([5], seed=1))
    drawn = Reservoir([5])
    drawn.add("a", np.arange(3), np.arange(3), np.zeros(3, int))
    with pytest.raises(InputError, match="Give all of them, or none"):
        drawn.add("b", np.arange(3), np.arange(3), np.zeros(3, int), np.zeros((3, 2)))
    assert reservoir.Coverage._fields == ("stratum", "seen", "kept", "share")
