"""Runs of latent-variable models and what they are shown with: data in their setup, bits that a seed decides, refusals
before any training, pictures with a known answer.
"""
import dataclasses
import functools
import itertools
import math
import re

import pytest
import torch
from PIL import Image

from latentlab.core.batch import Context
from latentlab.core.settings import Live, from_json, to_json
from latentlab.data import sources
from latentlab.data.batches import Batches
from latentlab.data.binarise import ood_set, without
from latentlab.data.images import load
from latentlab.data.toys import TOYS, arc, largest_variance, log_density, make_toy
from latentlab.metrics.ood import auroc
from latentlab.families.hvae.model import make_model
from latentlab.data.sources import fixed_bits, read_labels
from latentlab.families.hvae.diagnostics import PLANE_SIDE, ProbeHistory
from latentlab.families.hvae.display import HVAEDisplay
from latentlab.families.hvae.experiment import HVAEData, HVAERun
from latentlab.latents.evaluate import evaluate, has_closed_form, latent_views, probe_latents, skippable_layers
from latentlab.latents.model import VAESettings
from latentlab.nn.latents import FLOOR
from latentlab.train.trainer import Trainer

KINDS = {
    "vae": dict(), "two": dict(layers=2), "skips": dict(layers=3, skips=True), "ladder": dict(kind="ladder", layers=2),
    "learnt": dict(kind="ladder", layers=3, merge="learnt"),
    "one rung": dict(kind="ladder"), "auxiliary": dict(kind="auxiliary", auxiliary=3),
}
every_kind = pytest.mark.parametrize("kind", KINDS)
# Whose posterior can be told to be the prior; a ladder of precisions always adds its message
EQUAL = [kind for kind in KINDS if kind != "ladder"]
BITS = ("dynamic", "static", "deterministic", "grey")
FORM = re.compile(r"^`(\w+)` must .+: got .+\. .*[A-Za-z].*\.$", re.S)  # rule, value, remedy
POINTS = HVAERun().replace({"data.points": 200, "hidden": (8,), "batch": 50, "device": "cpu"})
IMAGES = POINTS.replace({"data.name": "fashion-mnist", "outside": "inverted:fashion-mnist", "data.images": 500})


@pytest.fixture(autouse=True)
def bundle(monkeypatch):
    "The images that come with the package."
    monkeypatch.delenv("LATENTLAB_DATA", raising=False)


@functools.cache
def built(run): return run.build()


def rng(seed=0): return torch.Generator().manual_seed(seed)


def views_of(model, diagnostics, live=None, seed=0): return diagnostics.views(model, Context(live=live or model.live, generator=rng(seed)))


def probe_of(model, diagnostics, live=None, seed=0): return diagnostics.probe(model, Context(live=live or model.live, generator=rng(seed)))


# As if nothing had been measured
def fresh(diagnostics, **changes): return dataclasses.replace(diagnostics, history=ProbeHistory(), **changes)


def refusal(call):
    with pytest.raises(ValueError) as caught: call()
    assert FORM.match(str(caught.value)), str(caught.value)
    return str(caught.value)


def tensors(setup):
    "Everything fixed that a run is shown with, and its weights."
    kept = {name: value for name, value in vars(setup.diagnostics).items() if torch.is_tensor(value)}
    return {"images": setup.batches.images, **kept, **setup.model.state_dict()}


def same(a, b): return {name for name in a if torch.equal(a[name], b[name])}


# Labels and settings --------------------------------------------------------------------------------------------------

@pytest.mark.parametrize(("text", "labels"), [("", ()), (" ", ()), ("[]", ()), ("8", (8,)), ("08", (8,)), ("0,4 8", (0, 4, 8)),
                                              ("[0, 4,\n8]", (0, 4, 8)), ("8, 8", (8, 8)),
                                              ("[[1], [2]]", (1, 2)), ("0", (0,))])
def test_labels_are_read_from_any_list(text, labels):
    assert read_labels(text) == labels and HVAEData(name="mnist", exclude=text).exclude == text


@pytest.mark.parametrize("text", ["\u00b2", "8" * 5000, "shirt", "-1", "1.5", "8;", "0x8", "+8", "1e1", "8 Bag", "None", "(8)"])
def test_what_is_no_class_number_is_refused(text):
    for make in (lambda: read_labels(text), lambda: HVAEData(name="mnist",
                                                             exclude=text),
                                                             lambda: HVAEData(exclude=text), lambda: IMAGES.replace(exclude=text)):
        sentence = refusal(make)
        assert sentence.startswith("`exclude` must be class numbers: got ") and len(sentence) < 300
        assert len(text) > 100 or f"got {text!r}. Write " in sentence


@pytest.mark.parametrize("name", ["moons", "spirals"])
def test_points_have_no_classes_to_leave_out(name):
    pictures = IMAGES.replace(exclude="0")
    for make in (lambda: HVAEData(name=name, exclude="0"), lambda: POINTS.replace({"data.name": name,
                                                                                   "exclude": "0"}),
                                                                                   lambda: pictures.replace({"data.name": name})):
        assert refusal(make).startswith("`exclude` must be empty for points: got '0'.")


@pytest.mark.parametrize("name", ["moons", "spirals", "fashion-mnist", "mnist", "omniglot"])
def test_data_and_likelihood_agree_or_are_refused(name):
    for bits, likelihood in itertools.product(BITS, ("auto", "bernoulli", "gaussian", "logistic_mixture")):
        grey = bits == "grey"
        make = lambda b=bits, kind=likelihood: HVAERun(data=HVAEData(name=name, bits=b), model=VAESettings(likelihood=kind))
        if name in TOYS:
            wrong = "" if likelihood in ("auto", "gaussian") else f"`likelihood` must be auto or gaussian for points: got {likelihood}."
        else:
            wrong = (f"`bits` must be grey for a {likelihood.replace('_', ' ')}" if likelihood in ("gaussian", "logistic_mixture")
                     and not grey else "")
        if wrong: assert refusal(make).startswith(wrong)
        else:
            run, fits = make(), "gaussian" if name in TOYS or grey else "bernoulli"
            assert (run.built == run.model.replace(likelihood=fits if likelihood == "auto" else likelihood)
                    and run.model.likelihood == likelihood)


@pytest.mark.parametrize(("run", "changes", "sentence"), [
    (POINTS, {"net": "conv"}, "`net` must be mlp for data that are no "
                              "images: got conv"), (POINTS, {"noise": 5e-5}, "`noise` must be 0, or at least 0.0001: got 5e-05."),
    (POINTS, {"device": "warp"}, "`device` must be a device's name: got 'warp'."),
    (IMAGES, {"exclude": "10"}, "`exclude` must be class numbers from 0 to 9 for fashion-mnist: got '10'."),
    (IMAGES, {"exclude": "0 1 2 3 4 5 6 7 8 9"}, "`exclude` must leave a class to train on: got '0 1"),
    (IMAGES, {"outside": "cifar10"}, "`outside` must be "
                                     "one of mnist, "), (IMAGES, {"outside": "letters"}, "`outside` must be one of mnist, "),
    (IMAGES, {"outside": ""}, "`outside` must be one of mnist, "),
])
def test_what_cannot_be_built_is_refused_before_a_step(run, changes, sentence):
    assert refusal(lambda: run.replace(changes).build(changes.get("device", "cpu"))).startswith(sentence)
    assert refusal(lambda: Trainer(run.replace(changes))).startswith(sentence)


def test_a_class_without_images_is_refused(monkeypatch):
    monkeypatch.setattr(sources, "load", lambda name, split, limit=None: without(load(name, split, limit=limit), [8]).kept)
    assert refusal(IMAGES.replace(exclude="3, 8").build).startswith("`labels` must leave no empty class outside: got [8], of which "
                                                                    "fashion-mnist without 8 has no images.")
    assert len(IMAGES.replace(exclude="3").build().batches.images)


# Points ---------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("name", TOYS)
@pytest.mark.parametrize("noise", [0.0, 0.05, 0.5])
def test_parts_of_a_plane(name, noise):
    setup = built(POINTS.replace({"data.name": name, "noise": noise}))
    diagnostics, whole = setup.diagnostics, torch.cat([setup.batches.images, setup.held_out, setup.preview])
    assert (setup.batches.images.shape == (200, 2) and setup.held_out.shape == (1000, 2) and setup.preview.shape == (500, 2)
            and setup.batches.prepare is None)
    assert whole.dtype == torch.float32 and whole.isfinite().all() and torch.equal(diagnostics.reference, setup.batches.images)
    if noise: assert len(whole.unique(dim=0)) == len(whole)  # nothing held out was trained on
    assert (torch.equal(setup.batches.images, make_toy(name, 200, noise=noise, seed=0).points)
            and diagnostics.variance == largest_variance(setup.batches.images))
    low, high, held = diagnostics.extent[[0, 2]], diagnostics.extent[[1, 3]], setup.held_out
    assert ((whole > low) & (whole < high)).all()
    spread = held.amax(0) - held.amin(0)
    torch.testing.assert_close(torch.stack([held.amin(0) - low, high - held.amax(0)]), 0.15 * torch.stack([spread, spread]), rtol=1e-4,
                               atol=1e-5)
    assert setup.info["source"] == f"200 points, noise {noise:g}" and setup.info["data"] == name and setup.info["device"] == "cpu"


def test_an_odd_number_of_points_is_made_even(): assert built(POINTS.replace({"data.points": 201})).batches.images.shape == (200, 2)


@pytest.mark.parametrize("name", TOYS)
def test_points_have_the_arm_that_they_lie_on(name):
    setup = built(POINTS.replace({"data.name": name, "noise": 0.01}))
    views, along = views_of(setup.model, setup.diagnostics), torch.linspace(0, 1, 400)
    away = torch.stack([torch.cdist(views["points"], arc(name, arm, along)).amin(1) for arm in (0, 1)])
    assert (torch.equal(views["points"], setup.preview) and torch.equal(away.argmin(0).float(), views["labels"])
            and away.amin(0).max() < 0.06)


@pytest.mark.parametrize("name", TOYS)
def test_the_oracle_is_there_where_there_is_noise(name):
    curve, noisy = (built(POINTS.replace({"data.name": name, "noise": noise})) for noise in (0.0, 0.05))
    for setup, there in ((curve, False), (noisy, True)):
        views, probe = views_of(setup.model, setup.diagnostics), probe_of(setup.model, setup.diagnostics)
        told = [{"oracle", "oracle_se"} <= set(setup.info), "field_oracle" in views, probe.oracle is not None, probe.oracle_se is not None,
                "oracle_gap" in probe.figures()]
        assert told == [there] * 5
    diagnostics = noisy.diagnostics
    across = torch.linspace(float(diagnostics.extent[0]), float(diagnostics.extent[1]), PLANE_SIDE)
    for row, column in ((0, 0), (0, 99), (99, 0), (30, 70), (61, 12)):
        node = torch.stack([across[column], diagnostics.extent[3] - (diagnostics.extent[3] - diagnostics.extent[2]) * row
                            / (PLANE_SIDE - 1)])[None]
        torch.testing.assert_close(views["field_oracle"][row, column], log_density(name, node, 0.05)[0], rtol=1e-3, atol=1e-2)
        torch.testing.assert_close(diagnostics.grid[row * PLANE_SIDE + column], node[0], rtol=1e-4, atol=1e-4)
    values = log_density(name, noisy.held_out, 0.05)
    error = math.hypot(values.std().item() / math.sqrt(len(values)), diagnostics.oracle.se)
    assert abs(values.mean().item() - diagnostics.oracle.mean) < 4 * error
    assert (abs(float(noisy.info["oracle"]) - probe.oracle) < 1e-3 and abs(float(noisy.info["oracle_se"]) - probe.oracle_se) < 1e-3
            and probe.oracle == diagnostics.oracle.mean)


# Images ---------------------------------------------------------------------------------------------------------------

def seen_as(bits, images): return images.float() / 255 if bits == "grey" else (images >= 128).float()


def rows_in(images, others):
    "For each image the rows of a set that it equals."
    known = {}
    for row, other in enumerate(others): known.setdefault(other.numpy().tobytes(), []).append(row)
    return [known.get(one.numpy().tobytes(), []) for one in images]


@pytest.mark.parametrize("bits", BITS)
def test_parts_of_images(bits):
    setup = built(IMAGES.replace(bits=bits))
    diagnostics, levels = setup.diagnostics, (torch.arange(256) / 255 if bits == "grey" else torch.tensor([0.0, 1.0]))
    images = setup.batches.images
    assert (images.shape == (500, 1, 28, 28) and images.dtype == torch.uint8
            and torch.equal(images, load("fashion-mnist", "train", limit=500).images))
    assert (setup.preview.shape == (8, 1, 28, 28) and setup.held_out.shape == (1000, 1, 28, 28)
            and torch.equal(setup.held_out[500:], diagnostics.inside))
    assert len(diagnostics.checks) == 11
    assert (diagnostics.inside.shape == diagnostics.outside.shape == diagnostics.reference.shape == (500, 1, 28, 28)
            and diagnostics.labels.shape == (500,))
    fed = setup.batches.prepare(setup.batches.images, torch.arange(500), 0)
    for x in (setup.preview, setup.held_out, diagnostics.reference, diagnostics.outside, fed):
        assert x.dtype == torch.float32 and torch.isin(x, levels).all() and 0.2 < x.mean() < 0.8
    assert (set(diagnostics.labels.tolist()) == set(range(10))
            and setup.info["columns"] == " | ".join(setup.info["classes"].split(" | ")[:8]))


@pytest.mark.parametrize("bits", ["deterministic", "grey"])  # Others draw bits, which cannot be looked up
def test_images_come_from_where_they_should_with_their_classes(bits):
    setup, train, test = built(IMAGES.replace(bits=bits)), load("fashion-mnist", "train", limit=500), load("fashion-mnist", "test")
    diagnostics, there = setup.diagnostics, seen_as(bits, test.images)
    for found, label in zip(rows_in(diagnostics.inside, there), diagnostics.labels.tolist()): assert label in test.labels[found].tolist()
    assert all(rows_in(setup.held_out, there)) and len(setup.held_out.unique(dim=0)) > 990 and all(rows_in(setup.preview, setup.held_out))
    for found, label in zip(rows_in(setup.preview, there), range(8)): assert label in test.labels[found].tolist()
    assert all(rows_in(diagnostics.reference, seen_as(bits, train.images))) and not all(rows_in(diagnostics.reference, there))
    assert all(rows_in(diagnostics.outside, seen_as(bits, 255 - test.images)))


@pytest.mark.parametrize("labels", ["8", "[0, 4]", "1 2 3 4 5 6 7 8 9"])
def test_a_class_left_out_is_gone_from_training_and_becomes_the_outside(labels):
    # `outside` is not read
    setup, chosen = built(IMAGES.replace({"exclude": labels, "bits": "grey", "outside": "mnist"})), torch.tensor(read_labels(labels))
    diagnostics, train, test = setup.diagnostics, load("fashion-mnist", "train", limit=500), load("fashion-mnist", "test")
    assert (torch.equal(setup.batches.images, train.images[~torch.isin(train.labels, chosen)])
            and not torch.isin(diagnostics.labels, chosen).any())
    gone = torch.isin(test.labels, chosen)
    assert (all(rows_in(diagnostics.outside, seen_as("grey", test.images[gone])))
            and all(rows_in(setup.held_out, seen_as("grey", test.images[~gone]))))
    assert (all(rows_in(diagnostics.reference, seen_as("grey", setup.batches.images)))
            and len(diagnostics.reference) == min(500, len(setup.batches.images)))
    words = ", ".join(map(str, chosen.tolist()))
    assert (setup.info["outside"] == ", ".join(test.classes[k] for k in chosen.tolist())
            and setup.info["data"] == f"fashion-mnist without {words}")
    kept = [k for k in range(10) if k not in chosen][:8]
    assert setup.info["columns"] == " | ".join(test.classes[k] for k in kept) and len(setup.preview) == len(kept)


@pytest.mark.parametrize("name", ["inverted:scenes", "fashion-mnist"])
def test_the_set_outside_has_its_name(name):
    setup = built(IMAGES.replace(outside=name))
    assert setup.info["outside"] == name and setup.diagnostics.outside.shape == (500, 1, 28, 28) and len(setup.batches.images) == 500


def test_a_decoder_of_bits_takes_no_scale():
    "A setting that nothing would read is refused in code; in the panel it goes when bits come, and stays with grey levels."
    sharp = HVAERun().replace(decoder_scale=0.2, scale_kind="fixed")
    assert "`scale_kind` must be left at its default" in refusal(lambda: sharp.replace({"data.name": "mnist"}))
    bits, grey = (HVAEDisplay().match(run, "data.name", "mnist") for run in (sharp, sharp.replace({"bits": "grey"})))
    assert sharp.replace(bits).model.scale_kind == "learnt" and set(bits) == {"data.name", "scale_kind", "decoder_scale"}
    assert sharp.replace({"bits": "grey"}).replace(grey).model.scale_kind == "fixed"
    with pytest.raises(ValueError, match="`decoder_scale` must be left at its default"): Trainer(IMAGES).set(decoder_scale=0.2)


def test_noise_and_a_folder_are_tried_as_foreign(tmp_path):
    "A folder in colour becomes grey, 28 x 28; `inverted:` goes before it too; one that is not there is refused by its path."
    stream = torch.Generator().manual_seed(0)
    for i in range(80):
        picture = torch.randint(256, (20, 24, 3), generator=stream).to(torch.uint8)
        picture[..., 0] = 200
        Image.fromarray(picture.numpy()).save(tmp_path / f"{i}.png")
    plain, turned = (built(IMAGES.replace(outside=f"{before}folder:{tmp_path}", bits="grey")) for before in ("", "inverted:"))
    x, y = plain.diagnostics.outside, turned.diagnostics.outside
    assert x.shape[1:] == (1, 28, 28) and 10 <= len(x) < 80 and torch.allclose(x, 1 - y, atol=1e-6) and turned.info["outside"].startswith("inverted:")
    said = [note["text"] for note in HVAEDisplay().notes(Trainer(IMAGES.replace(outside=f"folder:{tmp_path}", bits="grey")).snapshot())]
    assert any("brought to 28 x 28 px, grey" in text for text in said), "resized in silence"
    noise = built(IMAGES.replace(outside="noise", bits="grey")).diagnostics.outside
    assert noise.shape == (500, 1, 28, 28) and abs(noise.mean() - 0.5) < 4.5 * (1 / 12 / noise.numel()) ** 0.5 + 1 / 512
    assert "nowhere" in refusal(IMAGES.replace(outside=f"folder:{tmp_path / 'nowhere'}").build)


def test_the_control_sees_the_bits_that_were_trained_on():
    "A model that knows its training bits by heart must be seen to: other bits of the same images are as new to it as held-out ones."
    setup = built(IMAGES.replace(bits="static"))
    assert all(rows_in(setup.diagnostics.reference, setup.batches.prepare(setup.batches.images, torch.arange(500), 0)))


def test_foreign_images_are_looked_for_among_those_held_out(monkeypatch):
    "A file for the training split of a foreign set is needed by nobody."
    asked = []
    monkeypatch.setattr(sources, "ood_set", lambda name, split, limit: asked.append(split) or ood_set(name, split, limit))
    IMAGES.build()
    assert asked == ["test"]


@pytest.mark.parametrize("stream", ["test", "train", "outside"])
def test_held_out_bits_are_drawn_once_and_fair(stream):
    some, draw = load("fashion-mnist", "test", limit=300), lambda bits, stream: fixed_bits(some, bits, torch.device("cpu"), stream)
    bits = draw("dynamic", stream)
    assert torch.equal(bits, draw("dynamic", stream)) and torch.equal(bits, draw("static", stream))
    assert not any(torch.equal(bits, draw("dynamic", other)) for other in {"test", "train", "outside"} - {stream})
    p = some.images.float() / 255
    assert (bits - p).sum().abs() < 4.5 * (p * (1 - p)).sum().sqrt()
    for kind in ("deterministic", "grey"): assert torch.equal(draw(kind, stream), seen_as(kind, some.images))


@pytest.mark.parametrize("bits", BITS)
def test_only_dynamic_bits_change_from_epoch_to_epoch_and_only_drawn_ones_with_the_seed(bits):
    run = IMAGES.replace(bits=bits)
    setup, other, index = built(run), run.replace(seed=1).build(), torch.arange(500)
    first, again, later, seeded = (p.batches.prepare(p.batches.images, index, epoch)
                                   for p, epoch in ((setup, 0), (setup, 0), (setup, 1), (other, 0)))
    assert (torch.equal(first, again) and torch.equal(first, later) == (bits != "dynamic")
            and torch.equal(first, seeded) == (bits in ("deterministic", "grey")))
    batches = Batches(setup.batches.images, 500, 0, prepare=setup.batches.prepare)
    one, two = (batches.at(step).x[batches.rows(step).argsort()] for step in (0, 1))  # an epoch each
    assert torch.equal(one, first) and torch.equal(two, later)


@pytest.mark.parametrize("run", [POINTS, IMAGES, IMAGES.replace(exclude="8")], ids=["points", "images", "left out"])
def test_settings_decide_every_bit_and_the_seed_of_training_decides_no_data(run):
    found = []
    for seed, wanted in enumerate((run, from_json(HVAERun, to_json(run)), run.replace(seed=1))):
        torch.manual_seed(seed)
        found.append(tensors(wanted.build()))
    one, again, other = found
    weights = {name for name in one if name.endswith("weight")}
    assert same(one, again) == set(one) == set(again) and len(weights) == 4 and not same(one, other) & weights
    assert same(one, other) >= {name for name in one if "coder" not in name} - {"reference"} >= {"images", "preview", "held_out", "labels"}
    assert ("reference" in same(one, other)) == (run.data.name in TOYS)  # training images come with the bits of training


@pytest.mark.parametrize("changes", [dict(bits="grey"), dict(bits="grey", likelihood="bernoulli"),
                                     dict(bits="grey", likelihood="logistic_mixture", components=2),
                                     dict(bits="deterministic"), dict(likelihood="bernoulli"), dict(net="conv"),
                                     dict(bits="static", layers=3, skips=True)], ids=str)
def test_images_of_every_likelihood_are_drawn_and_measured(changes):
    run = IMAGES.replace(changes)
    setup = built(IMAGES.replace(bits=run.data.bits))
    model = make_model(run.built, (1, 28, 28), generator=rng())
    views, probe = views_of(model, setup.diagnostics), probe_of(model, setup.diagnostics)
    assert all(view.isfinite().all() for view in views.values()) and all(math.isfinite(value) for value in probe.figures().values())
    discrete = run.built.likelihood != "gaussian"
    assert ((views["recon0"] >= 0) & (views["recon0"] <= 1)).all() == discrete and (probe.scale is None) == discrete == probe.discrete


# Pictures and probes of every kind ------------------------------------------------------------------------------------

def sound(views): return all(view.dtype == torch.float32 and view.isfinite().all() and not view.requires_grad for view in views.values())


def shapes(views): return {name: tuple(view.shape) for name, view in views.items()}


def latents(kind, n, prior):
    "Shapes of what is drawn of the latents of a kind."
    layers, both = KINDS[kind].get("layers", 1), 2 if kind == "auxiliary" else KINDS[kind].get("layers", 1)
    return {f"z{k + 1}": (n, 2) for k in range(both)} | {f"prior{k + 1}": (prior, 2)
                                                         for k in range(layers)} | {name: (both,) for name in ("kl", "active", "width")}


@every_kind
def test_views_and_probe_of_points(kind):
    setup = POINTS.replace(KINDS[kind]).build()
    model, layers = setup.model, KINDS[kind].get("layers", 1)
    views, expected = views_of(model, setup.diagnostics), {"field": (PLANE_SIDE, PLANE_SIDE), "field_oracle": (PLANE_SIDE, PLANE_SIDE),
                                                           "extent": (4,), "points": (500, 2)}
    expected |= {"labels": (500,), "samples": (500, 2), "scale": (500,)} | latents(kind, 500, 500)
    assert shapes(views) == expected and sound(views)
    assert (views["scale"] >= model.live.values["scale_floor"]).all() and set(views["labels"].tolist()) == {0.0, 1.0}
    assert (((views["active"] >= 0) & (views["active"] <= views["width"])).all()
            and views["width"].tolist() == ([2.0, 3.0] if kind == "auxiliary" else [2.0] * layers))
    probe = probe_of(model, setup.diagnostics)
    assert (probe.samples == 10 and probe.names == model.names and len(probe.elbo) == len(probe.x) == len(probe.generated) == 1000
            and len(probe.train_elbo) == 200)
    assert (len(probe.kl) == len(probe.loc) == len(probe.z) == len(model.names) and len(probe.prior) == layers
            and len(probe.analytic) == (layers if has_closed_form(model) else 0))
    assert (all(math.isfinite(value) for value in probe.figures().values()) and (probe.iw >= probe.elbo - 1e-4).all() and probe.steps == 0
            and probe.live == model.live.values)
    assert shapes(views_of(model, setup.diagnostics)) == expected | {f"pockets{layers}": (PLANE_SIDE, PLANE_SIDE)}
    checks = setup.diagnostics.checks
    assert len({check(probe).name for check in checks}) == len(checks) == 11


@every_kind
def test_views_and_probe_of_images(kind):
    setup, layers = built(IMAGES), KINDS[kind].get("layers", 1)
    diagnostics = setup.diagnostics
    model = make_model(IMAGES.replace(KINDS[kind]).built, (1, 28, 28), generator=rng())
    diagnostics.history.regions.clear()
    expected = {name: (8, 1, 28, 28) for name in ("generated",
                                                  *(f"recon{k}" for k in range(layers)))} | {"labels": (500,)} | latents(kind, 500, 200)
    for side in ("in", "out"): expected |= {f"{side}_elbo": (500,)} | {f"{side}_llr{k}": (500,) for k in range(1, layers)}
    maps = ("error", "cost", *(("above", "llr") if len(model.sizes) > 1 else ()))
    expected |= {"shown": (8, 1, 28, 28), "plants": (4, 1, 28, 28)} | {name: (8, 28, 28) for name in ("strange", "changed", "strokes")}
    expected |= {f"usual_{name}": (3,) for name in maps} | {
        f"map_{name}": (28, 28) for name in (*maps, *(("slope",) if len(maps) > 2 else ()), "hidden")}
    expected |= {f"edit_{name}": () for name in ("image", "k", "share", "plant", "threshold", "map")}
    channels = model.shapes[min(2, len(model.sizes))][0]
    expected |= {"film_each": (min(channels, 8), 1, 28, 28), "film_moved": (7, 1, 28, 28), "film_more": (4, 7, 1, 28, 28)}
    expected |= {"latent_order": (min(channels, 8),)} | {f"latent_{name}": () for name in ("layer", "latent", "place", "chosen", "map", "places")}
    views = views_of(model, setup.diagnostics)
    assert shapes(views) == expected and sound(views) and skippable_layers(model) == layers
    for name in ("generated", *(f"recon{k}" for k in range(layers))): assert ((views[name] > 0) & (views[name] < 1)).all()
    assert torch.equal(views["labels"], diagnostics.labels.float()) and ((views["active"] >= 0) & (views["active"] <= views["width"])).all()
    probe = probe_of(model, diagnostics)
    assert probe.samples == 4 and len(probe.elbo) == len(probe.train_elbo) == len(probe.generated) == 500
    assert probe.scale is None and probe.scale_min is None and probe.scale_kind == ""
    assert (torch.equal(probe.x, setup.held_out[:500].flatten(1)) and set(probe.generated.unique().tolist()) == {0.0, 1.0}
            and all(math.isfinite(v) for v in probe.figures().values()))
    assert set(views_of(model, setup.diagnostics)) == set(expected) | {f"pockets{layers}"}


@every_kind
def test_a_seed_decides_a_picture(kind):
    for run, setup in ((POINTS, built(POINTS)), (IMAGES, built(IMAGES))):
        model = make_model(run.replace(KINDS[kind]).built, setup.preview.shape[1:], generator=rng())
        one, again, other = (views_of(model, setup.diagnostics, seed=seed) for seed in (0, 0, 1))
        drawn = {name for name in one if name.startswith(("field", "samples", "generated", "z", "prior", "in_", "out_",
                                                          "kl"))} - {"field_oracle"}
        assert same(one, again) == set(one) and not same(one, other) & drawn


# Known answers --------------------------------------------------------------------------------------------------------

def say(block, *numbers):
    "A network that says the same of every input."
    last = block.rest[-1]
    last.weight.data.zero_(), last.bias.data.copy_(torch.tensor(numbers))


def raw_scale(scale): return math.log(math.expm1(scale - FLOOR))


def blind(kind, shape, outputs, **changes):
    "A model whose posterior is the prior in every layer, the standard normal, and whose decoder says the same of every latent."
    model = make_model(VAESettings(**{"hidden": (8,)} | KINDS[kind] | changes), shape, generator=rng())
    normal = lambda size: (*[0.0] * size, *[raw_scale(1.0)] * size)
    for name in ("encoder", "encoder_z"):
        if hasattr(model, name): say(getattr(model, name), *normal(2))
    for name in ("encoder_a", "decoder_a"):
        if hasattr(model, name): say(getattr(model, name), *normal(3))
    for block in (*getattr(model, "encoders", ()), *getattr(model, "merges", ()), *getattr(model, "decoders", ())[1:]):
        say(block, *normal(2))
    for message in getattr(model, "messages", ()): message.weight.data.zero_(), message.bias.data.copy_(torch.tensor(normal(2)))
    say(model.decoder if hasattr(model, "decoder") else model.decoders[0], *outputs)
    return model


@pytest.mark.parametrize("kind", EQUAL)
def test_a_blind_model_on_a_plane_is_one_gaussian(kind):
    "Its bound is the density itself whatever is drawn, its layers hold nothing, its samples and scales are what the decoder says."
    setup, centre, scales = built(POINTS), torch.tensor([0.8, -0.3]), torch.tensor([0.3, 0.6])
    model, diagnostics = blind(kind, (2,), (*centre.tolist(),
                                            *(math.log(math.expm1(s - 1e-3)) for s in scales.tolist()))), setup.diagnostics
    views, probe = views_of(model, setup.diagnostics), probe_of(model, setup.diagnostics)
    density = torch.distributions.Normal(centre, scales)
    x0, x1, y0, y1 = diagnostics.extent.tolist()
    nodes = torch.stack(torch.meshgrid(torch.linspace(x0, x1, PLANE_SIDE), torch.linspace(y1, y0, PLANE_SIDE), indexing="xy"), -1)
    torch.testing.assert_close(views["field"], density.log_prob(nodes).sum(-1), rtol=1e-4, atol=1e-3)
    assert views["kl"].abs().max() < 1e-5 and not views["active"].any() and views["scale"].sub(scales.mean()).abs().max() < 1e-4
    off = (views["samples"].mean(0) - centre) / scales * math.sqrt(500)
    assert off.abs().max() < 4 and ((views["samples"].std(0) / scales - 1).abs() < 4 / math.sqrt(1000)).all()
    for name in ("z1", "prior1"):
        assert (views[name].mean(0).abs() < 4 / math.sqrt(500)).all() and ((views[name].std(0) - 1).abs() < 4 / math.sqrt(1000)).all()
    torch.testing.assert_close(probe.elbo, density.log_prob(setup.held_out).sum(-1), rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(probe.train_elbo, density.log_prob(setup.batches.images).sum(-1), rtol=1e-4, atol=1e-3)
    assert ((probe.iw - probe.elbo).abs().max() < 1e-4 and (probe.effective - 10).abs().max() < 1e-2
            and (probe.nll + probe.elbo).abs().max() < 1e-4)
    assert (probe.scale_min == pytest.approx(0.3, rel=1e-3) and (probe.scale - 0.45).abs().max() < 1e-4
            and probe.floor == pytest.approx(1e-3) and probe.scale_kind == "learnt")
    assert probe.largest_variance == largest_variance(setup.batches.images) and all(closed.abs().max() < 1e-5 for closed in probe.analytic)
    assert not diagnostics.history.regions[f"pockets{len(probe.prior)}"].any()


@pytest.mark.parametrize("kind", EQUAL)
def test_a_blind_model_of_images_is_one_picture(kind):
    "Its reconstructions and its own images are the template, its scores the template's, its ratios nothing."
    setup, logits = built(IMAGES), torch.randn(784, generator=rng(5))
    model, diagnostics = blind(kind, (1, 28, 28), logits.tolist(), likelihood="bernoulli"), setup.diagnostics
    views = views_of(model, setup.diagnostics)
    template = logits.sigmoid().view(1, 1, 28, 28).expand(8, -1, -1, -1)
    for name in ("generated", *(f"recon{k}" for k in range(skippable_layers(model)))): torch.testing.assert_close(views[name], template)
    for side, images in (("in", diagnostics.inside), ("out", diagnostics.outside)):
        nll = torch.nn.functional.binary_cross_entropy_with_logits(logits.expand(500, -1), images.flatten(1), reduction="none").sum(1)
        torch.testing.assert_close(views[f"{side}_elbo"], nll, rtol=1e-4, atol=1e-2)
        for k in range(1, skippable_layers(model)): assert views[f"{side}_llr{k}"].abs().max() < 1e-2
    assert views["kl"].abs().max() < 1e-4 and not views["active"].any()


def chance(n, m): return math.sqrt((n + m + 1) / (12 * n * m))  # Standard error of the area where two sets are alike


def test_scores_tell_apart_what_differs_and_nothing_else():
    "A model of the mean picture: higher scores for inverted pictures, none the other way round, and half where both sets are one."
    setup = built(IMAGES)
    mean = setup.batches.images.float().div(255).mean(0).flatten().clamp(0.01, 0.99)
    model, diagnostics = blind("two", (1, 28, 28), mean.logit().tolist(), likelihood="bernoulli"), setup.diagnostics
    area = lambda diagnostics: auroc(*(views_of(model, diagnostics)[name] for name in ("in_elbo", "out_elbo")))
    assert area(diagnostics) > 0.95
    assert area(built(IMAGES.replace(outside="fashion-mnist")).diagnostics) == pytest.approx(0.5, abs=4 * chance(500, 500))
    assert area(fresh(diagnostics, outside=diagnostics.inside)) == 0.5


def test_scores_are_the_bounds_and_their_differences():
    setup, images = built(IMAGES), {"in": built(IMAGES).diagnostics.inside, "out": built(IMAGES).diagnostics.outside}
    model = make_model(IMAGES.replace({"layers": 3, "skips": True}).built, (1, 28, 28), generator=rng())
    for block in model.decoders[1:]: block.rest[-1].bias.data += 1.0  # priors that differ from posteriors: ratios far from 0
    views = views_of(model, setup.diagnostics)
    for side, x in images.items():
        bounds = [evaluate(model, x, samples=20, generator=rng(7), above=k).elbo for k in range(3)]
        for name, expected in ((f"{side}_elbo", -bounds[0]), (f"{side}_llr1", bounds[0] - bounds[1]),
                               (f"{side}_llr2", bounds[0] - bounds[2])):
            off = views[name] - expected
            assert abs(off.mean() / (off.std() / math.sqrt(500))) < 4.5, name
    assert (bounds[0] - bounds[1]).mean().abs() > 1 and (bounds[1] - bounds[2]).mean().abs() > 1


def test_reconstructions_leave_out_one_layer_after_another():
    setup, model = built(IMAGES), make_model(IMAGES.replace({"layers": 3, "latents": (4, 3, 2)}).built, (1, 28, 28), generator=rng())
    views, other = views_of(model, setup.diagnostics), views_of(model, setup.diagnostics, seed=1)
    for k in range(3):
        raw = model.trace(setup.preview, generator=rng(9), above=k, temperature=0.0).raw
        torch.testing.assert_close(views[f"recon{k}"], raw[0, :, 0].sigmoid().view(8, 1, 28, 28)), torch.testing.assert_close(
            views[f"recon{k}"], other[f"recon{k}"])
    assert all((views[f"recon{a}"] - views[f"recon{b}"]).abs().max() > 1e-4 for a, b in ((0, 1), (1, 2), (0, 2)))


@pytest.mark.parametrize("sizes", [(1,), (5,), (5, 2, 1)], ids=str)
def test_two_units_of_each_layer_are_drawn(sizes):
    model, x = make_model(VAESettings(latents=sizes, hidden=(8,)), generator=rng()), torch.randn(7, 2, generator=rng(1))
    trace, dreamt = model.trace(x, generator=rng()), model.sample_prior(4, generator=rng())[0]
    found = latent_views(trace, dreamt)
    assert found["width"].tolist() == list(map(float, model.sizes))
    for i, size in enumerate(model.sizes):
        for name, z in ((f"z{i + 1}", trace.z[i][0]), (f"prior{i + 1}", dreamt[i][0])):
            assert (torch.equal(found[name][:, :size], z[:, :2]) and found[name].shape == (len(z), 2)
                    and (size > 1 or not found[name][:, 1].any()))


@pytest.mark.parametrize("kind", ["vae", "ladder", "learnt", "one rung"])
def test_a_closed_form_is_measured_on_the_draws_of_the_bound(kind):
    "The top layer's divergence depends on no draw; those below are the closed form given the same latents above."
    model, x = make_model(VAESettings(**{"hidden": (8,)} | KINDS[kind]), generator=rng()), torch.randn(20, 2, generator=rng(1))
    probe, again = (probe_latents(model, x, x, model.live, rng(3), samples) for samples in (6, 6))
    trace = model.trace(x, samples=6, generator=rng(3), analytic=True)
    for closed, kl in zip(probe.analytic, trace.kl, strict=True): torch.testing.assert_close(closed, kl.mean(0))
    torch.testing.assert_close(probe.elbo, model.trace(x, samples=6, generator=rng(3)).log_w.mean(0))
    assert (torch.equal(probe.generated, again.generated) and torch.equal(probe.train_elbo, again.train_elbo)
            and not torch.equal(probe.train_elbo, probe.elbo))
    q = model.trace(x, generator=rng(4)).q[-1]
    loc, scale = q.loc.reshape(-1, 20, 2)[0], q.scale.reshape(-1, 20, 2)[0]
    torch.testing.assert_close(probe.analytic[-1], (0.5 * (loc.square() + scale.square() - 1) - scale.log()).sum(-1), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("live", "scale", "floor"), [
    (dict(scale_kind="fixed", decoder_scale=0.25), 0.25, None), (dict(scale_kind="annealed", decoder_scale=0.25, anneal_steps=4), 0.5,
                                                                 None), (dict(scale_floor=0.4), None, 0.4),
], ids=["fixed", "annealed", "floor"])
def test_settings_in_force_are_shown(live, scale, floor):
    setup = built(POINTS)
    model = make_model(POINTS.built, (2,), generator=rng())
    model.steps.fill_(2)
    now = Live(POINTS.model.replace(live))
    views, probe = views_of(model, setup.diagnostics, now), probe_of(model, setup.diagnostics, now)
    assert (probe.live == now.values and probe.floor == (None if floor is None else pytest.approx(floor)) and probe.steps == 2
            and probe.scale_kind == live.get("scale_kind", "learnt"))
    if scale:
        assert (views["scale"].sub(scale).abs().max() < 1e-6 and probe.scale.sub(scale).abs().max() < 1e-6
                and probe.scale_min == pytest.approx(scale))
    else: assert views["scale"].min() > floor and probe.scale_min > floor
    usual = views_of(model, setup.diagnostics)
    assert not {"field", "scale", "samples"} & same(views, usual) and {"z1", "points", "extent", "field_oracle"} <= same(views, usual)


# What is remembered ---------------------------------------------------------------------------------------------------

def test_a_probe_knows_the_bounds_before_it_and_two_hundred_of_them():
    history, model = ProbeHistory(), make_model(VAESettings(latents=(3,), hidden=(8,)), generator=rng())
    x = torch.randn(50, 2, generator=rng(1))
    bare = probe_latents(model, x, x, model.live, rng(), 2)
    first, second = history.add(bare), history.add(bare, oracle=1.5)
    value = bare.elbo.mean().item()
    assert first.history == () and second.history == (value,) and second.oracle == 1.5 and first.oracle is None and bare.history == ()
    for _ in range(205): last = history.add(bare)
    assert last.history == (value,) * 200 and not history.regions


@pytest.mark.parametrize(("changes", "rows", "name"), [
    (dict(), 100, "pockets1"), (dict(), 99, None), (dict(latents=(2, 3)), 200, None), (dict(latents=(3, 2)), 200, "pockets2"),
    (dict(kind="auxiliary", latents=(3,), auxiliary=2), 200, None), (dict(latents=(1,)), 200, None),
], ids=str)
def test_pockets_of_a_top_layer_with_two_units(changes, rows, name):
    history, model, x = ProbeHistory(), make_model(VAESettings(**{"hidden": (8,)} | changes),
                                                   generator=rng()), torch.randn(rows, 2, generator=rng(1))
    history.add(probe_latents(model, x, x, model.live, rng(), 1))
    assert set(history.regions) == ({name} if name else set())
    if name: assert set(history.regions[name].unique().tolist()) <= {0.0, 1.0} and history.regions[name].shape == (PLANE_SIDE, PLANE_SIDE)


def test_a_posterior_far_from_the_prior_leaves_one_pocket():
    diagnostics, model = fresh(built(POINTS).diagnostics), make_model(VAESettings(hidden=(8,)), generator=rng())
    say(model.encoder, 5.0, 5.0, raw_scale(0.1), raw_scale(0.1))
    probe_of(model, diagnostics)
    # the disc of 95 % of a normal, 2.45 deviations, in a square of 3.2: 0.46
    assert 0.3 < diagnostics.history.regions["pockets1"].mean() < 0.7


def test_numbers_that_are_none_stop_nothing_and_have_no_pockets():
    diagnostics, model = fresh(built(POINTS).diagnostics), make_model(VAESettings(hidden=(8,)), generator=rng())
    model.encoder.rest[-1].bias.data.fill_(math.nan)
    probe = probe_of(model, diagnostics)
    assert probe.elbo.isnan().all() and math.isnan(diagnostics.history.elbos[-1]) and not diagnostics.history.regions
    assert {"bound", "jumps"} <= {verdict.name for verdict in diagnostics.measure(model,
                                                                                  Context(live=model.live, generator=rng())).verdicts
                                                                                  if verdict.level == "bad"}


def test_diagnostics_are_no_part_of_a_checkpoint():
    model = built(IMAGES).model
    assert set(model.state_dict()) == {"steps", *dict(model.named_parameters())} and sum(p.numel() for p in model.parameters()) < 30_000


# Training -------------------------------------------------------------------------------------------------------------

def test_training_moves_the_heat_map_towards_the_truth():
    run = Trainer(POINTS.replace({"data.points": 1000, "hidden": (32,), "learning_rate": 1e-2, "batch": 250, "check_every": 1000,
                                  "steps": 150}))
    try:
        before = run.snapshot().views
        after = run.fit(150, progress=False).snapshot().views
    finally: run.stop()
    truth = torch.tensor(after["field_oracle"])
    near, cell = truth > -2, float((after["extent"][1] - after["extent"][0])
                                   * (after["extent"][3] - after["extent"][2])) / (PLANE_SIDE - 1) ** 2
    fields = [torch.tensor(views["field"]) for views in (before, after)]
    # KL from the truth to the model, and the gap of the bound
    gaps = [(truth.exp() * (truth - field))[near].sum().item() * cell for field in fields]
    assert gaps[1] < gaps[0] - 0.5 and gaps[1] > -0.05 and fields[1].exp().sum() * cell < 1.1
    assert ((before["field_oracle"] == after["field_oracle"]).all() and (before["points"] == after["points"]).all()
            and (before["z1"] != after["z1"]).all())


def test_a_run_of_images_trains_on_what_its_seed_and_epoch_draw():
    run, fed = Trainer(IMAGES.replace({"batch": 250, "steps": 4, "check_every": 1000})), []
    losses = run.model.losses
    run.model.losses = lambda batch, context: fed.append(batch.x.clone()) or losses(batch, context)
    try: run.fit(4, progress=False)
    finally: run.stop()
    epochs, index = [torch.cat(fed[:2]), torch.cat(fed[2:])], torch.arange(500)
    drawn = [run.setup.batches.prepare(run.setup.batches.images, index, epoch) for epoch in (0, 1)]
    for epoch, bits in zip(epochs, drawn):
        assert sorted(x.sum().item() for x in epoch) == sorted(x.sum().item() for x in bits) and torch.equal(epoch.sum(0), bits.sum(0))
    assert not torch.equal(epochs[0].sum(0), epochs[1].sum(0))
