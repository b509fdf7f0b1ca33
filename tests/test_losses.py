"""Distances, mask penalties and contrastive losses: many cases, dtypes, odd shapes, independent references."""
import math

import pytest
import torch
from latentlab.losses import contrastive, distances, masks
from torch.nn.functional import cosine_similarity


def draw(*shape, seed=0, dtype=torch.float64): return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


PLAIN = ("cosine", "half_cosine", "relative_l2")


# distances ----------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("name", PLAIN)
def test_distance_is_per_example_and_zero_for_itself(name):
    for shape in [(1, 7), (4, 5, 3), (0, 3)]:
        a = draw(*shape)
        distance = distances.make_distance(name)(a, a)
        assert distance.shape == shape[:-1]
        assert distance.abs().max().item() < 1e-12 if distance.numel() else True


@pytest.mark.parametrize("name", PLAIN)
def test_half_precision_does_not_overflow(name):
    for dtype in [torch.float16, torch.bfloat16]:
        a, b = (300 * draw(4, 2048, seed=s).to(dtype) for s in (0, 1))  # sums of squares are far above float16's 65,504
        low = distances.make_distance(name)(a, b)
        assert low.dtype == torch.float32
        torch.testing.assert_close(low.double(), distances.make_distance(name)(a.double(), b.double()), rtol=1e-4, atol=1e-5)


def test_cosine_agrees_with_torch():
    a, b = draw(100, 33), draw(100, 33, seed=1)
    torch.testing.assert_close(distances.cosine_distance(a, b), 1 - cosine_similarity(a, b, dim=-1))
    torch.testing.assert_close(distances.half_cosine_distance(a, b), (1 - cosine_similarity(a, b, dim=-1)) / 2)


def test_relative_l2_agrees_with_torch():
    a, b = draw(100, 33), draw(100, 33, seed=1)
    torch.testing.assert_close(distances.relative_l2(a, b), (a - b).norm(dim=-1) / a.norm(dim=-1))


@pytest.mark.parametrize("name", [*PLAIN, "whitened_cosine", "normalised_l2", "mahalanobis"])
def test_distances_stay_in_their_range(name):
    distance, scale = distances.make_distance(name, draw(200, 6, seed=2)), distances.DISTANCES[name]
    values = distance(draw(500, 6), draw(500, 6, seed=1))
    assert values.min() >= scale.low - 1e-9 and values.max() <= scale.high + 1e-9
    distances.with_scale(name, values.mean().item())


@pytest.mark.parametrize("name", PLAIN)
def test_blank_embeddings_have_finite_values_and_slopes(name):
    for which in ["reference", "other", "both", "tiny"]:
        a, b = draw(3, 8), draw(3, 8, seed=1)
        if which in ("reference", "both"): a = torch.zeros_like(a)
        if which in ("other", "both"): b = torch.zeros_like(b)
        if which == "tiny": b = b * 1e-9
        a, b = a.requires_grad_(), b.requires_grad_()
        distance = distances.make_distance(name)(a, b)
        expected = 0.5 if name == "half_cosine" else 1.0
        torch.testing.assert_close(distance, torch.full_like(distance, expected), rtol=1e-6, atol=1e-6)
        slopes = torch.autograd.grad(distance.sum(), (a, b))
        assert all(s.isfinite().all() and s.abs().max() < 10 for s in slopes)


@pytest.mark.parametrize("name", [*PLAIN, "whitened_cosine", "normalised_l2", "mahalanobis"])
def test_distance_gradients(name):
    distance = distances.make_distance(name, draw(50, 4, seed=3))
    assert torch.autograd.gradcheck(distance, (draw(3, 4).requires_grad_(), draw(3, 4, seed=1).requires_grad_()))


@pytest.mark.parametrize("name", [*PLAIN, "whitened_cosine", "normalised_l2", "mahalanobis"])
def test_maps_and_single_vectors_are_refused(name):
    for shape in [(2, 6, 7, 7), (6,)]:
        distance = distances.make_distance(name, draw(50, shape[-1], seed=3))
        with pytest.raises(ValueError, match=r"\[batch, latent\]"): distance(draw(*shape), draw(*shape))


def test_half_cosine_of_non_negative_features_ends_at_one_half():
    assert distances.half_cosine_distance(draw(1000, 5).abs(), draw(1000, 5, seed=1).abs()).max() <= 0.5


def test_whitening_gives_unit_covariance_and_ignores_affine_maps():
    x = draw(400, 5) @ draw(5, 5, seed=10) + 3
    fitted = distances.WhitenedCosine.fit(x, floor=1e-9)
    torch.testing.assert_close(torch.cov(fitted.whiten(x).T), torch.eye(5).double())
    torch.testing.assert_close(fitted.matrix, fitted.matrix.T)
    moved = x @ draw(5, 5, seed=20) - 7
    other = distances.WhitenedCosine.fit(moved, floor=1e-9)
    torch.testing.assert_close(other(moved[:9], moved[9:18]), fitted(x[:9], x[9:18]))


def test_whitening_with_fewer_samples_than_latents_is_finite():
    x = draw(10, 64)
    assert distances.WhitenedCosine.fit(x)(x[:5], x[5:]).isfinite().all()


def test_whitening_refuses_what_it_cannot_be_fitted_on():
    for bad in [draw(1, 4), draw(4), draw(2, 3, 4)]:
        with pytest.raises((ValueError, TypeError)): distances.WhitenedCosine.fit(bad)


def test_scales_refuse_impossible_numbers():
    with pytest.raises(ValueError, match="another scale"): distances.with_scale("half_cosine", 1.7)
    with pytest.raises(ValueError, match="another scale"): distances.with_scale("relative_l2", float("nan"))
    assert "1-cos = 0.580 in [0, 2]" == distances.with_scale("cosine", 0.58)


# masks --------------------------------------------------------------------------------------------------------------

KEEP = {"area": masks.area, "total_variation": masks.total_variation, "border": masks.border, "binarity": masks.binarity}
LOGIT = {"entropy": masks.entropy, "kl": lambda z: masks.bernoulli_kl(z, 1e-4)}


@pytest.mark.parametrize("name", [*KEEP, *LOGIT])
def test_penalties_are_per_example_at_odd_shapes(name):
    for shape in [(3, 3), (1, 4, 5), (2, 3, 5, 4)]:
        f = KEEP.get(name) or LOGIT[name]
        x = draw(*shape).sigmoid() if name in KEEP else draw(*shape)
        assert f(x).shape == shape[:-2]
        batched = f(x.reshape(-1, *shape[-2:]))
        single = torch.stack([f(one[None])[0] for one in x.reshape(-1, *shape[-2:])])
        torch.testing.assert_close(batched, single)


@pytest.mark.parametrize("name", [*KEEP, *LOGIT])
def test_penalties_do_not_care_how_the_image_lies(name):
    f = KEEP.get(name) or LOGIT[name]
    x = draw(4, 6, 8).sigmoid() if name in KEEP else draw(4, 6, 8)
    for turned in (x.flip(-1), x.flip(-2), x.mT): torch.testing.assert_close(f(turned), f(x))


@pytest.mark.parametrize("name", [*KEEP, *LOGIT])
def test_penalty_gradients(name):
    f = (lambda z: KEEP[name](z.sigmoid())) if name in KEEP else LOGIT[name]
    assert torch.autograd.gradcheck(f, (draw(2, 4, 4).requires_grad_(),))


def test_kl_agrees_with_torch_and_has_its_maximum_where_proved():
    for p in [1e-6, 1e-4, math.exp(-8), 0.1, 0.5, 0.9]:
        z = torch.linspace(-30, 30, 401, dtype=torch.float64)
        values = masks.bernoulli_kl(z[:, None, None].expand(-1, 2, 2), p)
        reference = torch.distributions.kl_divergence(torch.distributions.Bernoulli(logits=z),
                                                      torch.distributions.Bernoulli(torch.tensor(p, dtype=z.dtype)))
        torch.testing.assert_close(values, reference, rtol=1e-6, atol=1e-9)
        assert values.min() > -1e-12 and values.max() <= masks.largest_kl(p) + 1e-9
        assert values.max() > masks.largest_kl(p) - 1e-6


def test_kl_maximum_is_ln_ten_thousand_and_not_eight():
    top = masks.bernoulli_kl(torch.full((1, 4, 4), 60.0), 1e-4).item()
    assert top == pytest.approx(math.log(1e4), abs=1e-5) and abs(top - 8) > 1.2
    z = torch.logit(torch.tensor(0.9, dtype=torch.float64))
    assert masks.bernoulli_kl(z.expand(1, 2, 2), 1e-4).item() == pytest.approx(7.9642, abs=5e-5)


def test_kl_is_area_minus_entropy_exactly():
    for p in [1e-6, 1e-4, 0.2]:
        z, top = 5 * draw(7, 9, 9), -math.log(p)
        area = masks.area(z.sigmoid())
        torch.testing.assert_close(masks.bernoulli_kl(z, p) / top, area - masks.entropy(z) / top - (1 - area) * math.log1p(-p) / top)


def test_kl_slope_is_the_stated_one():
    z = (6 * draw(1, 8, 8)).requires_grad_()
    slope = torch.autograd.grad(64 * masks.bernoulli_kl(z, 1e-4).sum(), z)[0]
    q = z.detach().sigmoid()
    torch.testing.assert_close(slope, q * (1 - q) * (z.detach() - math.log(1e-4 / (1 - 1e-4))))


def test_prior_may_be_a_tensor_and_per_example():
    for p in [torch.tensor(1e-4), torch.full((3,), 1e-4), torch.tensor([1e-2, 1e-3, 1e-4])]:
        z = draw(3, 4, 4, dtype=torch.float32)
        expected = torch.stack([masks.bernoulli_kl(one[None], q.item())[0] for one, q in zip(z, p.expand(3))])
        torch.testing.assert_close(masks.bernoulli_kl(z, p), expected)


def test_extreme_logits_stay_finite_in_float32():
    for logit in [-1e4, -100.0, 100.0, 1e4]:
        z = torch.full((1, 4, 4), logit, requires_grad=True)
        (masks.bernoulli_kl(z, 1e-4) + masks.entropy(z)).sum().backward()
        assert z.grad.isfinite().all()


def test_impossible_priors_are_refused():
    for p in [0.0, 1.0, -1e-4, 2, float("nan")]:
        with pytest.raises((ValueError, TypeError), match="prior"): masks.bernoulli_kl(draw(1, 4, 4), p)


@pytest.mark.parametrize("name", list(KEEP))
def test_penalty_of_a_vector_or_a_thin_mask_is_refused(name):
    with pytest.raises((ValueError, TypeError)): KEEP[name](torch.rand(5))
    with pytest.raises(ValueError, match="2 pixels"): KEEP[name](torch.rand(3, 1, 5))


def test_border_without_a_middle_is_refused():
    for width in [0, 3, -1]:
        with pytest.raises(ValueError, match="width"): masks.border(torch.rand(1, 6, 6), width=width)


def test_border_counts_the_ring_exactly():
    keep = draw(2, 7, 9).sigmoid()
    ring = torch.ones(7, 9, dtype=torch.bool)
    ring[2:-2, 2:-2] = False
    torch.testing.assert_close(masks.border(keep, width=2), keep[:, ring].mean(-1))


# contrastive --------------------------------------------------------------------------------------------------------

def cross_entropy_simclr(first, second, tau):
    "The usual form with targets, an independent route to the same number."
    z = torch.nn.functional.normalize(torch.cat([first, second]), dim=1)
    logits = (z @ z.T / tau).fill_diagonal_(-1e9)
    n = len(first)
    losses = torch.nn.functional.cross_entropy(logits, torch.cat([torch.arange(n) + n, torch.arange(n)]), reduction="none")
    return (losses[:n] + losses[n:]) / 2


def test_simclr_agrees_with_cross_entropy():
    for tau in [0.05, 0.2, 1.0]:
        for n in [2, 17]:
            first, second = draw(n, 9), draw(n, 9, seed=1)
            torch.testing.assert_close(contrastive.simclr_loss(first, second, temperature=tau), cross_entropy_simclr(first, second, tau))


def test_simclr_of_a_collapsed_encoder():
    for n in [2, 5, 64]:
        same = torch.ones(n, 4)
        torch.testing.assert_close(contrastive.simclr_loss(same, same), torch.full((n,), math.log(2 * n - 1)))


def test_simclr_is_blind_to_rotation_and_scale():
    first, second = draw(8, 6), draw(8, 6, seed=1)
    turn = torch.linalg.qr(draw(6, 6, seed=2))[0]
    torch.testing.assert_close(contrastive.simclr_loss(3 * first @ turn, second @ turn), contrastive.simclr_loss(first, second))


def test_zero_projections_are_finite():
    blank = torch.zeros(4, 5, requires_grad=True)
    loss = contrastive.simclr_loss(blank, torch.randn(4, 5, generator=torch.Generator().manual_seed(0))).sum()
    loss.backward()
    assert loss.isfinite() and blank.grad.isfinite().all()


@pytest.mark.parametrize("shape", [(4, 4), (64, 10), (3, 7)])
def test_sinkhorn_rows_and_columns(shape):
    for epsilon in [1e-3, 0.05, 1.0, 100.0]:
        scores = draw(*shape).tanh()
        codes = contrastive.sinkhorn(scores, epsilon=epsilon, iterations=500)
        torch.testing.assert_close(codes.sum(-1), torch.ones(shape[0]).double())
        assert codes.isfinite().all() and codes.min() >= 0
        if epsilon >= 0.05:
            torch.testing.assert_close(codes.sum(0), torch.full((shape[1],), shape[0] / shape[1]).double(), rtol=1e-3, atol=1e-3)
        assert not contrastive.sinkhorn(scores.requires_grad_()).requires_grad


def test_sinkhorn_maximises_similarity_plus_entropy():
    "Any other equal-share plan has a lower value of eq. 3: tried on the plan moved along random feasible directions."
    scores = draw(6, 3).tanh()
    plan = contrastive.sinkhorn(scores, epsilon=0.5, iterations=2000)
    value = lambda q: (q * scores).sum() - 0.5 * (q * q.log()).sum()
    for seed in range(20):
        step = draw(6, 3, seed=seed)
        step = step - step.mean(0) - step.mean(1, keepdim=True) + step.mean()
        assert value((plan + 1e-3 * step).clamp_min(1e-12)) < value(plan)


def test_swav_prefers_agreement():
    centres = torch.eye(6).double()
    views = torch.eye(6).double()
    good, bad = contrastive.swav_loss(views, views, centres), contrastive.swav_loss(views, views.roll(1, 0), centres)
    assert (good < 0.01).all() and (bad > 5).all()


@pytest.mark.parametrize("loss", [contrastive.simclr_loss, lambda a, b, **k: contrastive.swav_loss(a, b, draw(3, 5, seed=9), **k)])
def test_contrastive_refusals_and_tensor_temperature(loss):
    a, b = draw(6, 5), draw(6, 5, seed=1)
    torch.testing.assert_close(loss(a, b, temperature=torch.tensor(0.3, dtype=a.dtype)), loss(a, b, temperature=0.3))
    order = torch.randperm(6, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(loss(a[order], b[order]), loss(a, b)[order])
    with pytest.raises((ValueError, TypeError)): loss(a, b[:2])
    with pytest.raises(ValueError, match="2 images"): loss(a[:1], b[:1])
    with pytest.raises(ValueError, match="temperature"): loss(a, b, temperature=-1.0)
