"""The child under a mask: what the loss counts, who gets gradients, empty masks, levels, rivals; meters of redundancy; masks against truth."""
import math

import pytest
import torch
from latentlab.data.sprites import sprites
from latentlab.families.compvae.child import (BASELINES, Child, ChildSettings, baseline_child, baseline_keep, child_terms, climb, cut_out,
                                              masked_mean, random_keep, side_by_side)
from latentlab.families.compvae.mask_checks import (beta_over_area, empty_or_full_masks, eroded_mask, redundant_child, shape_leak,
                                                    skipped_images)
from latentlab.families.compvae.masks import latent_masks
from latentlab.families.compvae.redundancy import (Critics, cross_covariance, gaussian_information, held_out_r2, read_meters,
                                                   redundancy_penalty)
from latentlab.families.compvae.total_correlation import Code
from latentlab.families.compvae.truth import score_masks, true_mask


def stream(seed: int = 0) -> torch.Generator: return torch.Generator().manual_seed(seed)


def place_picture(z: torch.Tensor) -> torch.Tensor:
    "A bar whose place is the first latent of a code."
    return (-(torch.arange(16) - 8 - 4 * z[:, :1]).square() / 4).exp()[:, None, None].expand(-1, 1, 16, -1)


def small(given: int = 3, **changes) -> Child:
    settings = ChildSettings(**({"latents": 2, "width": 4, "features": 16} | changes))
    return Child(settings, (1, 16, 16), given=given, draw=place_picture, generator=stream())


X = torch.rand(6, 1, 16, 16, generator=stream(1))
KEEP = (torch.rand(6, 16, 16, generator=stream(2)) > 0.6).float()
ABOVE = Code(mean=torch.randn(6, 3, generator=stream(3)), log_variance=torch.full((6, 3), -2.0))


@pytest.mark.parametrize("likelihood", ["bernoulli", "gaussian"])
def test_pixels_outside_the_mask_do_not_matter_to_a_masked_loss(likelihood: str) -> None:
    child = small(sight="masked", likelihood=likelihood, fill="zero")
    other = KEEP[:, None] * X + (1 - KEEP[:, None]) * torch.rand(X.shape, generator=stream(4))
    a, b = (child_terms(child, x, KEEP, ABOVE, stream()) for x in (X, other))
    for name in a: assert torch.allclose(a[name], b[name], atol=1e-3), name
    seen = child_terms(small(likelihood=likelihood), other, KEEP, ABOVE, stream())  # the whole image at the input: the code may differ
    assert not torch.allclose(seen["child_kl"], child_terms(small(likelihood=likelihood), X, KEEP, ABOVE, stream())["child_kl"])


def test_the_error_does_not_depend_on_the_area() -> None:
    nats = torch.ones(4, 32, 32)
    for share in (0.02, 0.2, 1.0):
        keep = (torch.rand(4, 32, 32, generator=stream()) < share).float()
        assert torch.allclose(masked_mean(nats, keep), torch.ones(4))
    assert beta_over_area(nats, torch.ones_like(nats), stream()) < 1e-5
    assert beta_over_area(nats, torch.ones_like(nats), stream(), lambda n, k: (n * k).sum((1, 2))) == pytest.approx(9, abs=1.5)


def test_empty_masks_are_skipped_counted_and_alarmed() -> None:
    some = KEEP.clone()
    some[::2] = 0
    terms = child_terms(small(), X, some, ABOVE, stream())
    assert terms.observed["child_skipped"].tolist() == [1, 0, 1, 0, 1, 0]
    for name in terms: assert (terms[name][::2] == 0).all() and terms[name].isfinite().all()
    sum(v.mean() for v in child_terms(small(), X, 0 * KEEP, ABOVE, stream()).values()).backward()  # nothing to learn, and no error
    assert skipped_images(terms.observed["child_skipped"]).level == "bad" and empty_or_full_masks(some).level == "bad"
    assert skipped_images(torch.zeros(6)).level == empty_or_full_masks(KEEP).level == "ok"


@pytest.mark.parametrize("condition", ["picture", "concat", "film", "none"])
@pytest.mark.parametrize("parent", ["frozen", "joint"])
def test_gradients_reach_the_parent_only_when_joint(parent: str, condition: str) -> None:
    above = Code(*(part.clone().requires_grad_() for part in ABOVE))
    child = small(parent=parent, condition=condition)
    sum(v.mean() for v in child_terms(child, X, KEEP, above, stream()).values()).backward()
    assert all((part.grad is not None) == (parent == "joint") for part in above)
    assert all(p.grad is not None for p in child.parameters())


def test_a_picture_says_where_and_the_code_what() -> None:
    "Far from the border, a picture moved by a stride of the network moves what the child draws, whatever the code."
    settings = ChildSettings(latents=2, width=4, features=16, layers=2, condition="picture")
    picture = torch.rand(6, 1, 64, 64, generator=stream(6))
    child, w = Child(settings, (1, 64, 64), given=3, draw=lambda z: picture, generator=stream()), ABOVE.mean[:, :2]
    here, inside = child.logits(w, ABOVE.mean), slice(24, 40)
    child.draw = lambda z: picture.roll((8, -4), (2, 3))
    assert torch.allclose(child.logits(w, ABOVE.mean)[..., inside, inside], here.roll((8, -4), (2, 3))[..., inside, inside], atol=1e-5)
    assert not torch.allclose(child.logits(w + 1, ABOVE.mean), child.logits(w, ABOVE.mean), atol=1e-3)
    with pytest.raises(ValueError, match="`draw` must be given where condition is picture: got None"): Child(settings, (1, 64, 64), given=3)


def test_a_child_overfits_eight_images() -> None:
    x = torch.rand(8, 1, 8, 8, generator=stream(5)).round()
    keep, above = torch.ones(8, 8, 8), Code(mean=torch.zeros(8, 1), log_variance=torch.zeros(8, 1))
    child = Child(ChildSettings(latents=8, width=8, features=64, beta=0.0), (1, 8, 8), given=1, generator=stream())
    optimiser, errors = torch.optim.Adam(child.parameters(), lr=1e-2), []
    for step in range(80):
        terms = child_terms(child, x, keep, above, stream(step))
        loss = terms["child_nll"].mean() + 0.01 * terms["child_kl"].mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        errors.append(terms["child_nll"].mean().item())
    assert errors[-1] < 0.5 * errors[0]


def test_settings_in_force_are_obeyed() -> None:
    lower = ChildSettings(latents=2, width=4, features=16, least_area=0.5)
    terms = child_terms(small(), X, KEEP, ABOVE, stream(), live=lower)
    assert terms.observed["child_skipped"].sum() == 6 > child_terms(small(), X, KEEP, ABOVE, stream()).observed["child_skipped"].sum()


def test_three_levels_and_masks_of_each() -> None:
    class Parent:
        def encode(self, x: torch.Tensor) -> Code: return Code(mean=x.mean((2, 3)), log_variance=x.mean((2, 3)) - 3)

    children = [small(given=1), small(given=3), small(given=5)]
    codes = climb(Parent(), children, X, [KEEP] * 3)
    assert [c.mean.shape[1] for c in codes] == [1, 2, 2, 2]
    for k, child in enumerate(children):
        level = child.level(side_by_side(*codes[:k + 1]).mean, KEEP)
        assert torch.equal(level.encode(X).mean, codes[k + 1].mean)
        assert latent_masks(level.decode, codes[k + 1].mean).shape == (2, 6, 16, 16)
        assert torch.equal(level.decode(codes[k + 1].mean.repeat(2, 1))[6:], level.decode(codes[k + 1].mean))


@pytest.mark.parametrize("name", list(BASELINES))
def test_every_rival_takes_a_step(name: str) -> None:
    baseline = BASELINES[name]
    keep = baseline_keep(baseline, KEEP, other=KEEP.roll(3, -1), truth=KEEP.roll(1, -1), generator=stream())
    child = baseline_child(baseline, ChildSettings(latents=2, width=4, features=16), (1, 16, 16), given=3, generator=stream())
    assert child.settings.latents == (5 if baseline.adds_parent else 2)
    assert child_terms(child, X, keep, ABOVE, stream())["child_nll"].isfinite().all()


def test_a_random_mask_has_the_same_values() -> None:
    soft = KEEP * torch.rand(KEEP.shape, generator=stream(7))
    other = random_keep(soft, stream(8))
    assert torch.equal(other.flatten(1).sort(1).values, soft.flatten(1).sort(1).values) and not torch.equal(other, soft)


def test_masks_codes_and_images_that_do_not_fit_are_refused(unchecked: None) -> None:
    child = small()
    with pytest.raises(ValueError, match="resize_keep"): child.encode(X, KEEP[:, :8], ABOVE.mean)
    with pytest.raises(ValueError, match="3 latents of the levels above: got 2"): child.encode(X, KEEP, ABOVE.mean[:, :2])
    with pytest.raises(ValueError, match=r"shape \(1, 16, 16\)"): child.encode(X[..., :8], KEEP[..., :8], ABOVE.mean)
    with pytest.raises(ValueError, match="`truth` must be given"): baseline_keep(BASELINES["true mask"], KEEP, generator=stream())
    with pytest.raises(ValueError, match="must be mean, noise or zero"): cut_out(X, KEEP, "black")


def pairs(rho: float, n: int = 2000) -> tuple[torch.Tensor, torch.Tensor]:
    z, noise = torch.randn(2, n, 2, generator=stream())
    return rho * z + math.sqrt(1 - rho**2) * noise, z


@pytest.mark.parametrize("rho", [0.0, 0.5, 0.9])
def test_gaussian_information_is_the_known_one(rho: float) -> None:
    assert gaussian_information(*pairs(rho), shrinkage=0.0).item() == pytest.approx(-math.log(1 - rho**2), abs=0.08)
    assert cross_covariance(*pairs(rho)).item() == pytest.approx(2 * rho**2, abs=0.06)


@pytest.mark.parametrize("meter", [gaussian_information, cross_covariance])  # the width of a kernel is held: no derivative of HSIC itself
def test_gradients_of_the_meters(meter) -> None:
    w, z = (part.double() for part in pairs(0.6, 12))
    assert torch.autograd.gradcheck(lambda v: meter(v, z), (w.requires_grad_(),), eps=1e-6, atol=1e-3)


def test_meters_of_constant_codes_are_finite() -> None:
    w, z = pairs(0.5, 64)
    w = torch.cat([w, torch.ones(64, 1)], 1)
    found = read_meters(w, z, Critics(3, 2, generator=stream()))
    assert all(math.isfinite(v) for v in found.values())
    for kind in ("gaussian", "cross_covariance", "hsic", "ratio", "club", "probe"):
        leaf = w.clone().requires_grad_()
        redundancy_penalty(kind, leaf, z, Critics(3, 2, generator=stream())).mean().backward()
        assert leaf.grad.isfinite().all(), kind


def test_the_leak_meter_reads_what_is_there_and_no_more() -> None:
    w, z = pairs(0.9)
    assert (held_out_r2(w, z, "linear") - 0.81).abs().max() < 0.05
    assert held_out_r2(w, torch.randn(2000, 2, generator=stream(9))).max() < 0.03
    assert redundant_child({"x": 0.6}).level == "bad" and redundant_child({"x": 0.05}).level == "ok"
    assert shape_leak({"x": 0.9}, seen=True).level == "warn" and shape_leak({"x": 0.9}, seen=False).level == "ok"


def test_true_masks_of_sprites_score_themselves() -> None:
    world = sprites()
    values = world.sample(4, seed=0)
    for name in ("x", "y", "scale", "orientation"):
        truth = true_mask(world, values, name, side=32)
        scores = score_masks(truth, truth)
        there = truth.mean((1, 2)) > 0
        assert torch.allclose(scores.auc[there], torch.ones(int(there.sum()))) and scores.iou[there].min() > 0.999
        assert scores.auc[~there].isnan().all()
    assert eroded_mask(truth, truth).level == "ok"
