"""Latent-variable models: exact where the world is linear, one trace for all kinds, gradients that agree, training that
resumes, and bad input refused in time.
"""
import copy
import itertools
import math
import pickle

import pytest
import torch
from latentlab.core.settings import Live, from_json, to_json
from latentlab.core.batch import Batch, Context
from latentlab.core.model import Model, missing_parts
from latentlab.core.terms import weighted_sum
from latentlab.losses.bounds import iw_bound
from latentlab.losses.gaussian import Normal
from latentlab.families.hvae import model as hvae
from latentlab.families.hvae.model import AuxiliaryVAE, HierarchicalVAE, LadderVAE, make_model
from latentlab.families.hvae.experiment import HVAERun
from latentlab.latents.evaluate import evaluate
from latentlab.latents.model import VAE, VAESettings, latent_terms
from latentlab.latents.trace import Trace
from latentlab.nn.latents import FLOOR, Dense, hidden_sizes, layer_sizes, read_lists
from latentlab.train.trainer import Trainer
from torch import nn

KINDS = {
    "vae": dict(), "two": dict(layers=2), "three": dict(layers=3, latents=(4, 3, 2)), "skips": dict(layers=3, skips=True),
    "ladder": dict(kind="ladder", layers=2), "learnt": dict(kind="ladder", layers=3, merge="learnt"),
    "ladder skips": dict(kind="ladder", layers=3, skips=True),
    "one rung": dict(kind="ladder"), "auxiliary": dict(kind="auxiliary", auxiliary=3),
}
every_kind = pytest.mark.parametrize("kind", KINDS)
several_layers = pytest.mark.parametrize("kind", [name for name, changes in KINDS.items() if changes.get("layers", 1) > 1])


def rng(seed=0): return torch.Generator().manual_seed(seed)


def draw(*shape, seed=0, dtype=torch.float32): return torch.randn(*shape, generator=rng(seed), dtype=dtype)


def make(kind="vae", shape=(2,), seed=0, **changes):
    return make_model(VAESettings(**{"hidden": (16, 16)} | KINDS.get(kind, {}) | changes), shape, generator=rng(seed))


def loss_of(model, x, live=None, seed=0):
    live = live or model.live
    context = Context(live=live, generator=rng(seed))
    return weighted_sum(model.losses(Batch(x=x), context), model.weights(context))


def far(draws, truth):
    "Distance of a mean over the first axis from the truth, in standard errors."
    return ((draws.mean(0) - truth) / (draws.std(0) / math.sqrt(len(draws)))).abs()


# A linear world, where everything is known ----------------------------------------------------------------------------

class Fixed(nn.Module):
    "Numbers of a Gaussian: a linear mean of the inputs and a fixed scale."

    def __init__(self, *slopes, scale, latent=True):
        super().__init__()
        self.slopes, self.raw = [torch.as_tensor(slope, dtype=torch.float64).reshape(-1, 1) if not torch.is_tensor(slope) else slope
                                 for slope in slopes], 0.0
        if latent: self.raw = math.log(math.expm1(scale - FLOOR))

    def forward(self, *inputs):
        loc = sum(x @ slope for x, slope in zip(inputs, self.slopes))
        return torch.cat([loc, torch.full_like(loc, self.raw)], -1)


W, V, T, S = 1.5, 0.8, 0.6, 0.5  # x | z1 ~ N(W z1, S²), z1 | z2 ~ N(V z2, T²), z2 ~ N(0, 1)
TOTAL = V**2 + T**2  # Variance of z1
EVIDENCE = W**2 * TOTAL + S**2
X = torch.linspace(-4, 4, 9, dtype=torch.float64)[:, None]
TRUTH = torch.distributions.Normal(0.0, math.sqrt(EVIDENCE)).log_prob(X[:, 0])


def linear(kind, wrong=1.0):
    "A model of each kind whose posterior is exact, or `wrong` times as wide in each layer."
    settings = VAESettings(hidden=(4,), latents=(1,), auxiliary=1, scale_kind="fixed", decoder_scale=S,
                           **{"vae": {}, "two": dict(layers=2), "ladder": dict(kind="ladder", layers=2),
                           "auxiliary": dict(kind="auxiliary")}[kind])
    model = make_model(settings, (1,)).double()
    decoder, prior = Fixed(W, scale=0, latent=False), Fixed(V, scale=T)
    slope, width = W * TOTAL / EVIDENCE, S * math.sqrt(TOTAL / EVIDENCE)  # p(z1 | x)
    if kind == "two":
        for i, network in enumerate((Fixed(slope, scale=wrong * width), Fixed(V / TOTAL, scale=wrong * T / math.sqrt(TOTAL)))):
            model.encoders[i] = network
        model.decoders[0], model.decoders[1] = decoder, prior
    elif kind == "ladder":
        top = V * W / EVIDENCE
        model.features = lambda x: [x, x]
        model.decoders[0], model.decoders[1] = decoder, prior
        model.messages = nn.ModuleList([Fixed(1 / W, scale=wrong * S / W), Fixed(top, scale=wrong * math.sqrt(1 - top * V * W))])
    else:  # one layer: z1 in units of its own deviation
        unit = math.sqrt(TOTAL)
        model.decoder = Fixed(W * unit, scale=0, latent=False)
        if kind == "vae": model.encoder = Fixed(slope / unit, scale=wrong * width / unit)
        else:  # q(a|x) = N(0, 1) and q(z|a,x) = N(m + c a, e²) with c² + e² the posterior's variance; p(a|x,z) is Bayes' rule
            c, e = 0.6 * width / unit, 0.8 * width / unit
            model.encoder_a, model.encoder_z = Fixed(0.0, scale=wrong), Fixed(slope / unit, c, scale=wrong * e)
            model.decoder_a = Fixed(-c * slope / unit / (c**2 + e**2), c / (c**2 + e**2), scale=e / math.hypot(c, e))
    return model


LINEAR = ("vae", "two", "ladder", "auxiliary")


@pytest.mark.parametrize("kind", LINEAR)
def test_every_log_weight_of_an_exact_posterior_is_the_likelihood(kind):
    model = linear(kind)
    trace = model.trace(X, samples=50, generator=rng())
    assert (trace.log_w - TRUTH).abs().max() < 1e-6 and trace.log_w.dtype == torch.float64
    assert trace.nll.std(0).min() > 0.05  # the parts vary, only their sum does not
    found = evaluate(model, X, samples=7, generator=rng(), tile=3, chunk=4)
    assert (found.elbo - TRUTH).abs().max() < 1e-6 and (found.iw - TRUTH).abs().max() < 1e-6 and (found.effective - 7).abs().max() < 1e-3


@pytest.mark.parametrize("kind", LINEAR)
def test_a_wrong_posterior_stays_below_and_its_weighted_bound_climbs_to_the_likelihood(kind):
    model, data, before = linear(kind, wrong=1.6), X[2:3].expand(2000, 1), None
    for samples in (1, 10, 100):
        gap = evaluate(model, data, samples=samples, tile=100, chunk=2000, generator=rng(samples)).iw - TRUTH[2]
        error = gap.std() / math.sqrt(len(gap))
        assert gap.mean() < 3 * error and (before is None or gap.mean() > before - 3 * error)
        if samples == 1: assert gap.mean() < -0.1
        before = gap.mean()
    assert abs(before) < 0.01


@pytest.mark.parametrize("skip", ["mode", "sample"])
def test_the_bound_above_a_layer_has_its_closed_form(skip):
    model, slope, width = linear("two", wrong=1.3), W * TOTAL / EVIDENCE, 1.3 * S * math.sqrt(TOTAL / EVIDENCE)
    over, wide = V / TOTAL, 1.3 * T / math.sqrt(TOTAL)
    centre, spread = over * slope * X[:, 0], wide**2 + (over**2 * width**2 if skip == "sample" else 0)  # of z2 given x
    below = V**2 * spread + (T**2 if skip == "sample" else 0)  # variance of z1 given x
    nll = 0.5 * math.log(2 * math.pi * S**2) + ((X[:, 0] - W * V * centre) ** 2 + W**2 * below) / (2 * S**2)
    kl = 0.5 * (spread + centre**2) - math.log(wide) - 0.5
    trace = model.trace(X, samples=40_000, generator=rng(), above=1, skip=skip)
    assert (far(trace.log_w, -nll - kl) < 4.5).all() and (far(trace.kl[1], kl) < 4.5).all() and not trace.kl[0].any()


def test_the_marginal_of_an_auxiliary_model_does_not_contain_its_auxiliary():
    """Weighted bounds of many samples: of the pair, of the pair with another auxiliary, and of the decoder alone, with the
    prior as proposal.
    """
    helped, plain = make("auxiliary", latents=(2,), scale_kind="fixed",
                         decoder_scale=1.0), make("vae", latents=(2,), scale_kind="fixed", decoder_scale=1.0)
    x, optimiser = draw(4, 2), torch.optim.Adam(helped.parameters(), 1e-2)
    for step in range(150):  # weights of an untrained proposal have no variance to speak of
        optimiser.zero_grad(), loss_of(helped, x, seed=step).mean().backward()
        optimiser.step()
    plain.decoder.load_state_dict(helped.decoder.state_dict())
    # softplus(.54) = 1
    plain.encoder.rest[-1].weight.data.zero_(), plain.encoder.rest[-1].bias.data.copy_(torch.tensor([0.0, 0.0, 0.54, 0.54]))
    moved = copy.deepcopy(helped)
    for parameter in moved.decoder_a.parameters(): parameter.data += 0.05
    mine, other, theirs = (evaluate(model, x, samples=20_000, tile=5000, generator=rng(1)) for model in (helped, moved, plain))
    assert (mine.iw - theirs.iw).abs().max() < 0.05 and (mine.iw - other.iw).abs().max() < 0.05
    # the bound knows the proposal, log p(x) does not
    assert (mine.elbo - theirs.elbo).abs().max() > 0.3 and (mine.elbo - other.elbo).abs().max() > 0.005


# Paths ----------------------------------------------------------------------------------------------------------------

@every_kind
def test_shapes_and_the_sum_of_a_path(kind):
    model, x = make(kind), draw(5, 2)
    trace = model.trace(x, samples=3, generator=rng())
    layers = len(model.names)
    assert trace.log_w.shape == trace.nll.shape == (3, 5) and len(trace.kl) == len(trace.z) == len(trace.q) == layers
    assert trace.raw.shape == (3, 5, 2, 2) and all(kl.shape == (3, 5) for kl in trace.kl) and all(z.shape[:2] == (3, 5) for z in trace.z)
    torch.testing.assert_close(trace.log_w, -trace.nll - torch.stack(trace.kl).sum(0))
    raw = trace.raw
    by_hand = torch.distributions.Normal(raw[..., 0, :], torch.nn.functional.softplus(raw[..., 1, :]) + 1e-3).log_prob(x).sum(-1)
    torch.testing.assert_close(-trace.nll, by_hand)


@every_kind
@pytest.mark.parametrize("skip", ["mode", "sample"])
def test_nothing_skipped_is_the_elbo_bit_for_bit(kind, skip):
    model, x = make(kind), draw(5, 2)
    plain = model.trace(x, samples=4, generator=rng())
    none = model.trace(x, samples=4, generator=rng(), above=0, skip=skip)
    assert torch.equal(plain.log_w, none.log_w) and torch.equal(plain.nll, none.nll)
    assert torch.equal(evaluate(model, x, samples=4, tile=4, generator=rng(), above=0, skip=skip).elbo,
                       evaluate(model, x, samples=4, tile=4, generator=rng()).elbo)


@several_layers
@pytest.mark.parametrize("skip", ["mode", "sample"])
def test_skipping_changes_the_bound_and_counts_no_divergence_below(kind, skip):
    model, x = make(kind), draw(5, 2)
    seen = []
    for above in range(len(model.sizes)):
        trace = model.trace(x, samples=200, generator=rng(), above=above, skip=skip)
        assert [q is None for q in trace.q] == [i < above for i in range(len(model.sizes))]
        assert not any(kl.any() for kl in trace.kl[:above]) and all(kl.any() for kl in trace.kl[above:])
        seen.append(trace.log_w.mean(0))
    assert all((a - b).abs().min() > 1e-3 for a, b in itertools.combinations(seen, 2))


@several_layers
def test_upper_layers_from_the_prior(kind):
    model, x = make(kind), draw(5, 2)
    for below in range(2, len(model.sizes) + 1):
        trace = model.trace(x, samples=20_000, generator=rng(), below=below)
        assert ([q is None for q in trace.q] == [i + 1 >= below for i in range(len(model.sizes))]
                and all(kl.any() for kl in trace.kl[:below - 1]))
        top = trace.z[-1]  # the standard normal, whatever the datum
        assert (far(top, 0.0) < 5).all() and (far(top.square(), 1.0) < 5).all()


@several_layers
def test_skip_connections_are_used(kind):
    "Each layer's network sees the layer two away: its weights matter, and so does what is fed."
    model, x = make(kind, skips=True, layers=3, latents=(2,)), draw(5, 2)
    before = model.trace(x, generator=rng()).log_w
    skipping = [block for name in ("encoders", "decoders") for block in getattr(model, name, []) if len(block.first) == 2]
    assert len(skipping) == (4 if hasattr(model, "encoders") else 2)
    for block in skipping:
        kept = block.first[1].weight.detach().clone()
        block.first[1].weight.data.zero_()
        assert not torch.allclose(model.trace(x, generator=rng()).log_w, before)
        block.first[1].weight.data.copy_(kept)
        with pytest.raises(ValueError, match="`inputs` must be as many as the network was built for, 2: got 1"):
            block(torch.zeros(1, block.first[0].in_features))
    assert torch.equal(model.trace(x, generator=rng()).log_w, before)


def test_nothing_is_lost_where_the_prior_of_a_layer_is_its_posterior():
    "LLR>1 is 0: exactly without noise, and in the mean with it."
    model, x = make("two"), draw(5, 2)
    for block in (model.encoders[0], model.decoders[1]):
        block.rest[-1].weight.data.zero_(), block.rest[-1].bias.data.copy_(torch.tensor([0.3, -0.2, 0.1, 0.4]))
    whole, above = (model.trace(x, generator=rng(), above=k, temperature=0.0).log_w for k in (0, 1))
    assert torch.equal(whole, above)
    whole, above = (model.trace(x, samples=20_000, generator=rng(k), above=k, skip="sample").log_w for k in (0, 1))
    assert (far(whole - above, 0.0) < 4.5).all() and whole.std() > 0.1


@pytest.mark.parametrize("kind", ["vae", "ladder", "learnt", "ladder skips", "one rung"])
def test_sampled_and_analytic_divergences_agree(kind):
    model, x = make(kind), draw(4, 2)
    sampled, closed = (model.trace(x, samples=20_000, generator=rng(), analytic=flag) for flag in (False, True))
    for a, b in zip(sampled.kl, closed.kl): assert (far(a - b, 0.0) < 4.5).all() and (b >= 0).all()
    assert torch.equal(sampled.nll, closed.nll)


@every_kind
def test_a_seed_decides_and_the_global_stream_does_not(kind):
    torch.manual_seed(1)
    first, x = make(kind, seed=3), draw(4, 2)
    torch.manual_seed(2)
    again, other = make(kind, seed=3), make(kind, seed=4)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters()))
    assert torch.equal(first.trace(x, generator=rng()).log_w, again.trace(x, generator=rng()).log_w)
    assert not torch.equal(first.trace(x, generator=rng()).log_w, other.trace(x, generator=rng()).log_w)
    assert not torch.equal(first.trace(x, generator=rng()).log_w, first.trace(x, generator=rng(1)).log_w)


@every_kind
@pytest.mark.parametrize("batch", [1, 3])
def test_a_datum_does_not_depend_on_its_neighbours(kind, batch):
    model, x = make(kind), draw(batch, 2)
    still = lambda data: model.trace(data, generator=rng(), temperature=0.0).log_w
    torch.testing.assert_close(still(torch.cat([x, draw(2, 2, seed=9)]))[:, :batch], still(x))


@every_kind
def test_dream_is_the_ancestral_sampling_of_the_model(kind):
    model, n = make(kind), 30_000
    z, raw = model.sample_prior(n, generator=rng())
    by_hand = [None] * len(model.sizes)
    softplus = torch.nn.functional.softplus
    for i in reversed(range(len(by_hand))):
        loc, scale = torch.zeros(n, model.sizes[i]), torch.ones(n, model.sizes[i])
        if i + 1 < len(by_hand):
            skipped = (by_hand[i + 2],) if model.settings.skips and i + 2 < len(by_hand) else ()
            loc, spread = model.decoders[i + 1](by_hand[i + 1], *skipped).chunk(2, -1)
            scale = softplus(spread) + FLOOR
        by_hand[i] = (loc + scale * draw(n, model.sizes[i], seed=100 + i)).detach()
    decoder = model.decoder if hasattr(model, "decoder") else model.decoders[0]
    more = (by_hand[1],) if model.settings.skips and len(by_hand) > 1 else ()
    for mine, theirs in zip([*z, raw.flatten(2)], [*by_hand, decoder(by_hand[0], *more).detach()]):
        mine = mine[0].detach()
        for a, b in ((mine, theirs), (mine[:, :1] * mine, theirs[:, :1] * theirs)):
            error = (a.mean(0) - b.mean(0)).abs() / ((a.var(0) + b.var(0)) / n).sqrt()
            assert error.max() < 5
    cold = model.sample_prior(7, generator=rng(), temperature=0.0)[1]
    assert torch.equal(cold, cold[:, :1].expand_as(cold))


# What is minimised ----------------------------------------------------------------------------------------------------

@every_kind
def test_with_everything_off_the_loss_is_minus_the_elbo(kind):
    model, x = make(kind), draw(6, 2)
    torch.testing.assert_close(loss_of(model, x), -model.trace(x, generator=rng()).log_w.mean(0))
    iw = Live(model.settings.replace(objective="iw", samples=5))
    torch.testing.assert_close(loss_of(model, x, iw), -iw_bound(model.trace(x, samples=5, generator=rng()).log_w))


@every_kind
def test_faded_free_nats_leave_the_elbo_also_where_a_log_ratio_is_negative(kind):
    model, x = make(kind), draw(6, 2)
    live = Live(model.settings.replace(free_nats=3.0, free_steps=10))
    full = loss_of(model, x, live)
    model.steps.fill_(10)
    for seed in range(20): torch.testing.assert_close(loss_of(model, x, live, seed), loss_of(model, x, seed=seed))
    assert (full > loss_of(model, x)).any()


def test_a_negative_log_ratio_was_among_them():
    "Lower layers of a bottom-up hierarchy have no true divergence: the premise of the test above."
    model, x = make("two"), draw(6, 2)
    for block in (model.decoders[1], model.encoders[0]): block.rest[-1].bias.data[2:] = 3.0  # wide q and p of z1
    assert min(model.trace(x, generator=rng(seed)).kl[0].mean().item() for seed in range(50)) < 0


def test_beta_and_free_nats_weigh_what_they_name():
    model, x = make("two"), draw(6, 2)
    terms = latent_terms(model, x, model.live, rng())
    live = Live(model.settings.replace(beta=0.5, warmup_steps=10))
    model.steps.fill_(5)
    torch.testing.assert_close(loss_of(model, x, live), terms["nll"] + 0.25 * terms["kl"])
    floored = latent_terms(model, x, Live(model.settings.replace(free_nats=20.0)), rng())
    assert torch.equal(floored["kl"], torch.full((6,), 40.0))  # 20 for each layer
    assert torch.equal(floored.observed["elbo"], terms.observed["elbo"]) and torch.equal(floored.observed["kl_1"], terms.observed["kl_1"])


@pytest.mark.parametrize("kind", ["vae", "two", "skips"])
@pytest.mark.parametrize(("beta", "samples"), [(1.0, 4), (0.3, 4), (1.0, 1)])
def test_dreg_of_every_encoder_has_the_mean_of_the_plain_gradient(kind, beta, samples):
    assert apart(kind, "dreg", beta=beta, samples=samples) < 4.8  # of some hundred numbers


@pytest.mark.parametrize("kind", ["vae", "two", "skips"])
def test_stl_is_unbiased_for_the_elbo(kind):
    assert apart(kind, "stl", objective="elbo", samples=1) < 4.8
    assert apart(kind, "stl", objective="elbo", samples=3, beta=0.4) < 4.8


@pytest.mark.parametrize("layer", [0, 1])
@pytest.mark.parametrize("broken", ["no toll", "twice"])
def test_a_wrong_toll_on_either_encoder_is_seen(broken, layer, monkeypatch):
    true = hvae.toll
    monkeypatch.setattr(hvae, "toll", (lambda z, weights: z) if broken == "no toll" else lambda z, weights: true(true(z, weights), weights))
    assert apart("two", "dreg", samples=4, layer=layer) > 6


def apart(kind, gradient, *, beta=1.0, samples, objective="iw", layer=None, repeats=120, copies=512):
    "Largest difference of mean encoder gradients, in standard errors; the same draws for both, `copies` of one datum at a time."
    model, x = make(kind, layers=KINDS[kind].get("layers", 1), latents=(2,), hidden=(4,)), torch.tensor([[0.7, -0.4]]).expand(copies, 2)
    blocks = [model.encoder] if hasattr(model, "encoder") else list(model.encoders)
    parameters = [p for block in (blocks if layer is None else [blocks[layer]]) for p in block.parameters()]
    hots = [Live(model.settings.replace(objective=objective, samples=samples, beta=beta, gradient=name)) for name in ("plain", gradient)]
    found = []
    for seed in range(repeats):
        two = [torch.autograd.grad(loss_of(model, x, live, seed).mean(), parameters) for live in hots]
        found.append(torch.cat([(a - b).flatten() for a, b in zip(*two)]))
    return far(torch.stack(found).double(), 0.0).nan_to_num().max().item()


@every_kind
@pytest.mark.parametrize("shape", [(2,), (1, 28, 28)])
def test_every_parameter_receives_gradient(kind, shape):
    model = make(kind, shape, net="mlp" if shape == (2,) else "conv", likelihood="gaussian", scale_kind="learnt")
    loss_of(model, torch.rand(3, *shape, generator=rng())).mean().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all() and parameter.grad.any(), name


@every_kind
def test_numbers_of_a_scale_that_nobody_reads_have_none(kind):
    model = make(kind, scale_kind="fixed")
    loss_of(model, draw(3, 2)).mean().backward()
    bias = (model.decoder if hasattr(model, "decoder") else model.decoders[0]).rest[-1].bias.grad
    assert bias[:2].all() and not bias[2:].any()


@every_kind
def test_overfits_eight_examples(kind):
    model, x = make(kind, hidden=(32, 32), latents=(2,), likelihood="bernoulli",
                    warmup_steps=200), torch.bernoulli(torch.full((8, 12), 0.5), generator=rng(1))
    model = make_model(model.settings, (12,), generator=rng())
    optimiser = torch.optim.Adam(model.parameters(), 1e-2)
    for step in range(300):
        optimiser.zero_grad(), loss_of(model, x, seed=step).mean().backward()
        optimiser.step(), model.after_step()
    found, p = evaluate(model, x, samples=50, generator=rng(5)).figures(), x.mean(0)
    independent = (torch.special.xlogy(p, p) + torch.special.xlogy(1 - p, 1 - p)).sum().item()  # without latents nothing is better
    assert independent + 1.5 < found["elbo"] and found["iw"] < -math.log(8) + 0.1, (found, independent)


# Likelihoods and networks ---------------------------------------------------------------------------------------------

@every_kind
@pytest.mark.parametrize(("likelihood", "numbers"), [("bernoulli", 1), ("gaussian", 2), ("logistic_mixture", 9)])
def test_images_of_each_likelihood(kind, likelihood, numbers):
    model = make(kind, (1, 28, 28), net="conv", likelihood=likelihood, components=3)
    x = (torch.rand(4, 1, 28, 28, generator=rng()) * 255).round() / 255
    if likelihood == "bernoulli": x = (x > 0.5).float()
    trace = model.trace(x, samples=2, generator=rng())
    assert trace.raw.shape == (2, 4, numbers, 784) and trace.log_w.isfinite().all()
    if model.likelihood().discrete: assert (trace.nll >= 0).all()
    assert torch.equal(model.trace(x.flatten(1), samples=2, generator=rng()).log_w, trace.log_w)
    z, raw = model.sample_prior(3, generator=rng())
    means, seen = model.likelihood().mean(raw), model.likelihood().sample(raw, rng())
    assert means.shape == seen.shape == (1, 3, 784) and (likelihood == "gaussian" or (seen >= 0).all() and (seen <= 1).all())
    loss_of(model, x).mean().backward()
    assert all(p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("shape", [(3, 8, 12), (1, 4, 4)])
@every_kind
def test_odd_shapes(kind, shape):
    model, x = make(kind, shape, net="conv", likelihood="bernoulli"), torch.bernoulli(torch.full((1, *shape), 0.5), generator=rng())
    assert (model.trace(x, generator=rng()).raw.shape == (1, 1, 1, math.prod(shape))
            and evaluate(model, x, generator=rng()).elbo.shape == (1,))
    line = make(kind, (1,))  # one number a datum, one datum a batch
    assert line.trace(draw(1, 1), generator=rng()).log_w.isfinite().all()


def test_a_convolutional_decoder_mirrors_its_encoder():
    for kind in ("vae", "two", "ladder", "auxiliary"):
        model = make(kind, (1, 28, 28), net="conv", hidden=(256, 64))
        down = next(m for m in model.modules() if isinstance(m, nn.Conv2d))
        up = [m for m in model.modules() if isinstance(m, nn.ConvTranspose2d)][-1]
        assert down.out_channels == up.in_channels == 32, kind


def test_a_learnt_scale_keeps_its_floor():
    model, x = make("vae", scale_floor=0.05), torch.zeros(1, 2)
    model.decoder.rest[-1].weight.data.zero_(), model.decoder.rest[-1].bias.data.copy_(torch.tensor([0.0, 0.0, -200.0, -200.0]))
    trace = model.trace(x, generator=rng())
    assert model.likelihood().scale(trace.raw).min().item() == pytest.approx(0.05)
    assert trace.nll.item() == pytest.approx(2 * (math.log(0.05) + 0.5 * math.log(2 * math.pi)), rel=1e-5)
    loss_of(model, x).sum().backward()
    assert all(p.grad.isfinite().all() for p in model.parameters())


def test_the_scale_of_this_step():
    model, x = make("vae"), draw(3, 2)
    worth = {}
    for step, kind, scale in ((0, "fixed", 0.25), (0, "annealed", 1.0), (2, "annealed", 0.5), (4, "annealed", 0.25)):
        model.steps.fill_(step)
        trace = model.trace(x, generator=rng(), live=Live(model.settings.replace(decoder_scale=0.25, scale_kind=kind, anneal_steps=4)))
        torch.testing.assert_close(-trace.nll, torch.distributions.Normal(trace.raw[..., 0, :], scale).log_prob(x).sum(-1))
        worth[step, kind] = trace.nll
    assert torch.equal(worth[4, "annealed"], worth[0, "fixed"])


@every_kind
def test_a_float64_model_stays_in_float64(kind):
    model, x = make(kind).double(), draw(3, 2, dtype=torch.float64)
    trace = model.trace(x, generator=rng())
    assert trace.log_w.dtype == torch.float64 and model.sample_prior(2, generator=rng())[1].dtype == torch.float64
    rough = make(kind).trace(x.float(), generator=rng(), temperature=0.0).log_w
    torch.testing.assert_close(model.trace(x, generator=rng(), temperature=0.0).log_w.float(), rough, rtol=1e-3, atol=1e-3)


@every_kind
def test_a_model_that_was_used_can_be_copied(kind):
    model, x = make(kind), draw(3, 2)
    before = model.trace(x, generator=rng()).log_w
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(other.trace(x, generator=rng()).log_w, before) and other.settings == model.settings
        next(other.parameters()).data += 1
        assert torch.equal(model.trace(x, generator=rng()).log_w, before)


# Settings -------------------------------------------------------------------------------------------------------------

@every_kind
def test_settings_survive_a_file_and_build_the_same(kind):
    settings = VAESettings(**KINDS[kind])
    back = from_json(VAESettings, to_json(settings))
    assert back == settings and not missing_parts(make_model(back), Model)
    a, b = (make_model(s, generator=rng()).state_dict() for s in (settings, back))
    assert a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)
    run = HVAERun(model=settings)
    assert from_json(HVAERun, to_json(run)) == run


def test_lists_texts_and_tuples_are_one(unchecked):
    wanted = VAESettings(latents=(2, 3), hidden=((8, 8), (4, 4)))
    assert wanted.layers == 2 and wanted == VAESettings(latents=(2, 3), hidden=((8, 8), (4, 4)))
    for settings in (wanted, VAESettings(latents=(2, 3), hidden="[8, 8],\n[4, 4]")):
        assert settings.layers == 2 and layer_sizes(settings.latents, 2) == (2, 3) and hidden_sizes(settings.hidden, 2) == ((8, 8), (4, 4))
    assert wanted.replace(latents=(5,)).layers == 2 and hidden_sizes("6", 3) == ((6,), (4,), (4,)) and hidden_sizes(2, 2) == ((2,), (2,))


@pytest.mark.parametrize("value", ["", " ", "two", "2.5", "[2, 0]", "-1", "[[64, 64], 32]", "[true]", "[2]]", "[" * 5000, "NaN", "9000",
                                   [2.5], [None],
                                   True, 2.5, None, {"a": 1}, [[], []]])
def test_what_is_no_list_of_sizes_is_refused(value, unchecked):
    with pytest.raises(ValueError, match="`latents` must"): read_lists("latents", value)


@pytest.mark.parametrize(("changes", "sentence"), [
    (dict(layers=2, kl="analytic"), "`kl` must be sampled here: got analytic. Reason: bottom-up inference draws layers 1 to 1"),
    (dict(objective="iw", kl="analytic"), "`kl` must be sampled here.*no bound at all"),
    (dict(kind="ladder", objective="iw", kl="analytic"), "no bound at all"),
    (dict(kind="auxiliary", kl="analytic"), "the auxiliary latent is drawn before the other"),
    (dict(kind="ladder", gradient="dreg"), "`gradient` must be plain for ladder models"),
    (dict(kl="analytic", gradient="stl"), "`gradient` must be plain"),
    (dict(objective="iw", free_nats=0.5), "`free_nats` must be 0"),
    (dict(samples=0), "`samples` must be at least 1"), (dict(samples=1001), "`samples` must be at most 1000"),
    (dict(layers=0), "`layers` must be at least 1"), (dict(layers=7), "`layers` must be at most 6"),
    (dict(latents=(1, 1, 1, 1, 1, 1, 1)), "`layers` must be at most 6"),
    (dict(latents=(2, 2), hidden=((8,), (8,), (8,))), "`latents` must have one size for all layers, or one for each of the 3: got"),
    (dict(layers=3, hidden=((8,), (8,))), "`hidden` must have one list of widths, or one for each of the 3 layers: got 2"),
    (dict(layers=2, latents=((2, 2),)), "`latents` must be numbers, not lists"), (dict(latents="0"), "`latents` must hold whole numbers"),
    (dict(kind="auxiliary", layers=2), "`layers` must be 1 for the "
                                       "auxiliary model"), (dict(kind="auxiliary", latents=(2, 2)),
                                                            "`layers` must be 1 for the auxiliary model"),
    (dict(beta=-1.0), "`beta` must be at least 0"), (dict(decoder_scale=0.0), "`decoder_scale` must be at least 0.001"),
    (dict(scale_floor=0.0), "`scale_floor` must be at least"),
    (dict(free_nats=math.nan), "`free_nats` must be finite"), (dict(likelihood="beta"), "`likelihood` must be one of"),
    (dict(kind="hvae"), "`kind` must be one of"),
])
def test_settings_that_describe_no_bound_are_refused(changes, sentence, unchecked):
    with pytest.raises(ValueError, match=sentence): VAESettings(**changes)
    with pytest.raises(ValueError, match=sentence): HVAERun().replace(changes)


@pytest.mark.parametrize(("call", "sentence"), [
    (lambda: make("two").trace(draw(3, 2), generator=rng(), above=2), "`above` must be from 0 to 1, below the 2 layers: got 2"),
    (lambda: make("ladder").trace(draw(3, 2), generator=rng(), above=-1), "`above` must be from 0 to 1"),
    (lambda: make("vae").trace(draw(3, 2), generator=rng(), above=1), "`above` must be from 0 to 0, below the 1 layer: got 1"),
    (lambda: make("auxiliary").trace(draw(3, 2), generator=rng(), above=1), "`above` must be from 0 to 0"),
    (lambda: evaluate(make("two"), draw(3, 2), generator=rng(), above=2), "`above` must be from 0 to 1"),
    (lambda: make("two").trace(draw(3, 2), generator=rng(), above=1, below=2), "`below` must be from 2 to 2 with `above` 0"),
    (lambda: make("two").trace(draw(3, 2), generator=rng(), below=3), "`below` must be from 2 to 2"),
    (lambda: make("two").trace(draw(3, 2), generator=rng(), above=1, skip="mean"), "`skip` must be mode or sample: got 'mean'"),
    (lambda: make("two").trace(draw(3, 2), generator=rng(), analytic=True), "`analytic` must be False for 2 layers: got True. "
                                                                            "Reason: bottom-up"),
    (lambda: make("auxiliary").trace(draw(3, 2), generator=rng(), analytic=True), "`analytic` must be False"),
    (lambda: make("vae").trace(draw(3, 2), samples=0, generator=rng()), "`samples` must be at least 1: got 0"),
    (lambda: evaluate(make("vae"), draw(3, 2), samples=0, generator=rng()), "`samples` must be at least 1: got 0"),
    (lambda: evaluate(make("vae"), draw(3, 2), samples=True, generator=rng()), "`samples` must be at least 1: got True"),
    (lambda: evaluate(make("vae"), draw(3, 2), chunk=0, generator=rng()), "`chunk` must be at least 1"),
    (lambda: evaluate(make("vae"), draw(3, 2), tile=-1, generator=rng()), "`tile` must be at least 1"),
    (lambda: evaluate(make("vae"), draw(3, 2) / 0, generator=rng()), "`x` must be finite"),
    (lambda: evaluate(make("vae", likelihood="bernoulli"), draw(3, 2), generator=rng()), r"`x` must be in \[0, 1\] for bernoulli"),
    (lambda: evaluate(make("vae", likelihood="logistic_mixture"), torch.full((3, 2), 0.5),
                      generator=rng()), "`x` must be multiples of 1/255"),
    (lambda: make("vae").trace(draw(3, 3), generator=rng()), r"`x` must be a batch of data of shape \(2,\): got \(3, 3\)"),
    (lambda: make("two").trace(draw(2), generator=rng()), "`x` must be a batch of data of shape"),
    (lambda: make("ladder", (1, 4, 4)).trace(draw(3, 4, 4), generator=rng()), "`x` must be a batch of data of shape"),
    (lambda: make("auxiliary").trace(draw(3, 2, dtype=torch.float64), generator=rng()), "`x` must be torch.float32, as the model is: got "
                                                                                        "torch.float64"),
    (lambda: make("vae").trace(torch.ones(3, 2, dtype=torch.long), generator=rng()), "`x` must be torch.float32, as the model is: "
                                                                                     "got torch.int64"),
    (lambda: make("vae").to("meta").trace(draw(3, 2).to("meta"), generator=rng()), "`generator` must be on the device of the data, meta: "
                                                                                   "got one on cpu"),
    (lambda: make("vae", net="conv"), "`net` must be mlp for data that "
                                      "are no images"), (lambda: make("two", (1, 30, 28),
                                                                      net="conv"), "`shape` must have sides divisible by 4"),
    (lambda: VAE(VAESettings(layers=2)), "`layers` must be 1 for a VAE: got 2"),
    (lambda: Trace(nll=torch.zeros(5, 3), kl=(torch.zeros(3),), z=(), q=(), raw=torch.zeros(5, 3, 1, 2)), "`kl` and `nll` must be"),
    (lambda: Trace(nll=torch.zeros(5, 3), kl=(torch.zeros(5, 1),), z=(), q=(), raw=torch.zeros(5, 3, 1, 2)), "`kl` and `nll` must be"),
    (lambda: Dense([2], [], 1), "`inputs` and `hidden` must have at least "
                                "one width each"), (lambda: Dense([2], [4], 1, activation="sine"), "`activation` must be one of"),
])
def test_bad_input_is_refused(call, sentence, unchecked):
    with pytest.raises(ValueError, match=sentence): call()


def test_broadcasting_between_samples_and_batch_is_refused(unchecked):
    q = Normal(torch.zeros(3, 2), torch.ones(3, 2))
    with pytest.raises(ValueError, match="must end with"): q.log_prob(torch.zeros(3, 4, 2))
    model = make("vae")
    with pytest.raises(ValueError, match=r"`raw` must be"): model.nll(torch.zeros(5, 2), model.split(torch.zeros(4, 3, 4)))


# Training -------------------------------------------------------------------------------------------------------------

TINY = HVAERun().replace({"data.points": 200, "batch": 50, "hidden": (8, 8), "check_every": 1000, "checkpoint_every": 8, "record_every": 1,
                          "steps": 30, "device": "cpu"})


@pytest.fixture
def trainer():
    "Makes trainers of tiny runs."
    made = []

    def of(changes=None, **options):
        made.append(Trainer(TINY.replace(changes or {}), **options))
        return made[-1]

    yield of
    for one in made: one.stop()


def state_of(trainer):
    saved = trainer.session.state()
    return {"model": {k: v.clone() for k, v in saved["model"].items()}, "optimisers": copy.deepcopy(saved["optimisers"]),
            "step": saved["step"]}


def same(a, b):
    if torch.is_tensor(a): return torch.equal(a, b)
    if isinstance(a, dict): return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)): return len(a) == len(b) and all(map(same, a, b))
    return a == b


CLOCKED = {"warmup_steps": 24, "free_nats": 2.0, "free_steps": 24, "scale_kind": "annealed", "anneal_steps": 24}


@pytest.mark.parametrize("changes", [{"layers": 2, **CLOCKED}, {"kind": "ladder", "layers": 2, **CLOCKED}, {"kind": "auxiliary", **CLOCKED},
                                     {"layers": 2, "objective": "iw", "samples": 3, "gradient": "dreg", "warmup_steps": 24}],
                                     ids=["two", "ladder", "auxiliary", "dreg"])
def test_warm_up_free_nats_and_scale_go_on_after_a_resume(trainer, tmp_path, changes):
    straight = state_of(trainer(changes).fit(30, progress=False))
    trainer(changes, journal=tmp_path).fit(16, progress=False).stop()
    resumed = trainer(changes, journal=tmp_path).resume()
    assert resumed.step_count == 16 and resumed.model.steps.item() == 16
    assert float(resumed.model.beta(resumed.live)) == pytest.approx(16 / 24)
    if "scale_kind" in changes:
        assert resumed.model.likelihood(resumed.live).scale(torch.zeros(1, 1, 1, 2)).max().item() == pytest.approx(0.1 ** (16 / 24))
    assert same(state_of(resumed.fit(14, progress=False)), straight)


@every_kind
@pytest.mark.parametrize("precision", ["float32", pytest.param("bfloat16", marks=pytest.mark.slow)])
def test_training_falls_and_stays_finite(trainer, kind, precision):
    run = trainer({**KINDS[kind], "precision": precision, "learning_rate": 5e-3, "hidden": (16, 16)})
    assert not missing_parts(run.model, Model)
    run.fit(80, progress=False)
    curve = run.snapshot().curves
    values = {name: curve[name] if isinstance(curve, dict) else curve.values[name] for name in ("loss", "elbo")}
    loss = torch.as_tensor(values["loss"])
    assert (loss.isfinite().all() and loss[-20:].mean() < loss[:5].mean() - 0.5
            and all(p.isfinite().all() and p.dtype == torch.float32 for p in run.model.parameters()))


def test_half_precision_is_the_same_bound_roughly():
    for kind in KINDS:
        model, x = make(kind), draw(50, 2)
        with torch.autocast("cpu", torch.bfloat16): rough = model.trace(x, samples=20, generator=rng())
        assert rough.log_w.dtype == torch.float32
        assert abs(rough.log_w.mean() - model.trace(x, samples=20, generator=rng()).log_w.mean()) < 0.05 * rough.log_w.mean().abs(), kind


def test_what_is_refused_while_training_leaves_the_run_as_it_was(trainer, unchecked):
    run, plain = trainer({"layers": 2}), trainer({"layers": 2})
    run.fit(3, progress=False), plain.fit(6, progress=False)
    before = run.run
    for wrong in ({"kl": "analytic"}, {"samples": 0}, {"objective": "iw", "free_nats": 1.0}, {"gradient": "best"}, {"beta": math.nan},
                  {"beta": 0.5, "kl": "analytic"}):
        with pytest.raises(ValueError): run.set(wrong)
        assert run.run == before and not run.changes
    with pytest.raises(ValueError, match="`layers` must be a live setting"): run.set(layers=3)
    for wrong in ({"latents": (2, 2, 2), "layers": 2}, {"kind": "auxiliary"}, {"hidden": ((8,), (8,), (8,))}, {"likelihood": "bernoulli"}):
        with pytest.raises(ValueError): run.rebuild(wrong)
        assert run.run == before and run.step_count == 3
    run.fit(3, progress=False)
    assert same(state_of(run), state_of(plain))


def test_hot_settings_change_while_it_trains_and_layers_come_and_go(trainer):
    run = trainer()
    live = ({"beta": 0.2}, {"kl": "analytic"}, {"kl": "sampled", "objective": "iw", "samples": 7}, {"gradient": "dreg"},
            {"gradient": "stl"},
           {"gradient": "plain", "objective": "elbo", "free_nats": 1.0}, {"free_kind": "example", "scale_kind": "fixed"},
           {"scale_kind": "annealed"}, {"decoder_scale": 1.5})
    for n, changes in enumerate(live): assert run.set(changes).fit(2, progress=False).step_count == 2 * n + 2
    run.set(free_nats=0.0, scale_kind="learnt")
    built = (({"layers": 3}, 3), ({"layers": 1}, 1), ({"latents": (3, 2)}, 2), ({"latents": (2,), "layers": 1}, 1),
             ({"kind": "ladder", "layers": 2}, 2),
             ({"merge": "learnt"}, 2), ({"kind": "auxiliary", "layers": 1}, 1))
    for changes, layers in built:
        run.rebuild(changes)
        assert run.step_count == 0 and run.model.steps.item() == 0 and run.run.model.layers == len(run.model.sizes) == layers
        assert run.fit(2, progress=False).model.steps.item() == 2
    assert all(p.isfinite().all() for p in run.model.parameters()) and isinstance(run.model, AuxiliaryVAE)


def test_one_way_to_build():
    kinds = {"vae": VAE, "two": HierarchicalVAE, "ladder": LadderVAE, "one rung": LadderVAE, "auxiliary": AuxiliaryVAE}
    for kind, of in kinds.items(): assert type(make(kind)) is of
    flat, one = make("vae"), HierarchicalVAE(VAESettings(hidden=(16, 16)), generator=rng())
    one.encoders[0].load_state_dict(flat.encoder.state_dict()), one.decoders[0].load_state_dict(flat.decoder.state_dict())
    x = draw(4, 2)
    assert torch.equal(one.trace(x, samples=3, generator=rng()).log_w, flat.trace(x, samples=3, generator=rng()).log_w)
    assert set(latent_terms(one, x, one.live, rng()).observed) == {"kl_1", "elbo"}
