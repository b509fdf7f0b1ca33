"""Bounds from log-weights: closed forms of a linear world, invariances, tiles, free nats, and gradients that agree with the plain one."""
import math

import pytest
import torch
from latentlab.losses import bounds

LOG_TWO_PI = math.log(2 * math.pi)


def rng(seed=0): return torch.Generator().manual_seed(seed)


def draw(*shape, seed=0, dtype=torch.float64): return torch.randn(*shape, generator=rng(seed), dtype=dtype)


def log_normal(x, loc, scale): return -0.5 * ((x - loc) / scale) ** 2 - math.log(scale) - 0.5 * LOG_TWO_PI


def linear_world(samples, repeats, *, at=1.3, slope=0.5, scale=math.sqrt(0.5), seed=0, dtype=torch.float64):
    "Log-weights [samples, repeats] for z ~ N(0, 1), x | z ~ N(z, 1) and the proposal N(slope x, scale²); exact by default. And log p(x)."
    z = slope * at + scale * draw(samples, repeats, seed=seed, dtype=dtype)
    return log_normal(at, z, 1.0) + log_normal(z, 0.0, 1.0) - log_normal(z, slope * at, scale), log_normal(at, 0.0, math.sqrt(2.0))


# Bounds ---------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_the_exact_posterior_gives_the_likelihood_with_every_sample(dtype, tolerance):
    for samples in [1, 2, 64]:
        log_w, truth = linear_world(samples, 50, dtype=dtype)
        for bound in (bounds.elbo, bounds.iw_bound): assert (bound(log_w) - truth).abs().max() < tolerance
        assert (bounds.effective_samples(log_w) - samples).abs().max() < samples * 1e-3


def test_iw_rises_to_the_likelihood_and_the_elbo_stays_a_divergence_below():
    before, repeats = None, 4000
    divergence = 0.5 * (1.2**2 + (0.3 * 1.3) ** 2) / 0.5 - 0.5 + math.log(math.sqrt(0.5) / 1.2)  # KL(N(.2 x, 1.2²) || N(x / 2, 1 / 2))
    for samples in (1, 2, 5, 20, 100, 500):
        log_w, truth = linear_world(samples, repeats, slope=0.2, scale=1.2, seed=samples)
        iw, low = bounds.iw_bound(log_w), bounds.elbo(log_w)
        error = iw.std() / math.sqrt(repeats)
        assert abs(low.mean() - truth + divergence) < 4 * low.std() / math.sqrt(repeats)
        assert iw.mean() < truth + 3 * error and (before is None or iw.mean() > before - 3 * error)
        before = iw.mean()
    assert abs(before - truth) < 0.01  # the bias is about Var(w) / 2S = .003


def test_jensen_holds_for_every_datum_and_equality_only_for_equal_weights():
    log_w = 3 * draw(7, 200)
    assert (bounds.iw_bound(log_w) > bounds.elbo(log_w)).all()
    same = draw(1, 20).expand(7, -1)
    torch.testing.assert_close(bounds.iw_bound(same), bounds.elbo(same))
    assert torch.equal(bounds.iw_bound(log_w[:1]), bounds.elbo(log_w[:1]))


def test_a_constant_passes_through_and_order_does_not_matter():
    for shift in [-3e4, 0.7, 1e4]:
        log_w = draw(9, 30)
        order = torch.randperm(9, generator=rng(1))
        for bound in (bounds.elbo, bounds.iw_bound):
            torch.testing.assert_close(bound(log_w + shift), bound(log_w) + shift)
            torch.testing.assert_close(bound(log_w[order]), bound(log_w))
        torch.testing.assert_close(bounds.effective_samples(log_w + shift), bounds.effective_samples(log_w))


def test_effective_samples_known_cases():
    for count in range(1, 6):
        log_w = torch.full((5, 3), -1e5, dtype=torch.float64)
        log_w[:count] = 0.0
        torch.testing.assert_close(bounds.effective_samples(log_w), torch.full((3,), float(count), dtype=torch.float64))
    found = bounds.effective_samples(4 * draw(40, 500))
    assert found.min() >= 1 and found.max() <= 40 and bounds.normalised_weights(draw(4, 9)).sum(0).sub(1).abs().max() < 1e-12


def test_an_impossible_draw_counts_as_weight_zero():
    log_w = torch.tensor([[0.0], [-math.inf]])
    assert bounds.iw_bound(log_w).item() == pytest.approx(-math.log(2)) and bounds.effective_samples(log_w).item() == 1
    assert bounds.RunningBound().add(log_w).iw.item() == pytest.approx(-math.log(2))


def test_log_weights_without_their_two_axes_are_refused(unchecked):
    for shape in [(3,), (0, 3), (3, 0), (2, 3, 4)]:
        for function in (bounds.elbo, bounds.iw_bound, bounds.effective_samples, bounds.RunningBound().add,
                         lambda w: bounds.iw_objective(w, bounds.Weights())):
            with pytest.raises(ValueError, match=r"`log_w` must be \[sample, batch\]"): function(torch.zeros(shape))


# Tiles ----------------------------------------------------------------------------------------------------------------

def test_tiles_change_nothing():
    for tile in [1, 3, 7, 100, 1000]:
        log_w, running = 5 * draw(100, 8) - 2000, bounds.RunningBound()
        for part in log_w.split(tile): running.add(part)
        assert running.samples == 100
        torch.testing.assert_close(running.iw, bounds.iw_bound(log_w))
        torch.testing.assert_close(running.elbo, bounds.elbo(log_w))
        torch.testing.assert_close(running.effective, bounds.effective_samples(log_w))


def test_a_tile_of_another_batch_is_refused_and_counts_for_nothing():
    for batch in [1, 4]:
        running = bounds.RunningBound().add(torch.zeros(2, 3))
        with pytest.raises(ValueError, match="`log_w` must be of the same batch as the samples before, 3: got"):
            running.add(torch.zeros(2, batch))
        assert running.samples == 2 and running.iw.shape == (3,)


# Free nats and ramps --------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("kind", ["batch", "example"])
def test_no_floor_is_the_divergence_itself_also_below_zero(kind):
    for floor in [0.0, torch.tensor(0.0)]:
        kl = (draw(6) - 2).requires_grad_()
        assert kl.mean() < 0
        found = bounds.free_nats(kl, floor, kind)
        assert torch.equal(found, kl) and torch.equal(torch.autograd.grad(found.sum(), kl)[0], torch.ones(6, dtype=torch.float64))


def test_the_floor_on_the_batch_mean_is_all_or_nothing():
    kl = torch.tensor([0.0, 0.5, 4.0], requires_grad=True)  # mean 1.5
    assert torch.equal(bounds.free_nats(kl, 1.4), kl) and bounds.free_nats(kl, 1.6).tolist() == [pytest.approx(1.6)] * 3
    assert torch.autograd.grad(bounds.free_nats(kl, 1.6).sum(), kl)[0].tolist() == [0, 0, 0]
    assert bounds.free_nats(kl, 1.6, "example").tolist() == [pytest.approx(1.6), pytest.approx(1.6), 4.0]
    assert torch.autograd.grad(bounds.free_nats(kl, torch.tensor(1.6), "example").sum(), kl)[0].tolist() == [0, 0, 1]


def test_a_floor_on_single_draws_is_biased_and_on_the_mean_is_not():
    kl = 1 + 2 * draw(100_000)
    assert bounds.free_nats(kl, 1.0, "example").mean().item() == pytest.approx(1 + 2 / math.sqrt(2 * math.pi), abs=0.02)
    assert bounds.free_nats(kl, 1.0, "batch").mean().item() == pytest.approx(1, abs=0.03)


def test_ramp():
    for step, steps, expected in [(0, 10, 0), (5, 10, 0.5), (10, 10, 1), (99, 10, 1), (0, 0, 1), (7, 0, 1)]:
        for given in (step, torch.tensor(float(step))): assert bounds.ramp(given, steps).item() == expected


# Gradients ------------------------------------------------------------------------------------------------------------

def gradients(kind, *, samples=6, repeats=40_000, beta=1.0, power=1):
    """Gradients of the proposal's mean and log-scale and of the decoder's mean, [3, repeats], and the loss. `power` 0 or 2
    breaks the toll on purpose.
    """
    loc, rho, shift = (torch.full((repeats,), value, dtype=torch.float64, requires_grad=True) for value in (0.3, 0.1, 0.2))
    weights = bounds.Weights()
    seen = loc + rho.exp() * draw(samples, repeats, seed=3)
    for _ in range(power): seen = bounds.toll(seen[..., None], weights)[..., 0]
    held, width = (loc, rho.exp()) if kind == "plain" else (loc.detach(), rho.exp().detach())
    log_q = -0.5 * ((seen - held) / width) ** 2 - width.log() - 0.5 * LOG_TWO_PI
    loss = bounds.iw_objective(log_normal(1.3, seen + shift, 1.0) + beta * (log_normal(seen, 0.0, 1.0) - log_q), weights, kind, beta=beta)
    return torch.stack(torch.autograd.grad(loss.sum(), (loc, rho, shift))), loss.detach()


def errors_apart(a, b): return ((a - b).mean(1) / ((a - b).std(1) / math.sqrt(a.shape[1]) + 1e-12)).abs()


@pytest.mark.parametrize("samples", [1, 2, 6])
def test_dreg_is_unbiased_at_every_point_of_a_warm_up(samples):
    for beta in [0.0, 0.3, 1.0, 1.7]:
        (plain, value), (dreg, same) = (gradients(kind, samples=samples, beta=beta) for kind in ("plain", "dreg"))
        torch.testing.assert_close(value, same)
        assert (errors_apart(plain, dreg) < 4).all()
        torch.testing.assert_close(plain[2], dreg[2])  # the decoder's gradient is the plain one, draw for draw


@pytest.mark.parametrize("power", [0, 2])
def test_a_toll_that_is_not_paid_or_paid_twice_is_seen(power):
    plain, wrong = gradients("plain")[0], gradients("dreg", power=power)[0]
    assert errors_apart(plain, wrong)[:2].max() > 20


def test_stl_is_unbiased_for_one_sample_and_biased_for_more():
    assert (errors_apart(gradients("plain", samples=1)[0], gradients("stl", samples=1)[0]) < 4).all()
    assert errors_apart(gradients("plain")[0], gradients("stl")[0])[:2].max() > 10
    torch.testing.assert_close(gradients("stl", samples=1)[0], gradients("dreg", samples=1)[0])


def test_the_plain_gradient_is_that_of_the_bound():
    log_w = draw(5, 3).requires_grad_()
    assert torch.autograd.gradcheck(lambda w: bounds.iw_objective(w, bounds.Weights()), (log_w,))
    (slope,) = torch.autograd.grad(-bounds.iw_objective(log_w, bounds.Weights()).sum(), log_w)
    torch.testing.assert_close(slope, bounds.normalised_weights(log_w))


def test_toll_is_the_identity_until_weights_are_set():
    z, weights = draw(2, 3, 4).requires_grad_(), bounds.Weights()
    passed = bounds.toll(z, weights)
    assert torch.equal(passed, z)
    assert torch.equal(torch.autograd.grad(passed.sum(), z, retain_graph=True)[0], torch.ones_like(z))
    weights.values = torch.arange(6.0, dtype=torch.float64).view(2, 3)
    assert torch.equal(torch.autograd.grad(passed.sum(), z)[0], weights.values[..., None].expand_as(z))
    assert not bounds.toll(z.detach(), weights).requires_grad


@pytest.mark.parametrize(("layers", "bottom_up", "weighted", "valid"), [
    (1, True, False, True), (1, False, False, True), (4, False, False, True), (2, True, False, False), (1, True, True, False),
    (3, False, True, False),
])
def test_where_an_analytic_divergence_is_a_bound(layers, bottom_up, weighted, valid):
    assert (bounds.refuse_analytic(layers, bottom_up, weighted) == "") == valid
