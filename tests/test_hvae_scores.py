"""Scores that run a model: bounds by hand, known posteriors, models that are one and the same, other kinds and types,
batches, refusals, and a model left as it was.
"""
import copy
import math

import numpy as np
import pytest
import torch
from torch import nn

from latentlab.core.runtime import generator
from latentlab.core.settings import Live
from latentlab.data.binarise import make_prepare
from latentlab.data.toys import make_toy
from latentlab.metrics import ood
from latentlab.metrics.scores import compressed_bits, perturb
from latentlab.families.hvae.model import make_model
from latentlab.latents.regret import Effort, heads, regret_score
from latentlab.families.hvae.experiment import HVAERun
from latentlab.latents.detection import (CHUNK, SCORES, Corrupted, Detector, DataBounds, above_score, background_setup, below_score,
                                         check_k, elbo_score,
                                          ks_of, lack, llr_score, score_table)
from latentlab.latents.evaluate import check_data
from latentlab.latents.model import VAE, VAESettings, latent_terms
from latentlab.latents.trace import ByDatum, datum_keys
from latentlab.train.trainer import Trainer

KINDS = {
    "vae": dict(latents=(3,)), "hierarchy": dict(layers=3, latents=(4, 3, 2), skips=True), "ladder": dict(kind="ladder", layers=3),
    "learnt ladder": dict(kind="ladder", layers=2, merge="learnt"),
    "auxiliary": dict(kind="auxiliary", latents=(3,)),
}
LIGHT_EFFORT = Effort(steps=3, draws=2, samples=4)


def rng(seed=0): return torch.Generator().manual_seed(seed)


def own(x, first=0): return ByDatum(datum_keys(x, stream(3)), first=first)  # each datum's own noise, as the scores of seed 3 draw it


def draw(*shape, seed=0): return torch.randn(*shape, generator=rng(seed))


def build(name="hierarchy", shape=(2,), seed=0, **changes):
    settings = {"hidden": (16, 16), "scale_kind": "fixed", "decoder_scale": 0.5, **KINDS[name], **changes}
    return make_model(VAESettings(**settings), shape, generator=rng(seed))


def stream(seed): return generator(seed, "scores")


# bounds ----------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("name", KINDS)
def test_the_elbo_score_is_minus_the_bound_of_the_same_draws(name):
    model, x = build(name), draw(9, 2)
    trace = model.trace(x, samples=5, generator=own(x))
    assert torch.allclose(elbo_score(model, x, samples=5, seed=3), -trace.log_w.mean(0), atol=1e-4)
    assert torch.allclose(elbo_score(model, x, seed=3), -model.trace(x, generator=own(x)).log_w[0].detach(), atol=1e-5)
    assert torch.equal(elbo_score(model, x, seed=3), above_score(model, x, 0, seed=3))


@pytest.mark.parametrize("name", ["hierarchy", "ladder", "learnt ladder"])
@pytest.mark.parametrize("skip", ["mode", "sample"])
@pytest.mark.parametrize("samples", [1, 7])
def test_the_ratio_is_the_difference_of_two_bounds(name, skip, samples):
    model, x = build(name), draw(9, 2)
    for k in range(1, len(model.sizes)):
        first = model.trace(x, samples=samples, generator=own(x)).log_w
        second = model.trace(x, samples=1, generator=own(x), above=k, skip=skip).log_w[0]
        expected = torch.logsumexp(first, 0) - math.log(samples) - second
        assert torch.allclose(llr_score(model, x, k, samples=samples, seed=3, skip=skip), expected, atol=1e-4)
        assert torch.allclose(above_score(model, x, k, seed=3, skip=skip), -second, atol=1e-4)


@pytest.mark.parametrize("name", ["hierarchy", "ladder"])
@pytest.mark.parametrize("samples", [1, 10, 23])
def test_the_complement_is_the_mean_of_its_draws(name, samples):
    model, x = build(name), draw(9, 2)
    for place in (2, 3):
        parts = [model.trace(x, samples=min(10, samples - start), generator=own(x, start), below=place).log_w for start in range(0, samples, 10)]
        assert torch.allclose(below_score(model, x, place, samples=samples, seed=3), -torch.cat(parts).mean(0), atol=1e-4)


def test_a_layer_whose_prior_is_its_posterior_has_no_ratio():
    model = build(layers=2, latents=(2, 2), hidden=(8,), skips=False)
    with torch.no_grad():
        for block in (model.encoders[0], model.decoders[1]):
            block.rest[-1].weight.zero_(), block.rest[-1].bias.copy_(torch.tensor([0.3, -0.2, -30.0, -30.0]))
    assert llr_score(model, draw(50, 2), 1).abs().max() < 5e-3
    with torch.no_grad(): model.decoders[1].rest[-1].bias.copy_(torch.tensor([1.3, -0.2, 0.5, 0.5]))
    assert llr_score(model, draw(50, 2), 1).abs().max() > 0.1  # another prior, and it is seen


def test_settings_in_force_are_used():
    model, x = build(), draw(9, 2)
    live = Live(model.settings.replace(decoder_scale=0.05))
    assert not torch.allclose(elbo_score(model, x), elbo_score(model, x, live=live))
    other = build(decoder_scale=0.05)
    other.load_state_dict(model.state_dict())
    asked = [lambda m, h: elbo_score(m, x, live=h), lambda m, h: llr_score(m, x, 1, live=h), lambda m, h: below_score(m, x, 2, live=h)]
    for score in (*asked, lambda m, h: regret_score(m, x, effort=LIGHT_EFFORT, live=h)):
        assert torch.allclose(score(model, live), score(other, None), atol=1e-3)


# every score -----------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("name", KINDS)
def test_every_score_of_every_kind_has_one_finite_number_for_each_datum(name):
    model, train, x = build(name), draw(40, 2, seed=1), draw(9, 2)
    others = dict(background=build(name, seed=1), ensemble=[build(name, seed=2)])
    asked = [score for score in SCORES if not lack(model, score, **others)]
    assert set(SCORES) - set(asked) == {"complexity"} | ({"llr", "below"} if len(model.sizes) == 1 else set())
    for score in asked:
        for k in ks_of(model, score):
            found = Detector(model, score, k=k if SCORES[score].k else None, samples=3, effort=LIGHT_EFFORT, **others).fit(train).predict(x)
            assert found.shape == (9,) and found.dtype == torch.float32 and found.isfinite().all(), (score, k)


@pytest.mark.parametrize("name", ["vae", "hierarchy"])
def test_double_precision(name):
    model, x = build(name).double(), draw(9, 2).double()
    assert elbo_score(model, x).dtype == torch.float64 and regret_score(model, x, effort=LIGHT_EFFORT).dtype == torch.float64
    with pytest.raises(ValueError, match="`x` must be torch.float64"): elbo_score(model, x.float())


def test_parts_of_the_bound_add_up():
    model, x = build(), draw(9, 2)
    of = lambda score, k=None: Detector(model, score, k=k, samples=4, seed=2).predict(x)
    assert torch.allclose(of("elbo"), of("reconstruction") + sum(of("kl", k) for k in (1, 2, 3)), atol=1e-3)
    assert (of("iw") <= of("elbo") + 1e-4).all()  # Jensen: the bound of four samples is the larger


@pytest.mark.parametrize(("name", "layer"), [("vae", 1), ("hierarchy", 1), ("hierarchy", 3), ("ladder", 2), ("auxiliary", 1),
                                             ("auxiliary", 2)])
def test_scores_of_latents_by_hand(name, layer):
    model, train, x = build(name), draw(60, 2, seed=1), draw(9, 2)
    of = lambda data: model.trace(data, generator=rng(9), temperature=0.0).z[layer - 1][0].detach().double().numpy()
    seen, new = of(train), of(x)
    ask = lambda score: Detector(model, score, k=layer).fit(train).predict(x).numpy()
    assert ask("norm") == pytest.approx(np.sqrt((new**2).sum(1)), rel=1e-4)
    assert ask("knn") == pytest.approx(np.sort(np.sqrt(((new[:, None] - seen) ** 2).sum(-1)), 1)[:, 9], rel=1e-4)
    off = new - seen.mean(0)
    assert ask("mahalanobis") == pytest.approx(np.einsum("ni,ij,nj->n", off, np.linalg.inv(np.cov(seen.T, bias=True)), off), rel=1e-3)


def test_latents_have_no_noise():
    model, x = build(), draw(30, 2)
    ask = lambda seed, data: Detector(model, "mahalanobis", seed=seed).fit(draw(60, 2, seed=1)).predict(data)
    assert torch.equal(ask(0, x), ask(7, x)) and torch.allclose(ask(0, x)[5:6], ask(0, x[5:6]), rtol=1e-4)


def test_typicality_by_hand():
    model, train, x = build(), draw(40, 2, seed=1), draw(9, 2)
    ask = lambda data: Detector(model, "iw", samples=3).predict(data)
    assert torch.allclose(Detector(model, "typicality", samples=3).fit(train).predict(x), (ask(x) - ask(train).mean()).abs(), atol=1e-3)


def test_one_model_several_times_has_no_variance_and_no_ratio():
    model, x = build(), draw(9, 2)
    alike = copy.deepcopy(model)
    # a mean of five rounds
    assert torch.allclose(Detector(model, "waic", samples=3, ensemble=[alike] * 4).predict(x), Detector(model, "iw", samples=3).predict(x),
                          rtol=1e-6)
    assert (Detector(model, "ratio", samples=3, background=alike).predict(x) == 0).all()


def test_waic_and_ratio_by_hand():
    models, x = [build(seed=seed) for seed in range(3)], draw(9, 2)
    log_p = np.stack([-Detector(model, "iw", samples=3).predict(x).double().numpy() for model in models])
    assert Detector(models[0], "waic", samples=3, ensemble=models[1:]).predict(x).numpy() == pytest.approx(
        log_p.var(0) - log_p.mean(0), rel=1e-3)
    assert Detector(models[0], "ratio", samples=3, background=models[1]).predict(x).numpy() == pytest.approx(
        log_p[1] - log_p[0], rel=1e-3, abs=1e-3)


@pytest.mark.parametrize("likelihood", ["bernoulli", "gaussian", "logistic_mixture"])
@pytest.mark.parametrize("flat", [False, True])
def test_complexity_by_hand(likelihood, flat):
    pixels = torch.randint(256, (6, 1, 28, 28), generator=rng(), dtype=torch.uint8)
    if likelihood == "bernoulli": pixels = pixels // 128 * 255
    model = build("vae", (1, 28, 28), likelihood=likelihood, decoder_scale=0.3)
    x = pixels / 255
    nll = Detector(model, "iw", samples=2).predict(x).double() + (0 if likelihood != "gaussian" else 784 * math.log(256))
    expected = nll / (784 * math.log(2)) - compressed_bits(pixels) / 784
    assert torch.allclose(Detector(model, "complexity", samples=2).predict(x.flatten(1) if flat else x).double(), expected, atol=1e-5)


def test_higher_is_more_out_of_distribution():
    points = make_toy("moons", 600, noise=0.05, seed=0).points.float()
    model = build("hierarchy", layers=2, latents=(2, 2), skips=False)
    adam = torch.optim.Adam(model.parameters(), 5e-3)
    for step in range(200):
        adam.zero_grad(), sum(latent_terms(model, points[:300], model.live, rng(step)).values()).mean().backward()
        adam.step()
    inside, outside = points[300:], points[300:] + 4
    for score in ("elbo", "iw", "above", "below", "reconstruction", "mahalanobis", "knn", "typicality"):
        one = Detector(model, score, k=1 if score in ("mahalanobis", "knn") else None, samples=5).fit(points[:300])
        assert ood.auroc(one.predict(inside), one.predict(outside)) > 0.9, score
    gain = Effort(steps=30, samples=20)
    assert ood.auroc(regret_score(model, inside, effort=gain), regret_score(model, outside, effort=gain)) > 0.9


# regret ----------------------------------------------------------------------------------------------------------------

def linear(shift=0.0, stretch=1.0, columns=(1.5, 0.6), scale=0.5):
    """A linear decoder with orthogonal columns, and an encoder that is its posterior but for a shift and a stretch; with the
    posterior's deviations.
    """
    model = VAE(VAESettings(latents=(2,), hidden=(4,), scale_kind="fixed", decoder_scale=scale))
    columns = torch.tensor([[0.8, -0.6], [0.6, 0.8]]) * torch.tensor(columns)
    deviation = (1 + columns.square().sum(0) / scale**2).rsqrt()
    model.encoder, model.decoder = nn.Linear(2, 4), nn.Linear(2, 4)
    with torch.no_grad():
        for layer in (model.encoder, model.decoder): layer.weight.zero_(), layer.bias.zero_()
        model.decoder.weight[:2] = columns
        model.encoder.weight[:2] = deviation.square()[:, None] * columns.T / scale**2
        model.encoder.bias.copy_(torch.cat([torch.full((2,), shift), torch.expm1(stretch * deviation - 1e-5).log()]))
    return model, deviation


@pytest.mark.parametrize("columns", [(1.5, 0.6), (0.1, 3.0)])
@pytest.mark.parametrize("bound", ["elbo", "iw"])
def test_an_exact_posterior_has_nothing_to_regret(columns, bound):
    found = regret_score(linear(columns=columns)[0], draw(30, 2), effort=Effort(bound=bound))
    assert (found >= 0).all() and found.max() < 5e-3


@pytest.mark.parametrize(("shift", "stretch"), [(0.3, 1.0), (0.0, 1.5), (0.0, 0.6), (-0.4, 1.3)])
def test_a_wrong_encoder_regrets_its_divergence(shift, stretch):
    model, deviation = linear(shift=shift, stretch=stretch)
    p, q = torch.distributions.Normal(torch.zeros(2), deviation), torch.distributions.Normal(torch.full((2,), shift), stretch * deviation)
    found = regret_score(model, draw(200, 2), effort=Effort(samples=500))
    assert found.mean().item() == pytest.approx(torch.distributions.kl_divergence(q, p).sum().item(), abs=0.02)


def test_the_importance_weighted_regret_is_the_smaller():
    model = linear(shift=0.5, stretch=1.4)[0]
    one, other = (regret_score(model, draw(100, 2), effort=Effort(samples=200, bound=bound)).mean() for bound in ("elbo", "iw"))
    assert 0 <= other < one - 0.1


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("what", ["latent", "encoder"])
def test_regret_is_never_negative_and_leaves_the_model_alone(name, what):
    model, x = build(name), draw(4, 2).requires_grad_()
    before, seen = copy.deepcopy(model.state_dict()), [p.requires_grad for p in model.parameters()]
    found = regret_score(model, x, effort=Effort(what=what, steps=30, rate=0.03, draws=4, samples=50))
    assert (found >= 0).all() and found.median() > 0.05
    assert (all(torch.equal(before[key], value) for key, value in model.state_dict().items())
            and [p.requires_grad for p in model.parameters()] == seen == [True] * len(seen))
    assert all(p.grad is None for p in model.parameters()) and not any(head._forward_hooks for head in heads(model)) and x.grad is None


def test_more_steps_find_no_less():
    model, x = build(), draw(50, 2)
    short, long = (regret_score(model, x, effort=Effort(steps=steps)).mean() for steps in (5, 100))
    assert long > short + 0.1


def test_data_do_not_disturb_one_another():
    model, x = linear(shift=0.5)[0], draw(20, 2)
    far = torch.cat([x, 50 + draw(20, 2)])
    effort = Effort(steps=60, draws=16, samples=500)
    assert regret_score(model, x, effort=effort).mean().item() == pytest.approx(regret_score(model, far, effort=effort)[:20].mean().item(),
                                                                                abs=0.1)


def test_every_chunk_and_every_datum_begins_at_the_encoder():
    model, deviation = linear(shift=0.7)
    gap = (0.7 / deviation).square().sum().item() / 2  # of every datum
    many = regret_score(model, draw(CHUNK + 20, 2), effort=Effort(samples=100))
    alone = regret_score(model, draw(3, 2), effort=Effort(what="encoder", steps=100, rate=0.02, draws=16, samples=1000))
    assert many[:CHUNK].mean().item() == pytest.approx(gap, abs=0.1) and many[CHUNK:].mean().item() == pytest.approx(gap, abs=0.3)
    assert alone.numpy() == pytest.approx(gap, abs=0.4) and gap > 2


def test_two_heads_of_an_auxiliary_and_all_of_a_ladder_move():
    assert [len(heads(build(name))) for name in KINDS] == [1, 3, 3, 2, 2]


# detector --------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("size", [1, 64, 499, 2000])
def test_batches_change_nothing(size):
    model, x = build(), draw(CHUNK + 120, 2)
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, torch.zeros(len(x))), batch_size=size)
    for score in ("llr", "knn", "typicality"):
        assert torch.equal(Detector(model, score).fit(loader).predict(loader), Detector(model, score).fit(x).predict(x))


def test_a_seed_and_a_place_decide_the_noise():
    model, x = build(), draw(CHUNK + 30, 2)
    whole = Detector(model, "elbo", seed=1).predict(x)
    assert (torch.equal(whole, Detector(model, "elbo", seed=1).predict(x))
            and not torch.equal(whole, Detector(model, "elbo", seed=2).predict(x)))
    assert torch.equal(whole[:CHUNK], Detector(model, "elbo", seed=1).predict(x[:CHUNK]))


def test_asking_draws_nothing_from_the_global_generator():
    model, x = build(), draw(9, 2)
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    Detector(model, "llr").predict(x), regret_score(model, x, effort=LIGHT_EFFORT)
    assert torch.equal(torch.rand(3), expected)


def test_predictions_carry_no_graph():
    model, x = build(), draw(9, 2)
    others = dict(background=build(seed=1), ensemble=[build(seed=2)])
    for score in set(SCORES) - {"complexity"}:
        assert not Detector(model, score, effort=LIGHT_EFFORT, **others).fit(draw(40, 2)).predict(x).requires_grad


def test_features_are_the_means():
    model, train, x = build(), draw(60, 2, seed=1), draw(9, 2)
    of = lambda data, layer: DataBounds(model=model, x=data).means(layer)
    for score in ("norm", "mahalanobis", "knn"):
        assert torch.equal(Detector(model, score, k=2).fit_features(of(train, 2)).predict_features(of(x, 2)),
                           Detector(model, score, k=2).fit(train).predict(x))


@pytest.mark.parametrize("score", [score for score in SCORES if SCORES[score].fit])
def test_no_prediction_before_a_fit(score):
    with pytest.raises(ValueError, match=f"`{score}` must be fitted before it predicts: got no training data"):
        Detector(build(), score).predict(draw(9, 2))


@pytest.mark.parametrize(("make", "sentence"), [
    (lambda: Detector(build("vae"), "llr"), "`score` must be one that a model with 1 layer has: got 'llr'"),
    (lambda: Detector(build("auxiliary"), "below"), "`score` must be one that a model with 1 layer has: got 'below'"),
    (lambda: Detector(build(), "llr", k=3), "`k` must be from 1 to 2 for llr of 3 layers: got 3"),
    (lambda: Detector(build(), "llr", k=0), "`k` must be from 1 to 2 for llr of 3 layers: got 0"),
    (lambda: Detector(build(), "above", k=-1), "`k` must be from 0 to 2 for above of 3 layers: got -1"),
    (lambda: Detector(build(), "kl", k=4), "`k` must be from 1 to 3 for kl of 3 layers: got 4"),
    (lambda: Detector(build(), "elbo", k=1), "`k` must be None for elbo"),
    (lambda: Detector(build(), "likelihood"), "`score` must be one of elbo, iw, above"),
    (lambda: Detector(build(), "complexity"), "`score` must be one that points have: got 'complexity'"),
    (lambda: Detector(build(), "ratio"), "`background` must be a model of corrupted data"),
    (lambda: Detector(build(), "ratio", background=build(shape=(3,))), r"`background` must be of data shaped \(2,\) as the "
                                                                       r"model: got \(3,\)"),
    (lambda: Detector(build(), "waic"), "`ensemble` must hold at least one more model"),
    (lambda: Detector(build(), samples=0), "`samples` must be at least 1: got 0"),
    (lambda: Detector(build(), "elbo").fit_features(draw(3, 2)), "`score` must work on latents for features: got 'elbo'"),
    (lambda: Detector(build(), "typicality").fit_features(draw(3, 2)), "`score` must work on latents for features"),
    (lambda: Detector(build()).predict([]), "`x` must hold at least one batch: got none"),
    (lambda: elbo_score(build(), torch.zeros(0, 2)), "`x` must hold at least one datum: got none"),
    (lambda: elbo_score(build(), draw(4, 3)), r"`x` must be a batch of data of shape \(2,\): got \(4, 3\)"),
    (lambda: llr_score(build(), torch.full((3, 2), math.nan), 1), "finite"),
    (lambda: llr_score(build(shape=(1, 28, 28), likelihood="bernoulli"), 2 * torch.ones(2, 1, 28, 28), 1), "bernoulli"),
    (lambda: below_score(build(), draw(3, 2), 4), "`k` must be from 2 to 3 for below of 3 layers: got 4"),
    (lambda: llr_score(build(), draw(3, 2), 1, skip="mean"), "`skip` must be mode or sample: got 'mean'"),
    (lambda: regret_score(build(), draw(201, 2), effort=Effort(what="encoder")), "`x` must hold at most 200 data for an encoder "
                                                                                 "each: got 201"),
    (lambda: Effort(what="decoder"), "`what` must be latent or encoder: got 'decoder'"),
    (lambda: Effort(bound="log_p"), "`bound` must be elbo or iw: got 'log_p'"),
    (lambda: Effort(draws=0), "`draws` must be at least 1: got 0"),
    (lambda: Effort(rate=math.nan), "`rate` must be above 0: got nan"),
    (lambda: background_setup(0.0), r"`rate` must be in \(0, 1\): got 0"),
    (lambda: score_table(build(), draw(9, 2), draw(9, 3)), r"`x` must be a batch of data of shape \(2,\)"),
    (lambda: score_table(build("vae"), draw(9, 2), draw(9, 2), names=["llr"]), "a model with 1 layer has: got 'llr'"),
    (lambda: score_table(build(), draw(9, 2), draw(9, 2), names=["regret"]), "`names` must be scores that can be asked: it takes long"),
])
def test_what_cannot_be_is_refused(make, sentence, unchecked):
    with pytest.raises(ValueError, match=sentence): make()


@pytest.mark.parametrize("k", [True, 1.0, "1"])
def test_a_k_is_a_whole_number(k, unchecked):
    with pytest.raises(ValueError, match="`k` must be from 1 to 2 for llr"): check_k(build(), "llr", k)


def test_data_of_a_healthy_set_pass():
    check_data(build(), draw(9, 2))
    check_data(build(shape=(1, 28, 28), likelihood="bernoulli"), torch.zeros(3, 784))


# background ------------------------------------------------------------------------------------------------------------

def test_the_corruption_depends_on_seed_epoch_image_and_pixel_alone():
    images, rows = torch.randint(256, (300, 1, 8, 8), generator=rng(), dtype=torch.uint8), torch.randperm(300, generator=rng(1))
    make = lambda seed=0, rate=0.3: Corrupted(prepare=make_prepare("grey", 0), rate=rate, seed=seed)
    whole = make().replaced(images, rows, 2)
    assert torch.equal(whole[[7, 3, 250]], make().replaced(images[[7, 3, 250]], rows[[7, 3, 250]], 2))
    assert not torch.equal(whole, make().replaced(images, rows, 3)) and not torch.equal(whole, make(seed=1).replaced(images, rows, 2))
    assert torch.equal(make(rate=1e-9).replaced(images, rows, 2), images)
    some, more = ((made.replaced(images, rows, 2) != images) for made in (make(rate=0.1), make()))
    assert (more | ~some).all() and abs(more.float().mean() - 0.3 * 255 / 256) < 0.01  # a larger rate replaces the same pixels and others


def test_the_corruption_is_that_of_perturb():
    images = torch.full((500, 1, 28, 28), 10, dtype=torch.uint8)
    ours, theirs = Corrupted(prepare=make_prepare("grey", 0), rate=0.25,
                             seed=3).replaced(images, torch.arange(500), 0), perturb(images, 0.25, generator=rng())
    for figure in (lambda t: (t != 10).double().mean(), lambda t: t[t != 10].double().mean() / 255, lambda t: t[t != 10].double().std()
                   / 255):
        assert figure(ours).item() == pytest.approx(figure(theirs).item(), abs=0.005)
    by_pixel = (ours != 10).double().mean(0).flatten()
    assert (by_pixel - 0.25).abs().max() < 5 * math.sqrt(0.25 * 0.75 / 500)  # no pixel is spared


def test_a_background_model_trains_as_the_run_and_replays():
    run = HVAERun().replace({"data.name": "fashion-mnist", "data.outside": "inverted:fashion-mnist", "data.images": 500,
                             "train.device": "cpu", "train.batch": 100})
    run = run.replace({"latents": (4,), "hidden": (16,)})
    plain, one, two = Trainer(run), Trainer(run, build=background_setup(0.2)), Trainer(run, build=background_setup(0.2))
    state = lambda trainer: torch.cat([p.flatten() for p in trainer.model.parameters()])
    assert torch.equal(state(plain), state(one))
    for trainer in (plain, one, two): trainer.fit(4, progress=False)
    assert torch.equal(state(one), state(two)) and not torch.equal(state(one), state(plain))
    assert one.setup.batches.prepare.prepare == plain.setup.batches.prepare and "background" in one.setup.info


# table -----------------------------------------------------------------------------------------------------------------

def test_the_table_agrees_with_the_detectors():
    model, inside, outside, train = build(), draw(80, 2), 1.5 * draw(120, 2, seed=1), draw(100, 2, seed=2)
    table = score_table(model, inside, outside, x_train=train, samples=3, seed=4, resamples=40)
    assert {(row.score, row.k) for row in table.rows if row.score in ("above", "llr",
                                                                      "below")} == {("above", 1), ("above", 2), ("llr", 1), ("llr", 2),
                                                                                    ("below", 2), ("below", 3)}
    for row in table.rows:
        k = row.k if SCORES[row.score].k else None
        one = Detector(model, row.score, k=k, samples=3, seed=4).fit(train[::2])
        assert row.figures == ood.compare_sets(one.predict(inside), one.predict(outside), seed=4, resamples=40, k=k), row.score
        assert row.control == ood.control(one.predict(train[1::2]), one.predict(inside), seed=4, resamples=40)
        assert row.figures.n_in == row.figures.n_out == 80 and "80 of the 120 out-of-distribution" in row.figures.note


def test_a_best_k_is_marked():
    table = score_table(build(), draw(60, 2), 2 * draw(60, 2, seed=1), names=["elbo", "llr", "kl"], resamples=20)
    assert (set(table.best) == {"llr", "kl"} and [row.score for row in table.rows] == ["elbo", "llr", "llr", "kl", "kl", "kl"]
            and not table.left_out)
    for score, best in table.best.items():
        family = [row.figures.auroc.value for row in table.rows if row.score == score]
        assert best.chosen_afterwards and best.chosen_among == len(family) and best.auroc.value == max(family)
        assert [line["k"] for line in table.lines() if line["score"] == score and line["chosen_afterwards"]] == [best.k]
    assert (str(table).count("*") == 3 and "60 data in and as many out" in str(table)
            and all(line["control"] is None for line in table.lines()))
    assert not any(row.figures.chosen_afterwards for row in table.rows)


def test_what_the_table_leaves_out_has_a_reason():
    model, x = build("vae"), draw(30, 2)
    table = score_table(model, x, x + 1, resamples=20)
    assert (set(table.left_out) == {"iw", "llr", "below", "mahalanobis", "knn", "typicality", "complexity", "ratio", "waic", "regret"}
            and all(table.left_out.values()))
    full = score_table(model, x, x + 1, x_train=x, samples=2, background=build("vae", seed=1), ensemble=[build("vae", seed=2)],
                       effort=LIGHT_EFFORT, resamples=20)
    assert set(full.left_out) == {"llr", "below", "complexity"} and next(row for row in full.rows if row.score == "regret").samples == 4


def test_one_set_against_itself_is_not_told_apart():
    x = draw(50, 2)
    for line in score_table(build(), x, x.clone(), x_train=draw(60, 2, seed=1), resamples=20).lines(): assert line["auroc"] == 0.5, line
