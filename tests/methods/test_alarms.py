"""Clean pixels alarm as often as was asked for, whatever their scores look like, and what is learnt can be merged."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize, stats

from phidias_lab.errors import InputError
from phidias_lab.methods import alarms
from phidias_lab.methods.alarms import (
    Gumbel,
    Scores,
    calibrate,
    combined,
    generalised_pareto,
    jackson_mudholkar,
)

LAWS = {
    "Gaussian": stats.norm(),
    "heavy-tailed": stats.t(4),
    "skewed": stats.lognorm(0.6),
    "root of chi-square": stats.chi(4),
}


def learnt(laws, number, seed=0):
    """Scores of one stratum for each law."""
    random = np.random.default_rng(seed)
    scores = Scores(len(laws))
    for s, law in enumerate(laws):
        scores.add(law.rvs(number, random_state=random), np.full(number, s))
    return scores


def moved(law, s):
    """The law of stratum s, with a place and a scale of its own."""
    return type(law.dist)()(*law.args, loc=3 * s - 10, scale=1.6**s)


# The rate of false alarms is computed from the law, so that it has no error of counting. What is left is the error of
# learning: of 60 000 scores 1200 are tail; at 1e-3 the logarithm of the rate has a standard deviation of about
# sqrt((1 + log(20)^2) / 1200) = 0.09, so that a factor 1.5 is 4.5 of them.
@pytest.mark.parametrize("name", LAWS)
def test_false_alarms_are_as_many_as_asked_for_in_each_stratum(name):
    laws = [moved(LAWS[name], s) for s in range(12)]
    found = calibrate(learnt(laws, 60_000))
    for rate, factor in ((1e-2, 1.25), (1e-3, 1.5)):
        thresholds = found.thresholds(rate)
        true = np.array([law.sf(t.score.value) for law, t in zip(laws, thresholds, strict=True)])
        assert (np.abs(np.log(true / rate)) < np.log(factor)).all(), true / rate
        assert {t.how for t in thresholds} == {"tail"}
        assert min(t.fit for t in thresholds) > 1e-4
        assert {t.number for t in thresholds} == {60_000}
    # Far beyond what one stratum has seen, the strata together.
    true = [law.sf(t.score.value) for law, t in zip(laws, found.thresholds(1e-4), strict=True)]
    assert np.mean(true) == pytest.approx(1e-4, rel=0.4)


def test_intervals_hold_the_true_threshold_as_often_as_they_say():
    law, held, counted = stats.genpareto(0.1, scale=2.0), [], []
    for seed in range(120):
        found = calibrate(learnt([law], 10_000, seed))
        for rate, into in ((1e-4, held), (5e-2, counted)):
            (t,) = found.thresholds(rate, level=0.9)
            into.append(t.score.low < law.isf(rate) < t.score.high)
    # 108 of 120 are expected; fewer than 97 or more than 118 come once in a thousand.
    for into in (held, counted):
        assert 97 <= sum(into) <= 118, sum(into)


def test_intervals_know_of_neighbours_that_depend_on_each_other():
    number, long = 40_000, 20
    held = {(known, rate): 0 for known in (True, False) for rate in (1e-2, 5e-2)}  # from the tail, and counted
    for seed in range(60):
        random = np.random.default_rng(seed)
        # Neighbours of a block share nine tenths of their variance.
        shared = np.repeat(random.normal(size=number // long), long)
        score = np.sqrt(0.9) * shared + np.sqrt(0.1) * random.normal(size=number)
        for known in (True, False):
            scores = Scores(1)
            scores.add(score, np.zeros(number, int), np.arange(number) // long if known else None)
            found = calibrate(scores)
            for rate in (1e-2, 5e-2):
                (t,) = found.thresholds(rate, level=0.9)
                held[known, rate] += t.score.low < stats.norm.isf(rate) < t.score.high
    for rate in (1e-2, 5e-2):
        assert 47 <= held[True, rate] <= 60  # 54 are expected, fewer than 47 come once in 300
        assert held[False, rate] < 40


def test_the_likelihood_is_the_largest():
    # Against scipy's general maximiser, which starts elsewhere and knows nothing of the root for the scale.
    for shape in (-0.3, 0.0, 0.2, 0.8):
        excess = stats.genpareto(shape, scale=3.0).rvs(1500, random_state=3)
        mine = generalised_pareto(excess)
        theirs = optimize.minimize(
            lambda p, x: stats.genpareto.nnlf((p[0], 0.0, np.exp(p[1])), x), (0.1, 1.0), excess, method="Nelder-Mead"
        )
        assert mine[0] == pytest.approx(theirs.x[0], abs=2e-3)
        assert mine[1] == pytest.approx(np.exp(theirs.x[1]), rel=3e-3)


def test_a_tail_is_the_distribution_of_scipy():
    for shape in (-0.2, 0.0, 1e-10, 0.3):
        tail = alarms.Tail(5.0, 0.02, shape, 1.5, 0.0, 1000, 1.0, 1.0)
        law = stats.genpareto(shape, loc=5.0, scale=1.5)
        assert tail.score(1e-4) == pytest.approx(law.isf(1e-4 / 0.02))
        assert tail.rate(np.array([6.0, 9.0])) == pytest.approx(0.02 * law.sf([6.0, 9.0]))


def test_errors_of_the_tail_are_those_of_repeated_fits():
    law, rate = stats.genpareto(-0.1), 1e-4
    tails = [alarms._tail(*scores.largest(0), 50_000) for scores in (learnt([law], 50_000, k) for k in range(60))]
    spread = np.std([tail.score(rate) for tail in tails], ddof=1)
    # The relative error of a standard deviation of 60 is 9 per cent.
    assert np.median([tail.error(rate) for tail in tails]) == pytest.approx(spread, rel=0.3)


def test_strata_with_little_data_share_their_shape():
    laws = [stats.t(5, scale=1 + s) for s in range(16)]
    alone, together = [], []
    for seed in range(4):
        found = calibrate(learnt(laws, 5000, seed)).thresholds(1e-4)
        together += [np.log(law.sf(t.score.value) / 1e-4) for law, t in zip(laws, found, strict=True)]
        for s, law in enumerate(laws):
            (t,) = calibrate(learnt([law], 5000, 100 * seed + s)).thresholds(1e-4)
            alone.append(np.log(law.sf(t.score.value) / 1e-4))
    assert np.std(together) < 0.87 * np.std(alone)


def test_strata_of_different_shapes_keep_them():
    laws = [stats.t(3), stats.uniform(), stats.t(3, scale=2), stats.uniform(scale=5)]
    shapes = [curve.tail.shape for curve in calibrate(learnt(laws, 100_000)).curves]
    assert shapes[0::2] == pytest.approx([1 / 3] * 2, abs=0.1)
    assert np.max(shapes[1::2]) < -0.3


def test_a_tail_that_is_none_is_said_to_fit_badly_and_made_shorter():
    # A twentieth of the pixels is of another kind: only beyond it the tail begins.
    random = np.random.default_rng(0)
    number = 200_000
    score = random.normal(size=number)
    odd = random.random(number) < 0.006
    score[odd] = 8 + random.exponential(0.2, odd.sum())
    scores = Scores(1)
    scores.add(score, np.zeros(number, int))
    tail = calibrate(scores).together.tail
    assert tail.fit >= alarms.REJECTED
    assert tail.excesses <= 1000
    assert alarms._fit(score[score > 2] - 2, *generalised_pareto(score[score > 2] - 2), 1.0) < 1e-6


def test_strata_without_enough_clean_pixels_are_judged_as_all_and_say_so():
    random = np.random.default_rng(1)
    scores = Scores(4)
    scores.add(random.normal(size=50_000), np.zeros(50_000, int))
    scores.add(random.normal(size=50_000), np.full(50_000, 1))
    scores.add(random.normal(size=300), np.full(300, 2))
    found = calibrate(scores)
    thresholds = found.thresholds(1e-3)
    assert [t.how for t in thresholds] == ["tail", "tail", "tail, all strata", "tail, all strata"]
    assert thresholds[2].number == thresholds[3].number == 100_300
    assert stats.norm.sf(thresholds[3].score.value) == pytest.approx(1e-3, rel=0.25)
    rates = found.false_alarm_rate(np.full(5, 3.0), np.array([0, 2, 3, -1, 77]))
    assert rates[1] == rates[2] == rates[3] == rates[4] != rates[0]


def test_the_rate_of_a_threshold_is_the_one_asked_for():
    found = calibrate(learnt([stats.norm(), stats.t(4, loc=9)], 60_000))
    for rate in (0.3, 0.05, 2e-2, 1e-3, 1e-6):
        scores = [t.score.value for t in found.thresholds(rate)]
        assert found.false_alarm_rate(np.array(scores), np.array([0, 1])) == pytest.approx(rate, rel=1e-6)
    assert [t.how for t in found.thresholds(0.05)] == ["counted"] * 2


def test_rates_fall_with_the_score_and_are_the_shares_of_the_clean_pixels():
    random = np.random.default_rng(2)
    score = 1 + 0.03 * random.normal(size=80_000)  # as reconstruction scores are
    scores = Scores(1, kept=2000)
    scores.add(score, np.zeros(score.size, int))
    found = calibrate(scores)
    asked = np.linspace(0.8, 1.3, 5001)
    rates = found.false_alarm_rate(asked, np.zeros(asked.size, int))
    assert (np.diff(rates) <= 0).all()
    assert rates[0] == 1
    assert rates[-1] < 1e-9
    shares = np.array([(score > one).mean() for one in asked])
    # Exact in what is kept; within the error of 1600 excesses in the tail; and below what is kept within a coarse class,
    # between whose ends the share is interpolated.
    assert np.abs(rates - shares)[(shares > 0.0201) & (shares < 0.0249)].max() < 3e-5
    assert np.abs(rates - shares)[shares < 0.02].max() < 1e-3
    assert np.abs(rates - shares).max() < 0.01
    assert np.isnan(found.false_alarm_rate(np.array([np.nan]), np.array([0]))).all()


parts = st.lists(
    st.tuples(
        st.integers(-1, 2), st.floats(-5, 5, width=32) | st.sampled_from([np.nan, 1.0, -0.0]), st.integers(-1, 2)
    ),
    max_size=80,
)


@settings(max_examples=80, deadline=None)
@given(parts, st.integers(1, 5), st.integers(1, 20), st.randoms(), st.booleans())
def test_scores_learnt_in_parts_are_those_learnt_at_once(rows, workers, kept, random, resumed):
    def of(rows):
        made = Scores(3, kept)
        if rows:
            stratum, score, block = zip(*rows, strict=True)
            made.add(np.array(score), np.array(stratum), np.array(block))
        return made

    whole = of(rows).state()
    random.shuffle(rows)
    pieces = [of(rows[k::workers]) for k in range(workers)]
    if resumed:
        pieces = [Scores.of(piece.state()) for piece in pieces]
    for piece in pieces[1:]:
        pieces[0].merge(piece)
    merged = pieces[0].state()
    assert whole.keys() == merged.keys()
    for name in whole:
        assert np.array_equal(whole[name], merged[name]), name
    good = [(s, x) for s, x, _ in rows if s >= 0 and np.isfinite(x)]
    assert merged["number"].tolist() == [sum(s == one for s, _ in good) for one in range(3)]
    for s in range(3):
        assert pieces[0].largest(s)[0].tolist() == sorted((x for t, x in good if t == s), reverse=True)[:kept]


def test_coarse_classes_rise_with_the_score_and_begin_where_they_say():
    random = np.random.default_rng(0)
    score = np.concatenate([random.normal(size=500), random.normal(size=500) * 1e6, [0.0, -0.0, 1e300, -1e300]])
    code = alarms._bin(np.sort(score))
    assert (np.diff(code) >= 0).all()
    assert alarms._bin(np.array([-0.0])) == alarms._bin(np.array([0.0]))
    start, after = alarms._edge(code), alarms._edge(code + 1)
    inside = np.abs(np.sort(score)) < 1e30
    single = np.sort(score)[inside].astype(np.float32)
    assert (start[inside] <= single).all()
    assert (single < after[inside]).all()
    assert np.array_equal(alarms._bin(start), code)


@pytest.mark.parametrize("at_least", [1, 2, 3])
@pytest.mark.parametrize("correlation", [0.0, 0.8])
def test_several_detectors_alarm_together_as_often_as_asked_for(at_least, correlation):
    random = np.random.default_rng(4)

    def detectors(number):
        shared = random.normal(size=(number, 1))
        x = np.sqrt(correlation) * shared + np.sqrt(1 - correlation) * random.normal(size=(number, 3))
        x[:, 2] = np.exp(x[:, 2])
        return x

    def learn(values):
        scores = Scores(1)
        scores.add(values, np.zeros(values.size, int))
        return calibrate(scores)

    clean = detectors(100_000)
    single = [learn(clean[:, d]) for d in range(3)]

    def rule(x):
        rates = [one.false_alarm_rate(x[:, d], np.zeros(len(x), int)) for d, one in enumerate(single)]
        return combined(np.stack(rates, axis=-1), at_least, shares=(0.5, 0.25, 0.25))

    both = learn(rule(clean))
    fresh = rule(detectors(400_000))
    alarm = both.false_alarm_rate(fresh, np.zeros(fresh.size, int)) <= 1e-3
    # 400 alarms are expected; their number has a standard deviation of 20, learning adds 8 per cent.
    assert 280 < alarm.sum() < 560


def test_a_rule_counts_the_detectors_that_alarm():
    rates = np.array([[1e-5, 0.5, 0.5], [1e-3, 1e-4, 0.5], [1e-3, 1e-3, 1e-3], [np.nan, 1e-4, np.nan]])
    assert combined(rates).tolist() == pytest.approx([5, 4, 3, 4])
    assert combined(rates, 2)[:3].tolist() == pytest.approx([-np.log10(0.5), 3, 3])
    assert np.isnan(combined(rates, 2)[3])
    assert combined(rates, 1, (0.1, 0.5, 0.4))[0] == pytest.approx(4)
    assert combined(np.zeros((1, 2))).tolist() == [300]


def test_the_squared_residual_of_gaussian_spectra_is_exceeded_as_often_as_asked_for():
    # Equal eigenvalues: a chi-square distribution, which is known.
    assert jackson_mudholkar(np.full(40, 2.5), 1e-3) == pytest.approx(2.5 * stats.chi2.isf(1e-3, 40), rel=2e-3)
    # Unequal ones: drawn. Few large ones are approximated less well, on the safe side.
    random = np.random.default_rng(0)
    for left, least in ((0.95 ** np.arange(60), 0.9), (0.8 ** np.arange(30), 0.75)):
        q = np.square(random.normal(size=(200_000, left.size))) @ left
        for rate in (1e-2, 1e-3):
            # 200 of 200 000: a standard deviation of 7 per cent.
            assert least - 0.15 < (q > jackson_mudholkar(left, rate)).mean() / rate < 1.15


def test_a_law_of_extremes_is_learnt_from_blocks_of_any_size_and_holds_for_others():
    random = np.random.default_rng(2)
    number = random.integers(50, 5000, 6000)
    # The largest of n values of a Gumbel distribution has the same one, ln n scales higher.
    mode, scale = np.array([1.0, -2.0, 0.0]), np.array([0.5, 2.0, 1.0])
    extreme = mode + scale * (np.log(number)[:, None] + random.gumbel(size=(number.size, 3)))
    law = Gumbel.learnt(extreme, number)
    assert law.number == np.median(number)
    assert law.scale == pytest.approx(scale, rel=0.05)
    assert law.mode == pytest.approx(mode + scale * np.log(law.number), abs=0.1)
    for n in (20, 20_000):
        exact = stats.gumbel_r(law.mode + law.scale * np.log(n / law.number), law.scale)
        assert law.threshold(1e-3, n) == pytest.approx(exact.isf(1e-3))
        assert law.false_alarm_rate([5.0, 5.0, 5.0], n) == pytest.approx(exact.sf(5.0))
    assert law.threshold(0.01, np.array([20, 30])).shape == (2, 3)


def test_events_in_the_blocks_that_are_learnt_from_hardly_change_the_law():
    random = np.random.default_rng(3)
    extreme = random.normal(size=(400, 4, 1000)).max(axis=2)
    clean = Gumbel.learnt(extreme, np.full(400, 1000))
    extreme[::20, 1] += 20
    law = Gumbel.learnt(extreme, np.full(400, 1000))
    assert law.threshold(1e-4, 1000)[1] < clean.threshold(1e-4, 1000)[1] * 1.1
    # By its moments (Gumbel 1958, Statistics of Extremes) the law would be another.
    scale = extreme[:, 1].std(ddof=1) * np.sqrt(6) / np.pi
    by_moments = stats.gumbel_r(extreme[:, 1].mean() - np.euler_gamma * scale, scale)
    assert by_moments.isf(1e-4) > 2 * clean.threshold(1e-4, 1000)[1]


def test_a_law_of_few_blocks_does_not_alarm_in_channels_whose_scale_came_out_small():
    random = np.random.default_rng(5)
    share, bare = [], []
    for _ in range(20):
        extreme = random.gumbel(size=(16, 200)) * np.r_[np.ones(199), 3.0]
        law = Gumbel.learnt(extreme, np.full(16, 100))
        assert law.scale[-1] > 1.2  # what flickers keeps its own
        others = random.gumbel(size=(200, 200)) * np.r_[np.ones(199), 3.0]
        share.append((others[:, :-1] > law.threshold(0.05 / 200, 100)[:-1]).any(axis=1).mean())
        low, high = np.quantile(extreme, [0.25, 0.75], axis=0)
        bare.append(
            (others > (law._replace(scale=(high - low) / 1.5725)).threshold(0.05 / 200, 100))[:, :-1].any(axis=1).mean()
        )
    assert np.mean(share) < 0.1
    assert np.mean(bare) > 0.2


def test_few_blocks_tell_no_law_and_empty_ones_are_not_asked():
    extreme = np.arange(20.0).reshape(10, 2)
    extreme[:4, 1] = np.nan
    law = Gumbel.learnt(np.vstack([extreme, [[99.0, 99.0]]]), np.r_[np.full(10, 50), 0])
    assert np.isfinite(law.scale).tolist() == [True, False]
    assert law.mode[0] < 10
    assert not alarms.unusual_channels(np.full((1, 2), 1e9), np.zeros((1, 2)), np.array([50]), (law, law), 0.1)[0, 1]
    nothing = Gumbel.learnt(np.full((0, 2), np.nan), np.zeros(0))
    assert np.isnan(nothing.threshold(0.1, 10)).all()


def test_unusual_channels_are_those_of_an_event_and_in_usual_blocks_as_rare_as_asked_for():
    random = np.random.default_rng(4)

    def blocks(count, pixels=300, channels=20):
        residual = random.normal(size=(count, pixels, channels)).astype(np.float32)
        return residual.max(axis=1), residual.min(axis=1)

    (high, low), number = blocks(1500), np.full(1500, 300)
    laws = Gumbel.learnt(high, number), Gumbel.learnt(-low, number)
    high, low = blocks(3000)
    found = alarms.unusual_channels(high, low, np.full(3000, 300), laws, 0.2)
    share = (found > 0).any(axis=1).mean()
    # A Gaussian's extremes come near to Gumbel's law slowly: fewer exceed, never more.
    assert 0.005 < share < 0.2
    high[7, 3], low[7, 5], high[8, 4], low[8, 4] = 15.0, -15.0, 15.0, -15.0
    found = alarms.unusual_channels(high, low, np.full(3000, 300), laws, 1e-4)
    assert {(b, c): int(found[b, c]) for b, c in np.argwhere(found).tolist()} == {(7, 3): 1, (7, 5): 2, (8, 4): 3}


def test_what_cannot_be_learnt_is_refused():
    scores = Scores(2)
    scores.add(np.zeros(10_000), np.zeros(10_000, int))
    with pytest.raises(InputError, match="10000 clean scores to learn thresholds from, and 2500 different ones"):
        calibrate(scores)
    with pytest.raises(InputError, match="cannot be merged"):
        scores.merge(Scores(3))
    with pytest.raises(InputError, match="Choose one between 0 and 1"):
        calibrate(learnt([stats.norm()], 5000)).thresholds(0.0)
    with pytest.raises(InputError, match="Of 2 detectors 3 shall alarm"):
        combined(np.ones((4, 2)), 3)
