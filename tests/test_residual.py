"Hierarchies whose lowest latents are maps: shapes, floors, skipped layers by hand, and what is refused."
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from latentlab.core.settings import Live
from latentlab.families.hvae.experiment import FAMILY, SCORED, HVAERun
from latentlab.families.hvae.model import HierarchicalVAE, make_model
from latentlab.families.hvae.stored import RECIPE, misfits, read_hierarchy, stored_path
from latentlab.latents.checks import kl_weight
from latentlab.latents.evaluate import evaluate, probe_latents
from latentlab.latents.model import VAE, VAESettings, latent_terms
from latentlab.metrics.ood import auroc
from latentlab.nn.residual import Residual
from latentlab.train.trainer import Trainer

PUBLISHED = dict(net="residual", layers=3, latents=(8, 16, 8), hidden=((6, 6), (6, 6), (12,)), maps=1, activation="leaky_relu",
                 likelihood="bernoulli")
WAYS = {"published": {}, "skips": {"skips": True}, "two maps": {"maps": 2, "latents": (4, 3, 5), "skips": True}, "vectors": {"maps": 0},
        "kernel": {"kernel": 5}}


def rng(seed=0): return torch.Generator().manual_seed(seed)


def make(seed=0, **changes): return make_model(VAESettings(**{**PUBLISHED, **changes}), (1, 28, 28), generator=rng(seed))


def bits(n=4, seed=1): return torch.bernoulli(torch.full((n, 1, 28, 28), 0.3), generator=rng(seed))


def stirred(model, seed=3):
    "Weights away from their start, where every block is the identity."
    with torch.no_grad():
        for parameter in model.parameters(): parameter += 0.05 * torch.randn(parameter.shape, generator=rng(seed))
    return model


def test_shapes_and_places():
    model = make()
    assert isinstance(model, HierarchicalVAE) and model.shapes == ((1, 28, 28), (8, 14, 14), (16,), (8,))
    assert (model.sizes, model.places) == ((1568, 16, 8), (196, 1, 1))
    assert make(maps=2, latents=(4, 3, 5)).shapes == ((1, 28, 28), (4, 14, 14), (3, 7, 7), (5,))
    vector = make(maps=0)
    assert vector.sizes == (8, 16, 8) and vector.places == (1, 1, 1)
    assert isinstance(make_model(VAESettings(net="residual", latents=(2,), hidden=(6,), maps=1, likelihood="bernoulli"), (1, 28, 28)), VAE)


@pytest.mark.parametrize("way", WAYS)
def test_every_weight_learns_and_no_datum_reads_another(way):
    model, x = stirred(make(**WAYS[way])), bits()
    terms = latent_terms(model, x, model.live, rng())
    sum(value.sum() for value in terms.values()).backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []
    alone = model.trace(x[:1], generator=rng(), temperature=0.0)
    together = model.trace(x, generator=rng(), temperature=0.0)
    torch.testing.assert_close(alone.log_w[:, 0], together.log_w[:, 0], rtol=1e-4, atol=1e-2)
    assert model.sample_prior(3, generator=rng()).raw.shape == (1, 3, 1, 784)


@pytest.mark.parametrize("way", ["published", "skips"])
def test_a_skipped_map_by_hand(way):
    "L>1: the map on the way up is its mean, on the way down the mode of its prior, and it pays nothing."
    model, x = stirred(make(**WAYS[way])), bits()
    trace = model.trace(x, generator=rng(), above=1, temperature=0.0)
    z1 = model.encode(0, [x.flatten(1)]).loc
    q2 = model.encode(1, [x.flatten(1), z1])
    q3 = model.encode(2, [x.flatten(1), z1, q2.loc])
    prior = model.decoders.prior(0, [None, q2.loc, q3.loc])
    torch.testing.assert_close(trace.z[0][0], prior.loc, rtol=1e-4, atol=1e-5)
    raw = model.split(model.decoders.below(0, [prior.loc, q2.loc, q3.loc]))
    torch.testing.assert_close(trace.nll[0], model.nll(x.flatten(1), raw[None])[0], rtol=1e-4, atol=1e-2)
    assert not trace.kl[0].any() and trace.kl[1].any()


def test_free_nats_are_counted_at_each_place():
    model, x = make(), bits(16)
    paid, free = (latent_terms(model, x, Live(model.settings.replace(free_nats=nats)), rng())["kl"] for nats in (0.0, 0.5))
    layers = [kl.mean() for kl in model.trace(x, generator=rng()).kl]
    assert paid.mean().item() == pytest.approx(sum(layers).item(), rel=1e-4)
    assert free.mean().item() == pytest.approx(sum(max(kl.item(), 0.5 * places) for kl, places in zip(layers, model.places)), rel=1e-4)
    assert free.mean() > 97  # 196 places


def test_the_check_of_free_nats_knows_places():
    model, x = make(), bits(30)
    model.steps += 1000
    found = replace(probe_latents(model, x, x, Live(model.settings.replace(free_nats=0.5)), rng(), 2),
                    kl=tuple(torch.full((30,), nats) for nats in (80.0, 0.3, 0.4)))
    assert kl_weight(found).level == "warn" and "(largest .41 nats): no layer is pressed" in kl_weight(found).sentence  # 80 / 196
    pressed = replace(found, kl=tuple(torch.full((30,), nats) for nats in (120.0, 0.3, 0.4)))
    assert kl_weight(pressed).level == "ok"  # the map has more than its 98 nats, and the floors of the others press nothing


def test_a_map_trains_stops_and_resumes_to_the_bit(tmp_path):
    small = {**PUBLISHED, "hidden": ((2,), (2,), (8,)), "latents": (2, 4, 2), "likelihood": "auto", "skips": True, "free_nats": 0.5}
    run = HVAERun().replace({**small, "free_steps": 6, "data.name": "fashion-mnist", "data.images": 500, "batch": 16, "steps": 8,
                             "check_every": 100, "device": "cpu"})
    whole = Trainer(run).fit(8, progress=False)
    part = Trainer(run, folder=tmp_path).fit(4, progress=False)
    part.checkpoint()
    again = Trainer(run, folder=tmp_path).resume().fit(4, progress=False)
    assert all(torch.equal(a, b) for a, b in zip(whole.model.state_dict().values(), again.model.state_dict().values()))
    assert evaluate(again.model, bits(), generator=rng(), above=1).elbo.isfinite().all()


@pytest.mark.parametrize("changes, words", [
    (dict(maps=4), "`maps` must be at most the number of layers, and 0 without residual blocks: got 4"),
    (dict(net="conv"), "`maps` must be at most the number of layers, and 0 without residual blocks: got 1 with net conv"),
    (dict(kind="ladder"), "`net` must be mlp or conv for ladder models: got residual"), (dict(kernel=4), "`kernel` must be odd: got 4"),
])
def test_what_is_refused(changes, words):
    with pytest.raises(ValueError, match=words): VAESettings(**{**PUBLISHED, **changes})


def test_points_have_no_maps():
    with pytest.raises(ValueError, match="`net` must be mlp for data that are no images: got residual"):
        make_model(VAESettings(**{**PUBLISHED, "likelihood": "gaussian"}), (2,))


def test_a_skip_that_is_lost_is_refused():
    stage = Residual([(8, 14, 14), (16,)], [4], (1, 28, 28), sides=((14, 14), (28, 28)))
    with pytest.raises(ValueError, match="`inputs` must be as many as the network was built for, 2: got 1"): stage(torch.zeros(1, 1568))


@pytest.mark.parametrize("name", ["clothes, trained already", "clothes, fresh", "Havtorn 2021, grey images"])
def test_presets_are_runs(name):
    run = HVAERun().replace(FAMILY.preset(name))
    assert (run.model.maps, run.data.start) == (1, "stored" if "already" in name else "fresh") and misfits(run.model.replace(
        hidden=RECIPE["hidden"], kernel=3)) == {}


def test_the_stored_hierarchy_tells_digits_apart_at_once():
    "With what is bundled alone: by the bound digits are more likely than clothes, by LLR>1 they stand apart."
    run = HVAERun().replace({**FAMILY.preset("clothes, trained already"), "data.images": 500, "device": "cpu"})
    setup = run.build("cpu")
    model, inside, outside = setup.model, setup.diagnostics.inside, setup.diagnostics.outside
    assert len(setup.diagnostics.inside) == len(setup.diagnostics.outside) == SCORED
    bound = {k: [evaluate(model, x, generator=rng(), above=k).elbo for x in (inside, outside)] for k in (0, 1)}
    assert auroc(*(-one for one in bound[0])) < 0.4
    assert auroc(*(whole - skipped for whole, skipped in zip(bound[0], bound[1]))) > 0.9


@pytest.mark.parametrize("changes, words", [
    ({"data.name": "moons"}, "`start` must be fresh for 'moons': got stored"), ({"skips": False}, "Set skips to True, or choose the preset"),
    ({"hidden": ((16,), (16,), (64, 64))}, "`start` must be fresh for this model: got stored. Set hidden to"),
])
def test_stored_weights_are_refused_where_they_do_not_fit(changes, words):
    base = {**FAMILY.preset("clothes, trained already"), **changes}
    if "data.name" in changes: base = {**base, "net": "mlp", "maps": 0, "likelihood": "gaussian"}
    with pytest.raises(ValueError, match=words): HVAERun().replace(base)


def test_a_damaged_store_is_refused(tmp_path):
    path = tmp_path / "one.safetensors"
    for content in (b"", stored_path("mnist").read_bytes()[:-100], (Path(stored_path("mnist")).parent / "simclr-scenes.safetensors").read_bytes()):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="`path` must hold a stored hierarchy"): read_hierarchy(path)
