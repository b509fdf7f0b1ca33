"Moons and spirals: the published curves, the noise that was asked for, and a density held against brute force, its mass and its own draws."

import math

import numpy as np
import pytest
import torch

from latentlab.data.toys import (
    TEST_SEED, TOYS, TRAIN_SEED, arc, expected_log_density, largest_variance, log_density, make_toy, moons, quadrature, spirals,
)


def by_hand(name, count, rounds=1):
    "Both arms without noise, from the published formulas, in NumPy."
    if name == "moons":
        t = np.linspace(0, np.pi, count)
        return [np.stack([np.cos(t), np.sin(t)], 1), np.stack([1 - np.cos(t), 0.5 - np.sin(t)], 1)]
    theta = np.linspace(0, 2 * np.pi * rounds, count)
    b = (theta + np.pi)[:, None] / (2 * np.pi) * np.stack([np.cos(theta), np.sin(theta)], 1)
    return [-b, b]


def by_brute_force(name, points, noise, rounds=1, count=60_001):
    "The log-density from evenly spaced places, with the exponent taken as linear in between, which needs no care at the ends."
    total = []
    for x in points.tolist():
        parts = []
        for curve in by_hand(name, count, rounds):
            square = ((curve - x) ** 2).sum(1) / (2 * noise**2)
            rise = np.maximum(np.abs(np.diff(square)), 1e-12)
            parts.append(np.log(-np.expm1(-rise) / rise) - np.minimum(square[1:], square[:-1]))
        both = np.concatenate(parts)
        total.append(np.log(np.exp(both - both.max()).mean()) + both.max())
    return torch.tensor(total) - math.log(2 * math.pi * noise**2)


@pytest.mark.parametrize("name,rounds", [("moons", 1), ("spirals", 1), ("spirals", 3)])
def test_without_noise_the_points_are_the_published_curves(name, rounds):
    for n in [2, 4, 50]:
        toy = make_toy(name, n, noise=0, seed=5, rounds=rounds)
        assert toy.points.dtype == torch.float32 and toy.labels.dtype == torch.int64 and len(toy) == n
        for arm, curve in enumerate(by_hand(name, n // 2, rounds)):
            mine = {tuple(round(v, 5) + 0.0 for v in p) for p in toy.points[toy.labels == arm].tolist()}
            assert mine == {tuple(round(float(np.float32(v)), 5) + 0.0 for v in p) for p in curve}


def test_moons_count_altogether_and_spirals_per_arm():
    assert moons(100).labels.bincount().tolist() == [50, 50]
    assert spirals(100).labels.bincount().tolist() == [100, 100]
    assert torch.equal(spirals(100, noise=0.1, seed=4).points, make_toy("spirals", 200, noise=0.1, seed=4).points)
    assert torch.equal(moons(100, noise=0.1, seed=4).points, make_toy("moons", 100, noise=0.1, seed=4).points)


@pytest.mark.parametrize("name", TOYS)
def test_noise_is_normal_of_the_size_asked_for_and_added_last(name):
    n, clean = 20_000, make_toy(name, 20_000, noise=0, seed=1).points
    for noise in (0.01, 0.2, 3.0):
        offset = (make_toy(name, n, noise=noise, seed=1).points - clean) / noise
        assert abs(offset.std() - 1) < 4 / math.sqrt(4 * n)
        assert offset.mean().abs() < 4 / math.sqrt(2 * n)
        assert abs((offset**4).mean() - 3) < 4 * math.sqrt(96 / (2 * n)), "the kurtosis of a normal"
        assert abs((offset[:, 0] * offset[:, 1]).mean()) < 4 / math.sqrt(n)


@pytest.mark.parametrize("name", TOYS)
def test_a_seed_replays_and_another_gives_other_points_and_another_order(name):
    first = make_toy(name, 100, noise=0.05, seed=TRAIN_SEED)
    again, test = (make_toy(name, 100, noise=0.05, seed=seed) for seed in (TRAIN_SEED, TEST_SEED))
    assert torch.equal(first.points, again.points) and torch.equal(first.labels, again.labels)
    assert not set(map(tuple, first.points.tolist())) & set(map(tuple, test.points.tolist()))
    assert not torch.equal(first.labels, test.labels)


def test_torch_s_own_stream_is_left_alone():
    torch.manual_seed(1)
    before = torch.rand(1)
    torch.manual_seed(1)
    moons(10, noise=0.1)
    expected_log_density("moons", 0.1, draws=10, seed=0)
    assert torch.equal(torch.rand(1), before)


@pytest.mark.parametrize("name,rounds", [("moons", 1), ("spirals", 1), ("spirals", 2)])
def test_density_agrees_with_brute_force_near_the_curves_and_far_from_them(name, rounds):
    for noise in [0.01, 0.1, 5.0]:
        stream = torch.Generator().manual_seed(0)
        near = make_toy(name, 20, noise=noise, seed=2, rounds=rounds).points.double()
        anywhere = 6 * torch.rand(30, 2, dtype=torch.float64, generator=stream) - 3
        ends = torch.cat([arc(name, arm, torch.tensor([0.0, 1.0], dtype=torch.float64), rounds) for arm in (0, 1)])
        points = torch.cat([near, anywhere, ends, ends * 1.01, ends + torch.tensor([0.0, -2.0])])
        assert (log_density(name, points, noise, rounds=rounds) - by_brute_force(name, points, noise, rounds)).abs().max() < 1e-3


@pytest.mark.parametrize("name", TOYS)
def test_density_integrates_to_one(name):
    for noise in [0.04, 0.1, 0.6]:
        x, y = (torch.arange(low - 7 * noise, high + 7 * noise, noise / 2, dtype=torch.float64) for low, high in ((-1.6, 2.1), (-1.6, 1.6)))
        mass = log_density(name, torch.cartesian_prod(x, y), noise).exp().sum().item() * noise**2 / 4
        assert mass == pytest.approx(1, abs=1e-6)


def test_a_spiral_looks_the_same_turned_by_half_a_turn():
    points = 2 * torch.randn(200, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(log_density("spirals", points, 0.05), log_density("spirals", -points, 0.05), rtol=1e-12)
    assert not torch.allclose(log_density("moons", points, 0.05), log_density("moons", -points, 0.05), rtol=1e-3)


def test_blocks_of_rows_and_types_do_not_matter():
    points = torch.randn(301, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    whole = log_density("spirals", points, 0.05)
    assert torch.allclose(torch.cat([log_density("spirals", p, 0.05) for p in points.split(7)]), whole, rtol=1e-12)
    single = log_density("spirals", points.float(), 0.05)
    assert single.dtype == torch.float32 and torch.allclose(single.double(), whole, rtol=1e-4, atol=1e-3)
    assert log_density("spirals", points[:0], 0.05).shape == (0,)


@pytest.mark.parametrize("name,noise,before", [("moons", 0.01, 1.36), ("moons", 0.05, -0.28), ("moons", 0.1, -1.00),
                                               ("spirals", 0.01, 0.66), ("spirals", 0.05, -0.95), ("spirals", 0.1, -1.62)])
def test_the_oracle_reproduces_the_published_estimates(name, noise, before):
    found = expected_log_density(name, noise, seed=3)
    assert found.n == 4000 and 0.009 < found.se < 0.015
    assert abs(found.mean - before) < 3 * math.hypot(found.se, 0.011), "both were estimated from 4,000 draws"


def test_the_oracle_s_standard_error_is_honest():
    found = [expected_log_density("moons", 0.05, draws=400, seed=seed) for seed in range(40)]
    spread = torch.tensor([f.mean for f in found]).std().item()
    expected = sum(f.se for f in found) / 40
    assert abs(spread / expected - 1) < 4 / math.sqrt(2 * 39), "the spread of 40 estimates, with its own sampling error"


def test_thin_moons_have_a_closed_form():
    found = expected_log_density("moons", 0.002, draws=2000, seed=0)
    assert abs(found.mean + math.log(2 * math.pi) + 0.5 * math.log(2 * math.pi * math.e * 0.002**2)) < 4 * found.se


@pytest.mark.parametrize("name", TOYS)
def test_no_other_density_beats_the_oracle_on_held_out_points(name):
    held = make_toy(name, 4000, noise=0.05, seed=TEST_SEED).points
    right = log_density(name, held, 0.05)
    for wrong in (log_density(name, held, 0.06), log_density(name, held, 0.04), log_density(name, held + 0.02, 0.05),
                  log_density("moons" if name == "spirals" else "spirals", held, 0.05)):
        assert (right - wrong).mean() > 3 * (right - wrong).std() / math.sqrt(4000)


@pytest.mark.parametrize("name,noise", [("moons", 0.001), ("spirals", 0.01), ("spirals", 20.0)])
def test_shares_of_the_quadrature_sum_to_one_and_lie_on_the_arms(name, noise):
    places, log_share = quadrature(name, noise)
    assert log_share.exp().sum().item() == pytest.approx(1, abs=1e-12)
    curve = torch.from_numpy(np.concatenate(by_hand(name, 4001)))
    assert torch.cdist(places[::37], curve).amin(1).max() < 2e-3


@pytest.mark.parametrize("name,trace_elbo", [("moons", -2.335), ("spirals", -2.380)])
def test_largest_variance_and_the_collapsed_elbo(name, trace_elbo):
    x = make_toy(name, 10_000, noise=0, seed=0).points
    cov = np.cov(x.numpy().T.astype(np.float64), bias=True)
    assert largest_variance(x) == pytest.approx(np.linalg.eigvalsh(cov)[-1], rel=1e-9)
    assert -math.log(2 * math.pi) - 0.5 * np.trace(cov) == pytest.approx(trace_elbo, abs=0.001), "the published figure"
    assert largest_variance(x) < 1, "a scale of 1 collapses"


def test_largest_variance_of_any_width():
    x = torch.randn(500, 7, generator=torch.Generator().manual_seed(0)) * torch.arange(1.0, 8)
    assert largest_variance(x + 100) == pytest.approx(np.linalg.eigvalsh(np.cov(x.numpy().T.astype(np.float64), bias=True))[-1], rel=1e-4)
    assert largest_variance(torch.ones(3, 2)) == 0


@pytest.mark.parametrize("call,message", [
    (lambda: make_toy("circles", 10, noise=0.1, seed=0), "`name` must be one of moons, spirals: got 'circles'"),
    (lambda: make_toy("moons", 11, noise=0.1, seed=0), "`n` must be an even number of at least 2, half for each arm: got 11"),
    (lambda: make_toy("moons", 0, noise=0.1, seed=0), "got 0"),
    (lambda: make_toy("moons", 10.0, noise=0.1, seed=0), "got 10.0"),
    (lambda: make_toy("moons", True, noise=0.1, seed=0), "got True"),
    (lambda: make_toy("moons", 10, noise=-0.1, seed=0), "`noise` must be a standard deviation of at least 0: got -0.1"),
    (lambda: make_toy("moons", 10, noise=math.nan, seed=0), "got nan"),
    (lambda: make_toy("moons", 10, noise=math.inf, seed=0), "got inf"),
    (lambda: make_toy("moons", 10, noise="0.1", seed=0), "got '0.1'"),
    (lambda: make_toy("moons", 10, noise=0.1, seed=-1), "`seed` must be a whole number of at least 0: got -1"),
    (lambda: make_toy("moons", 10, noise=0.1, seed=0, rounds=2), "`rounds` must be from 1 to 8 for spirals, and 1 for moons: "
                                                                 "got 2 for moons"),
    (lambda: spirals(10, rounds=9), "got 9 for spirals"),
    (lambda: spirals(10, rounds=1.5), "got 1.5"),
    (lambda: log_density("moons", torch.zeros(3, 2), 0), "unbounded density, so an ELBO there is a statement about the floor of the "
                                                         "decoder's variance"),
    (lambda: log_density("moons", torch.zeros(3, 2), 1e-6), "`noise` must be at least 0.0001 for a density: got 1e-06"),
    (lambda: log_density("moons", torch.zeros(3, 3), 0.1), "`points` must be finite floats [n, 2]: got torch.float32 (3, 3)"),
    (lambda: log_density("moons", torch.zeros(2), 0.1), "got torch.float32 (2,)"),
    (lambda: log_density("moons", torch.zeros(3, 2).long(), 0.1), "got torch.int64"),
    (lambda: log_density("moons", torch.full((3, 2), math.nan), 0.1), "`points` must be finite"),
    (lambda: expected_log_density("moons", 0.0, seed=0), "unbounded density"),
    (lambda: expected_log_density("moons", 0.1, draws=1, seed=0), "`draws` must be at least 2: got 1"),
    (lambda: largest_variance(torch.zeros(1, 2)), "`points` must be at least two finite rows [n, event]: got (1, 2)"),
    (lambda: largest_variance(torch.full((3, 2), math.inf)), "finite or not"),
])
def test_refusals(unchecked, call, message):
    with pytest.raises(ValueError) as caught: call()
    assert message in str(caught.value)
