"""Checks of latent-variable models on models that were really trained: planted failures are caught, healthy models are not blamed."""
import dataclasses
import functools
import math
import re

import pytest
import torch
from latentlab.latents.checks import (LATENT_CHECKS, LATENT_LIMITS, LatentProbe, active_units, bound, collapse, find_pockets, fixed_scale,
                                      empty_layers, floor, jumps, kl_agreement,
                                      kl_weight, lost_examples, off_data, overfit, pockets, worst_pockets)
from latentlab.data.toys import expected_log_density, largest_variance, make_toy
from latentlab.losses.bounds import iw_bound
from latentlab.losses.gaussian import kl_to_standard_normal
from latentlab.families.hvae.model import make_model
from latentlab.latents.model import VAESettings, latent_terms, latent_weights

HOT = ("beta", "warmup_steps", "free_nats", "free_steps", "kl", "objective", "samples", "scale_kind", "decoder_scale", "scale_floor")
rng = lambda seed=0: torch.Generator().manual_seed(seed)
held_out = functools.cache(lambda name, noise: make_toy(name, 600, noise=noise, seed=2))


def train(model, points, steps, *, rate=3e-3, history=None, watched=None):
    "Plain steps of Adam, with the ELBO of watched points every 20 of them."
    optimiser, generator = torch.optim.Adam(model.parameters(), rate), rng(1)
    for step in range(steps):
        rows = torch.randint(len(points), (min(len(points), 256),), generator=generator)
        terms, weights = latent_terms(model, points[rows], model.live, generator), latent_weights(model, model.live)
        optimiser.zero_grad(), sum(weights[name] * value for name, value in terms.items()).mean().backward()
        optimiser.step(), model.after_step()
        if history is not None and step % 20 == 0: history.append(model.trace(watched, samples=10, generator=rng(9)).log_w.mean().item())
    return model


@torch.no_grad()
def measure(model, toy, points, history=(), samples=50):
    "The probe of a model."
    trace = model.trace(toy.points, samples=samples, generator=rng(3))
    if model.settings.kind == "ladder" or len(model.names) == 1:
        analytic = tuple(kl.mean(0) for kl in model.trace(toy.points, samples=samples, generator=rng(3), analytic=True).kl)
    else: analytic = (None,) * (len(model.names) - 1) + (kl_to_standard_normal(trace.q[-1].loc, trace.q[-1].scale).sum(-1).mean(0),)
    likelihood, (z, raw) = model.likelihood(), model.sample_prior(2000, generator=rng(5))
    use = lambda numbers: numbers[..., :likelihood.parameters, :]
    scale = likelihood.scale(use(trace.raw)).expand_as(trace.raw[..., 0, :])
    oracle = expected_log_density(toy.name, toy.noise, seed=0) if toy.noise else None
    return LatentProbe(
        names=model.names, samples=samples, elbo=trace.log_w.mean(0), iw=iw_bound(trace.log_w), nll=trace.nll.mean(0),
        kl=tuple(kl.mean(0) for kl in trace.kl), analytic=analytic,
        loc=tuple(q.loc.expand(samples, -1, -1).mean(0) if q.loc.ndim == 3 else q.loc for q in trace.q),
        z=tuple(draws[:3].flatten(0, 1) for draws in trace.z), prior=tuple(draws[0] for draws in z),
        labels=toy.labels, x=toy.points, generated=likelihood.sample(use(raw), rng(6))[0], generated_z=z[-1][0], scale=scale.mean((0, 2)),
        scale_min=scale.min().item(),
        floor=model.settings.scale_floor, scale_kind=model.settings.scale_kind, largest_variance=largest_variance(toy.points),
        train_elbo=model.trace(points[:len(toy)], samples=samples, generator=rng(4)).log_w.mean(0), oracle=oracle and oracle.mean,
        oracle_se=oracle and oracle.se,
        history=tuple(history), live={name: getattr(model.settings, name) for name in HOT}, steps=int(model.steps))


@functools.cache
def trained(name="moons", noise=0.05, steps=500, n=4000, **changes):
    "A trained model's probe, made once."
    points, toy, history = make_toy(name, n, noise=noise, seed=0).points, held_out(name, noise), []
    model = train(make_model(VAESettings(**changes), generator=rng()), points, steps, history=history, watched=toy.points)
    return measure(model, toy, points, history)


said = lambda probe: {verdict.name: verdict for verdict in (check(probe) for check in LATENT_CHECKS)}
loud = lambda probe: {name: verdict.level for name, verdict in said(probe).items() if verdict.level != "ok"}


@pytest.mark.parametrize("changes", [dict(), dict(layers=2), dict(kind="ladder", layers=2), dict(kl="analytic"),
                                     dict(scale_kind="fixed", decoder_scale=0.2)], ids=str)
def test_a_healthy_model_is_quiet(changes):
    probe = trained(**changes)
    assert {name: level for name, level in loud(probe).items() if name != "collapse"} == {}, said(probe)
    assert "1" not in collapse(probe).sentence.split(" nothing")[0] or collapse(probe).level == "ok", "the first layer holds something"
    assert probe.figures()["iw"] < probe.oracle and probe.figures()["oracle_gap"] > 0


@pytest.mark.slow
@pytest.mark.parametrize("changes", [dict(), dict(layers=2), dict(kind="ladder", layers=2)], ids=str)
def test_each_example_of_a_trained_model_has_a_latent_of_its_own(changes):
    probe = trained(steps=2000, **changes)
    assert sum(probe.kl).median() > 1 and lost_examples(probe) == () and collapse(probe).level != "bad"


@pytest.mark.parametrize("share, level", [(0.005, "ok"), (0.02, "warn"), (0.3, "bad")])
def test_examples_whose_posterior_is_the_prior_are_counted_and_named(share, level):
    probe = trained()  # young: its examples hold half a nat
    off = torch.arange(len(probe.elbo)) < share * len(probe.elbo)
    planted = dataclasses.replace(probe, kl=tuple(torch.where(off, 0.0, kl + 1) for kl in probe.kl))
    assert empty_layers(planted) == () and collapse(planted).level == level
    if level != "ok":
        assert collapse(planted).sentence.startswith(f"{int(off.sum())} of {len(off)} examples without a latent of their own: example 0 has")


def test_pockets_of_a_sharp_decoder_are_found_and_confirmed():
    probe = trained(noise=0.0, scale_kind="fixed", decoder_scale=0.03)
    found = pockets(probe)
    assert found.level == "bad" and 0.1 < found.value < 0.6 and "lie off the data" in found.sentence and "decoder_scale" in found.remedy
    layer, where = worst_pockets(probe)
    inside, off = where.contains(probe.generated_z), off_data(probe).double()
    assert layer == 0 and abs(inside.double().mean() - where.share) < 0.05, "the predicted share is met by draws of the prior"
    assert off[inside].mean() > 0.9 and off[inside].mean() > off[~inside].mean() + 0.15
    assert where.contains(probe.z[0]).double().mean() < 0.02, "no posterior draw is in a pocket"
    assert pockets(trained(noise=0.0)).level == "ok", "a learnt scale is wide at first and leaves none"


def test_a_second_layer_has_smaller_pockets_at_its_top():
    one, two = trained(noise=0.0, scale_kind="fixed", decoder_scale=0.03), trained(noise=0.0, layers=2, scale_kind="fixed",
                                                                                   decoder_scale=0.03, steps=700)
    assert find_pockets(two.z[1], two.prior[1]).share < 0.5 * find_pockets(one.z[0], one.prior[0]).share


def test_a_scale_above_the_data_collapses_the_posterior():
    probe = trained(noise=0.0, scale_kind="fixed", decoder_scale=1.0)
    assert collapse(probe).level == "bad" and "layer 1 holds nothing" in collapse(probe).sentence
    assert fixed_scale(probe).level == "bad" and fixed_scale(probe).value > 1 and "decoder_scale" in fixed_scale(probe).remedy
    assert abs(probe.figures()["elbo"] - -2.335) < 0.05, "what no latent can beat"
    assert collapse(dataclasses.replace(probe, steps=100)).level == "warn"
    below = trained(noise=0.0, scale_kind="fixed", decoder_scale=0.3)
    assert fixed_scale(below).level == collapse(below).level == "ok"


@pytest.mark.slow
def test_upper_layers_without_anything_are_named():
    probe = trained(layers=4)
    assert collapse(probe).level == "warn" and re.match(r"layers? .*4 holds? nothing", collapse(probe).sentence), collapse(probe)
    assert not active_units(probe.loc[-1]).all() or abs(probe.kl[-1].mean()) < 0.05


@pytest.mark.slow
def test_a_scale_at_its_floor_is_seen():
    probe = trained(noise=0.0, layers=2, scale_floor=0.2)
    assert floor(probe).level == "bad" and "scale_floor" in floor(probe).remedy and probe.scale_min >= 0.2
    assert floor(trained(noise=0.0, layers=2)).level == "ok"


def test_a_step_over_the_cliff_is_seen_at_once_and_later():
    points, toy, history = make_toy("moons", 4000, noise=0.05, seed=0).points, held_out("moons", 0.05), []
    model = train(make_model(VAESettings(), generator=rng()), points, 400, history=history, watched=toy.points)
    assert jumps(measure(model, toy, points, history)).level == "ok"
    train(model, points, 2, rate=1.0)
    fallen = measure(model, toy, points, history)
    assert jumps(fallen).level == "bad" and "has not come back" in jumps(fallen).sentence and jumps(fallen).value > 8
    mended = measure(train(make_model(VAESettings(), generator=rng()), points, 400), toy, points,
                     (*history, fallen.elbo.mean().item(), history[-1]))
    assert jumps(mended).level == "warn" and "came back" in jumps(mended).sentence


def test_data_without_structure_are_learnt_by_heart():
    points, others = torch.randn(60, 16, generator=rng(0)), torch.randn(400, 16, generator=rng(1))
    model = train(make_model(VAESettings(latents=(8,), hidden=(128,)), (16,), generator=rng()), points, 500)
    with torch.no_grad():
        train_elbo, trace = model.trace(points, samples=20, generator=rng(2)).log_w.mean(0), model.trace(
            others, samples=20, generator=rng(2))
    probe = LatentProbe(names=("1",), samples=20, elbo=trace.log_w.mean(0), iw=iw_bound(trace.log_w), nll=trace.nll.mean(0),
                        kl=(trace.kl[0].mean(0),), train_elbo=train_elbo)
    assert overfit(probe).level == "bad" and probe.figures()["train_elbo"] > probe.figures()["elbo"] + 1, overfit(probe)
    assert overfit(dataclasses.replace(probe, train_elbo=None)).level == overfit(trained()).level == "ok"


@pytest.mark.slow
def test_a_weight_of_zero_and_free_nats_that_free_all():
    assert kl_weight(trained(beta=0.0, scale_kind="fixed", steps=300)).level == "bad"
    free = trained(free_nats=15.0, scale_kind="fixed")
    assert kl_weight(free).level == "warn" and "no layer is pressed" in kl_weight(free).sentence and "free_nats" in kl_weight(free).remedy
    late = trained(warmup_steps=100_000, scale_kind="fixed", decoder_scale=0.001, noise=0.0, steps=400)
    assert kl_weight(late).level == "warn" and "warmup_steps" in kl_weight(late).remedy, kl_weight(late)


@pytest.mark.parametrize("changes", [dict(), dict(layers=2), dict(kind="ladder", layers=2)], ids=str)
def test_two_estimates_of_a_kl_agree_until_one_is_wrong(changes):
    probe = trained(**changes)
    assert kl_agreement(probe).level == "ok" and "standard errors" in kl_agreement(probe).sentence
    wrong = (*probe.analytic[:-1], probe.analytic[-1] + 0.5 * probe.loc[-1].square().sum(-1))  # a mean that counts twice
    assert kl_agreement(dataclasses.replace(probe, analytic=wrong)).level == "bad"
    if len(probe.names) == 2 and probe.analytic[0] is None:  # what a careless analytic KL of a lower layer would be
        standard = 0.5 * (probe.loc[0].square() - 1).sum(-1)
        assert kl_agreement(dataclasses.replace(probe, analytic=(standard, probe.analytic[1]))).level == "bad"


def test_wrong_bounds_of_a_trained_model_are_none():
    points, toy = make_toy("moons", 4000, noise=0.05, seed=0).points, held_out("moons", 0.05)
    model = train(make_model(VAESettings(), generator=rng()), points, 500)
    probe, change = measure(model, toy, points), lambda iw: dataclasses.replace(probe, iw=iw)
    with torch.no_grad(): trace = model.trace(toy.points, samples=50, generator=rng(3))
    assert bound(probe).level == "ok"
    assert bound(change(-iw_bound(-trace.log_w))).level == "bad", "log-mean-exp of the loss"
    assert bound(change(torch.full_like(probe.iw, torch.logsumexp(trace.log_w.flatten(), 0).item()
                                        - math.log(trace.log_w.numel())))).level == "bad", "mean over the batch"
    assert bound(change(iw_bound(-trace.nll) - probe.analytic[0] + 2)).level == "bad", "far above the oracle"
    assert bound(dataclasses.replace(probe, oracle=None, elbo=-probe.nll - 0.1 * probe.kl[0])).level == "bad", "beta inside"


@pytest.mark.parametrize("name", ["elbo", "iw", "nll"])
def test_what_is_not_finite_is_bad(name):
    probe = trained()
    value = getattr(probe, name).clone()
    value[3] = math.nan
    broken = dataclasses.replace(probe, **{name: value})
    assert jumps(broken).level == "bad" and f"not a finite number: {name}" in jumps(broken).sentence
    for verdict in said(broken).values(): assert verdict.sentence, "no check may break on it"
    assert all(check(dataclasses.replace(probe, z=(probe.z[0] * math.nan,), scale=probe.scale * math.nan, loc=(probe.loc[0] * math.nan,)))
               for check in LATENT_CHECKS)


def test_what_was_not_measured_is_not_judged():
    t = torch.full((1,), 0.5)
    bare = LatentProbe(names=("1",), samples=1, elbo=-2 * t, iw=-2 * t, nll=t, kl=(t,))
    figures = bare.figures()
    assert loud(bare) == {} and {"elbo", "iw", "nll", "gap", "kl_1", "samples"} <= set(figures)
    assert not any(name.startswith(("active", "scale", "oracle", "train")) for name in figures)


def test_remedies_name_settings_that_exist():
    known = set(VAESettings().fields()) | {"learning_rate"}
    probes = (trained(noise=0.0, scale_kind="fixed", decoder_scale=0.03), trained(noise=0.0, scale_kind="fixed", decoder_scale=1.0),
              trained(layers=4),
              trained(noise=0.0, layers=2, scale_floor=0.2), trained(beta=0.0, scale_kind="fixed", steps=300))
    for verdict in (verdict for probe in probes for verdict in said(probe).values() if verdict.level != "ok"):
        named = set(re.findall(r"\b[a-z]+_[a-z_]+\b", verdict.remedy))
        assert verdict.remedy and named <= known, verdict
        assert re.search(r"\d", verdict.sentence), "a sentence has its numbers"


@pytest.mark.parametrize("n", [150, 600, 2500])
@pytest.mark.parametrize("width", [0.9, 1.0, 1.3])
def test_a_posterior_like_its_prior_has_no_pockets(n, width):
    for seed in range(6):
        assert find_pockets(width * torch.randn(n, 2, generator=rng(seed)), torch.randn(2000, 2, generator=rng(50 + seed))).count == 0


def test_a_hole_is_measured_better_with_more_draws():
    draws = torch.randn(40_000, 2, generator=rng())
    ring = draws[draws.norm(dim=1) > 1.0]
    shares = [find_pockets(ring[:n], draws[:n]).share for n in (500, 2000, 8000)]
    assert shares == sorted(shares) and shares[-1] < 1 - math.exp(-0.5) and shares[-1] > 0.7 * (1 - math.exp(-0.5)), shares


def test_limits_have_reasons_and_an_order():
    for name, limit in LATENT_LIMITS.items(): assert limit.reason and limit.warn <= limit.bad, name
