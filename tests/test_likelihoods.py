"""Latent normals and likelihoods: many cases, dtypes, odd shapes, independent references."""
import math

import pytest
import torch
import torch.distributions as D
from latentlab.losses import gaussian, likelihoods
from latentlab.losses.gaussian import Normal

NAMES = ("bernoulli", "gaussian", "fixed_gaussian", "logistic_mixture")


def draw(*shape, seed=0, dtype=torch.float64): return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def normal(*shape, seed=0): return Normal(draw(*shape, seed=seed), draw(*shape, seed=seed + 1).exp())


def data(name, *shape, seed=0, dtype=torch.float64):
    "Data inside the support of a likelihood."
    unit = draw(*shape, seed=seed, dtype=dtype).sigmoid()
    if name == "bernoulli": return unit.round()
    return (255 * unit).round() / 255 if name == "logistic_mixture" else draw(*shape, seed=seed, dtype=dtype)


# normals ------------------------------------------------------------------------------------------------------------

SHAPES = [((4, 3), (4, 3)), ((5, 4, 3), (4, 3)), ((4, 3), (5, 4, 3)), ((2, 5, 4, 3), (4, 3)), ((1, 1), (1, 1)), ((0, 3), (0, 3)),
          ((4, 3), (3,))]


def test_normals_agree_with_torch():
    for left, right in SHAPES:
        q, p = normal(*left), normal(*right, seed=5)
        other, reference = D.Normal(p.loc, p.scale), D.Normal(q.loc, q.scale)
        torch.testing.assert_close(gaussian.kl(q, p), D.kl_divergence(reference, other))
        torch.testing.assert_close(p.log_prob(q.loc), other.log_prob(q.loc).sum(-1))
        torch.testing.assert_close(p.sample(q.loc), p.loc + p.scale * q.loc)
        torch.testing.assert_close(gaussian.kl_to_standard_normal(q.loc, q.scale), gaussian.kl(q, gaussian.standard(q.loc)))
        merged = gaussian.merge(q, p)
        precision = q.scale**-2 + p.scale**-2
        torch.testing.assert_close(merged.scale, precision**-0.5)
        torch.testing.assert_close(merged.loc, (q.loc * q.scale**-2 + p.loc * p.scale**-2) / precision)


@pytest.mark.parametrize(("left", "right"), [((4, 3), (4, 1)), ((4, 1, 3), (1, 4, 3)), ((5, 4, 3), (5, 3)), ((4, 3), (1,))])
def test_a_silent_stretch_is_refused(left, right):
    q, p = normal(*left), normal(*right)
    uses = (lambda: gaussian.kl(q, p), lambda: gaussian.kl(p, q), lambda: gaussian.merge(q, p), lambda: p.log_prob(q.loc),
            lambda: p.sample(q.loc), lambda: q.log_prob(p.loc))
    for use in uses:
        with pytest.raises(ValueError, match="must end with that of"): use()


def test_loc_and_scale_of_two_shapes_are_refused(unchecked):
    for loc, scale in (((4, 3), (3,)), ((4, 3), (4, 1)), ((3,), (4, 3))):
        with pytest.raises(ValueError, match="`loc` and `scale` must have one shape"): Normal(torch.zeros(loc), torch.ones(scale))
        with pytest.raises(ValueError, match="`loc` and `scale` must have one shape"):
            gaussian.kl_to_standard_normal(torch.zeros(loc), torch.ones(scale))


def test_draws_have_the_stated_density():
    q = normal(2, 3)
    z = q.sample(draw(40_000, 2, 3, seed=9))
    entropy = D.Normal(q.loc, q.scale).entropy().sum(-1)
    assert (-q.log_prob(z).mean(0) - entropy).abs().max() < 5 * (3 / 2) ** 0.5 / 200  # each dimension's log-density has variance 1/2


def test_normals_have_slopes_unless_detached():
    loc, raw = draw(3, 2).requires_grad_(), draw(3, 2, seed=1).requires_grad_()
    q = Normal(loc, raw.exp())
    gaussian.kl(q, q.detach()).sum().backward()
    torch.testing.assert_close(loc.grad, torch.zeros_like(loc))
    torch.testing.assert_close(raw.grad, torch.zeros_like(raw))
    assert not q.detach().loc.requires_grad and not q.detach().scale.requires_grad


def test_a_merge_is_the_posterior_of_a_linear_gaussian_model():
    prior, noise, x = normal(4, 3), draw(4, 3, seed=3).exp(), draw(4, 3, seed=4)
    posterior = gaussian.merge(Normal(x, noise), prior)
    z = draw(50, 4, 3, seed=6)
    evidence = Normal(z, noise.expand_as(z)).log_prob(x) + prior.log_prob(z) - posterior.log_prob(z)  # log p(x), at whichever z
    exact = Normal(prior.loc, (prior.scale.square() + noise.square()).sqrt()).log_prob(x)
    torch.testing.assert_close(evidence, exact.expand_as(evidence))


# likelihoods --------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("name", NAMES)
def test_shapes_and_lead_axes(name):
    for batch, event in [(1, 1), (3, 9), (0, 5)]:
        for lead in [(), (1,), (2, 3)]:
            likelihood, x = likelihoods.make_likelihood(name), data(name, batch, event)
            raw = draw(*lead, batch, likelihood.parameters, event, seed=3)
            nats, rng = likelihood.log_prob(x, raw), torch.Generator().manual_seed(0)
            assert nats.shape == (*lead, batch)
            assert likelihood.mean(raw).shape == likelihood.sample(raw, rng).shape == (*lead, batch, event)
            flat = raw.reshape(math.prod(lead), *raw.shape[-3:])
            torch.testing.assert_close(nats.reshape(math.prod(lead), batch), torch.stack([likelihood.log_prob(x, one) for one in flat]))
            assert likelihood.scale(raw) is None if name == "bernoulli" else likelihood.scale(raw).shape == (*lead, batch, event)


@pytest.mark.parametrize("name", NAMES)
def test_slopes_agree_with_finite_differences(name):
    likelihood, x = likelihoods.make_likelihood(name, components=2), data(name, 3, 4)
    raw = draw(2, 3, likelihood.parameters, 4, seed=3).requires_grad_()
    assert torch.autograd.gradcheck(lambda r: likelihood.log_prob(x, r), (raw,))
    assert torch.autograd.gradgradcheck(lambda r: likelihood.log_prob(x, r), (raw,))


@pytest.mark.parametrize("name", NAMES)
def test_extreme_numbers_stay_finite(name):
    for size in [-1e4, -30.0, 0.0, 30.0, 1e4]:
        likelihood, x = likelihoods.make_likelihood(name), data(name, 5, 3, dtype=torch.float32)
        raw = (size * torch.ones(5, likelihood.parameters, 3)).requires_grad_()
        nats = likelihood.log_prob(x, raw)
        nats.sum().backward()
        assert nats.isfinite().all() and raw.grad.isfinite().all()
        if likelihood.discrete: assert nats.max() <= 0


@pytest.mark.parametrize("name", NAMES)
def test_half_precision_is_widened(name):
    for dtype in [torch.bfloat16, torch.float16]:
        likelihood, x = likelihoods.make_likelihood(name), data(name, 4, 784, dtype=torch.float32)
        raw = draw(4, likelihood.parameters, 784, seed=3).to(dtype)
        assert likelihood.log_prob(x, raw).dtype == torch.float32
        torch.testing.assert_close(likelihood.log_prob(x, raw), likelihood.log_prob(x, raw.float()))
        with torch.autocast("cpu", torch.bfloat16):
            torch.testing.assert_close(likelihood.log_prob(x, raw), likelihood.log_prob(x, raw.float()))


@pytest.mark.parametrize("name", NAMES)
def test_event_order_does_not_matter(name):
    likelihood, x = likelihoods.make_likelihood(name), data(name, 3, 8)
    raw, order = draw(3, likelihood.parameters, 8, seed=3), torch.tensor([3, 1, 7, 0, 2, 6, 5, 4])
    torch.testing.assert_close(likelihood.log_prob(x[:, order], raw[..., order]), likelihood.log_prob(x, raw))


@pytest.mark.parametrize("name", NAMES)
def test_draws_have_the_stated_moments_and_repeat_with_their_seed(name):
    likelihood = likelihoods.make_likelihood(name, components=2, scale=0.3)
    raw = draw(2, likelihood.parameters, 3, seed=3)
    drawn = likelihood.sample(raw.expand(20_000, *raw.shape), torch.Generator().manual_seed(0))
    mean = likelihood.mean(raw)
    scale = (mean * (1 - mean)).sqrt() if likelihood.scale(raw) is None else likelihood.scale(raw)
    assert ((drawn.mean(0) - mean).abs() < 5 * scale / 20_000**0.5 + 1e-4).all()
    assert ((drawn.std(0) / scale - 1).abs() < 0.05).all()
    torch.testing.assert_close(likelihood.sample(raw, torch.Generator().manual_seed(1)),
                               likelihood.sample(raw, torch.Generator().manual_seed(1)), rtol=0, atol=0)
    likelihood.check(drawn)


@pytest.mark.parametrize("name", NAMES)
def test_wrong_shapes_are_refused(name, unchecked):
    likelihood, x = likelihoods.make_likelihood(name), data(name, 4, 3)
    n = likelihood.parameters
    for shape in ((4, n + 1, 3), (1, n, 3), (4, n, 1), (4, 1, n, 3), (4, n, 2, 3), (n, 3), (2, 3, n, 3)):
        with pytest.raises(ValueError, match="`raw` must be"): likelihood.log_prob(x, draw(*shape))
    with pytest.raises(ValueError, match="`raw` must be"): likelihood.mean(draw(4, n + 1, 3))


@pytest.mark.parametrize("name", NAMES)
def test_data_that_are_not_finite_are_refused(name):
    for bad in [math.nan, math.inf, -math.inf]:
        x = data(name, 4, 3)
        x[2, 1] = bad
        with pytest.raises(ValueError, match="`x` must be finite: got 1 of 12"): likelihoods.make_likelihood(name).check(x)


@pytest.mark.parametrize("name", ["bernoulli", "logistic_mixture"])
def test_data_outside_the_unit_range_are_refused(name):
    for bad in [-0.1, 1.1, 255.0]:
        x = data(name, 4, 3)
        x[0, 0] = bad
        with pytest.raises(ValueError, match=f"must be in .0, 1. for {name}"): likelihoods.make_likelihood(name).check(x)


def test_levels_are_checked_to_a_thousandth():
    mixture, x = likelihoods.LogisticMixture(), data("logistic_mixture", 4, 3)
    mixture.check(x + 5e-4 * (0.5 - x).sign())
    with pytest.raises(ValueError, match="multiples of 1/255"): mixture.check(x + 1.5e-3 * (0.5 - x).sign())


def test_a_grey_picture_is_no_probability():
    assert likelihoods.is_probability(data("bernoulli", 4, 3))
    assert not likelihoods.is_probability(data("logistic_mixture", 4, 3))
    logit = draw(1, 1, 1)
    free = logit.clone().requires_grad_()
    nats = likelihoods.Bernoulli().log_prob(logit.sigmoid()[0], free)  # its maximum is at the grey value
    assert torch.autograd.grad(nats.sum(), free)[0].abs().max() < 1e-12


def test_the_floor_is_never_passed():
    for floor in [1e-8, 1e-3, 0.05, 2.0]:
        likelihood = likelihoods.Gaussian(floor=floor)
        raw = torch.linspace(-1e3, 5, 4001, dtype=torch.float64)[:, None, None].expand(4001, 2, 1)
        assert likelihood.scale(raw).min() == floor
        best = likelihood.log_prob(raw[:, 0], raw)  # no residual
        assert best.max() <= -math.log(floor) - 0.5 * math.log(2 * math.pi) + 1e-9


def test_the_best_deviation_is_the_residual():
    for residual in [0.01, 0.1, 1.0]:
        likelihood, x = likelihoods.Gaussian(floor=1e-3), torch.full((1, 1), residual, dtype=torch.float64)
        s = torch.linspace(-9, 3, 20_001, dtype=torch.float64)
        raw = torch.stack([torch.zeros_like(s), s], -1)[:, None, :, None]
        best = likelihood.log_prob(x, raw)[:, 0].argmax()
        assert likelihood.scale(raw)[best].item() == pytest.approx(residual, rel=2e-3)  # the grid's step


def test_fixed_scale_as_number_and_as_tensor_agree():
    for scale in [0.01, 0.1, 1.0]:
        x, raw = data("gaussian", 4, 3), draw(5, 4, 1, 3, seed=3)
        number, tensor = (likelihoods.FixedGaussian(s) for s in (scale, torch.tensor(scale, dtype=torch.float64)))
        torch.testing.assert_close(number.log_prob(x, raw), tensor.log_prob(x, raw))
        torch.testing.assert_close(number.log_prob(x, raw), D.Normal(raw[..., 0, :], scale).log_prob(x).sum(-1))
        torch.testing.assert_close(number.scale(raw), tensor.scale(raw))
        assert number.log_prob(x, raw).max() <= -1.5 * math.log(2 * math.pi * scale**2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_masses_of_all_levels_sum_to_one(dtype):
    for components in [1, 10]:
        mixture = likelihoods.LogisticMixture(components=components)
        raw = 3 * draw(1, 3 * components, 6, seed=components, dtype=dtype)
        levels = (torch.arange(256, dtype=dtype) / 255)[:, None]
        mass = torch.stack([mixture.log_prob(levels, raw[..., d:d + 1].expand(256, -1, -1)) for d in range(6)], -1).exp()
        torch.testing.assert_close(mass.sum(0), torch.ones(6, dtype=dtype), rtol=0, atol=5e-5)
        mean = (mass * levels).sum(0)
        torch.testing.assert_close(mixture.mean(raw)[0], mean, rtol=0, atol=0.5 / 255)
        torch.testing.assert_close(mixture.scale(raw)[0], ((mass * (levels - mean).square()).sum(0)).sqrt(), rtol=0, atol=5e-4)


def test_bins_are_exact_down_to_a_mass_of_a_hundred_thousandth():
    for log_scale in [-7.0, -5.5, -4.0, -1.0]:
        x, wide = torch.arange(1, 255, dtype=torch.float64) / 255, torch.full((254,), log_scale, dtype=torch.float64)
        loc = torch.full_like(x, 0.4321)
        exact = (((x + 0.5 / 255 - loc) / wide.exp()).sigmoid() - ((x - 0.5 / 255 - loc) / wide.exp()).sigmoid()).log()
        thick = exact > math.log(1.001e-5)
        assert thick.any()
        torch.testing.assert_close(likelihoods.bin_log_mass(x, loc, wide)[thick], exact[thick], rtol=0, atol=1e-9)


@pytest.mark.parametrize(("settings", "sentence"), [
    (dict(name="gaussian", floor=0.0), "`floor` must be above 0"), (dict(name="gaussian", floor=math.nan), "`floor` must be above 0"),
    (dict(name="fixed_gaussian", scale=-1.0), "`scale` must be above 0"),
    (dict(name="fixed_gaussian", scale=math.inf), "`scale` must be above 0"),
    (dict(name="logistic_mixture", components=0), "`components` "
                                                  "must be 1 to 100"), (dict(name="poisson"), "`name` must be one of bernoulli"),
])
def test_impossible_settings_are_refused(settings, sentence, unchecked):
    with pytest.raises(ValueError, match=sentence): likelihoods.make_likelihood(**settings)


def test_bits_per_dim():
    for nats, dims, bits in [(-90.0, 784, 0.1656), (-228.2, 784, 0.420), (-258.7, 784, 0.476), (-172.3, 784, 0.317), (0.0, 2, 0.0)]:
        assert likelihoods.bits_per_dim(nats, dims) == pytest.approx(bits, abs=5e-4)
        assert likelihoods.nats_of_bits(likelihoods.bits_per_dim(nats, dims), dims) == pytest.approx(nats)


def test_dequantised_data_are_never_better_than_their_bytes():
    mixture, x = likelihoods.LogisticMixture(components=1), torch.arange(256, dtype=torch.float64)[:, None] / 255
    raw = torch.tensor([0.0, 0.5, -1.0], dtype=torch.float64)[None, :, None].expand(256, 3, 1)
    byte = mixture.log_prob(x, raw)
    density = byte + math.log(256)  # constant within a bin: the bound is met
    torch.testing.assert_close(likelihoods.undo_dequantisation(density, 1), byte)
