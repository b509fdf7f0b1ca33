"""Explanation masks: every combination of settings trains, the encoder stays frozen, an explanation is a function of its
image, any encoder can be explained.
"""
import copy
import functools
import itertools
from dataclasses import replace

import latentlab as ll
import pytest
import torch
import torch.nn.functional as F
from latentlab.contract import check_family
from latentlab.core.batch import Batch, Context
from latentlab.core.settings import Live
from latentlab.core.terms import weighted_sum
from latentlab.data.images import load
from latentlab.data.scenes import SceneSettings, draw_scenes
from latentlab.data.sources import with_images
from latentlab.families.nem.diagnostics import MaskDiagnostics, compare_masks
from latentlab.families.nem.display import NEMDisplay
from latentlab.families.nem.experiment import NEMRun
from latentlab.families.nem.model import NEM, NEMSettings, draw_partners, encoder_for_target
from latentlab.nn.encoders import FrozenEncoder, SmallEncoder, wrap_encoder
from latentlab.nn.planted import PlantedEncoder
from latentlab.train.trainer import Trainer
from test_open_encoder import ModelOutput, Pixels, net
from test_open_encoder import Tokens as TimmTokens
from torch import nn

PENALTIES, FILLS, GATES = ("kl", "area"), ("zero", "mean", "blur", "noise", "mixed"), ("soft", "straight_through")
NEIGHBOURHOODS = ("off", "train", "always")
DISTANCES = ("half_cosine", "cosine", "relative_l2", "normalised_l2", "whitened_cosine", "mahalanobis")


def seeded(seed=0): return torch.Generator().manual_seed(seed)


def pictures(n=6, channels=1, side=28, seed=0):
    "Smooth random pictures with a texture: none is constant."
    coarse = torch.rand(n, channels, 5, 5, generator=seeded(seed))
    return (0.8 * F.interpolate(coarse, size=(side, side), mode="bilinear") + 0.2
            * torch.rand(n, channels, side, side, generator=seeded(seed + 1))).clamp(0, 1)


@functools.cache
def garments(): return load("fashion-mnist", limit=88)


def small(channels=1, strides=(1, 2, 2), widths=(4, 8, 16), seed=0):
    module = SmallEncoder(channels, strides, widths, generator=seeded(seed))
    return FrozenEncoder(module, module.names, name="small")


def make(encoder=None, images=None, **settings):
    images = pictures(40) if images is None else images
    settings = {"mask_bias": 0.0, "width": 4, "layers": 2} | settings
    return NEM(NEMSettings(**settings), encoder or small(channels=images.shape[1]), images, generator=seeded())


def terms_of(nem, x, live, seed=0): return nem.losses(Batch(x=x), Context(live=live, generator=seeded(seed)))


def weights_of(nem, live): return nem.weights(Context(live=live, generator=seeded()))


def views_of(nem, x, live): return MaskDiagnostics(preview=x, held_out=x).views(nem, Context(live=live, generator=seeded()))


def step(nem, x, live, seed=0):
    "Terms and the gradient of each term by itself for every weight, {term: {weight: gradient}}."
    terms = terms_of(nem, x, live, seed)
    named = dict(nem.unet.named_parameters())
    return terms, {n: dict(zip(named, torch.autograd.grad(t.sum(), list(named.values()), retain_graph=True, allow_unused=True)))
                   for n, t in terms.items()}


# Every combination --------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("gate", GATES)
@pytest.mark.parametrize("neighbourhood", NEIGHBOURHOODS)
def test_every_combination_is_finite_and_moves_every_weight(neighbourhood, gate, unchecked):
    images = pictures(40, side=14)
    nem, x = make(images=images), images[:2]
    for penalty, fill, distance in itertools.product(PENALTIES, FILLS, DISTANCES):
        live = Live(nem.settings.replace(penalty=penalty, fill=fill, gate=gate, neighbourhood=neighbourhood, distance=distance))
        terms, gradients = step(nem, x, live)
        case = (penalty, fill, distance)
        assert set(terms) == {"distance", "mask_kl" if penalty == "kl"
                              else "area"} and set(terms.all()) == {"distance", "mask_kl", "area"}, case
        assert all(t.shape == (2,) and t.isfinite().all() for t in terms.all().values()), case
        assert weighted_sum(terms, weights_of(nem, live)).isfinite().all(), case
        for term, of in gradients.items():  # of each term by itself: a penalty must not hide a distance without a slope
            assert all(g is not None and g.isfinite().all() and g.any() for g in of.values()), (*case, term)


@pytest.mark.parametrize("extra, term", [("complement_scale", "complement"), ("variation_scale", "total_variation"),
                                         ("border_scale", "border"), ("binarity_scale", "binarity")])
def test_an_extra_is_there_when_it_has_a_weight(extra, term):
    nem, x = make(), pictures(4)
    assert term not in terms_of(nem, x, Live(nem.settings)).all()
    live = Live(nem.settings.replace({extra: 0.5}))
    terms, gradients = step(nem, x, live)
    assert weights_of(nem, live)[term] == 0.5 and all(g.isfinite().all() and g.any() for g in gradients[term].values())


@pytest.mark.parametrize("distance", DISTANCES)
def test_known_ends_of_the_distance(distance):
    x, live = pictures(4), Live(NEMSettings(distance=distance, jitter=2, fill="mean"))
    kept = make(mask_bias=8.0)
    with torch.no_grad(): kept.unet.out.bias.fill_(40.0)  # keep is 1 in float32
    terms = terms_of(kept, x, live)
    assert terms["distance"].abs().max() < 1e-3  # the unmasked image: 0 up to the square root of float32's rounding
    assert torch.equal(terms.all()["area"], torch.ones(4)) and abs(terms.all()["mask_kl"] - 9.2103404).max() < 1e-3  # -ln 1e-4
    hidden = make(mask_bias=-8.0)
    with torch.no_grad(): hidden.unet.out.bias.fill_(-40.0)
    terms = terms_of(hidden, x, live)
    fill = hidden.fill("mean", x, generator=seeded())
    expected = hidden.distances[distance](hidden.encoder.embed(x), hidden.encoder.embed(fill))
    assert torch.allclose(terms["distance"], expected, atol=1e-6) and terms.all()["area"].max() < 1e-12


def test_complement_is_the_distance_of_what_is_hidden_with_its_sign():
    nem, x = make(), pictures(4)
    terms = terms_of(nem, x, Live(nem.settings.replace(complement_scale=1.0, jitter=0, fill="zero", distance="relative_l2")))
    assert terms["complement"].max() < -0.1 and terms["distance"].min() > 0.1  # far above the tolerance
    keep, code = nem.explain(x, live=Live(nem.settings.replace(jitter=0))).keep, nem.encoder.embed(x)
    assert torch.allclose(terms["complement"], -nem.distances["relative_l2"](code, nem.encoder.embed(x * (1 - keep[:, None]))), atol=1e-5)
    assert torch.allclose(terms["distance"], nem.distances["relative_l2"](code, nem.encoder.embed(x * keep[:, None])), atol=1e-5)


def test_terms_are_per_example():
    nem, x, live = make(), pictures(5), Live(NEMSettings(jitter=0, fill="mean", distance="relative_l2"))
    whole = terms_of(nem, x, live).all()
    for i in range(5):
        for name, value in terms_of(nem, x[i:i + 1], live).all().items():
            # another batch may take another kernel, which adds in another order
            assert torch.allclose(value, whole[name][i:i + 1], atol=1e-4), name


def test_jitter_and_averaging_belong_to_training():
    nem, x = make(), pictures(4)
    base = NEMSettings(jitter=0, gate="soft", fill="mean")
    still = terms_of(nem, x, Live(base))
    for change in ({"jitter": 2}, {"neighbourhood": "train"}):
        live = Live(base.replace(change))
        moved = terms_of(nem, x, live)
        assert not torch.equal(moved["distance"], still["distance"])
        assert torch.equal(nem.explain(x, live=live).keep, nem.explain(x, live=Live(base)).keep)
        for view, plain in zip(views_of(nem, x, live).values(), views_of(nem, x, Live(base)).values()):
            assert torch.equal(view, plain)
    always = nem.explain(x, live=Live(base.replace(neighbourhood="always")))
    assert (not torch.equal(always.keep, nem.explain(x, live=Live(base)).keep)
            and torch.equal(always.logits, nem.explain(x, live=Live(base)).logits))


# The encoder --------------------------------------------------------------------------------------------------------

class WithDropout(nn.Module):
    "Everything that training changes: weights, running statistics, dropout."
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Sequential(nn.Conv2d(1, 6, 3, 2, 1), nn.BatchNorm2d(6), nn.ReLU())
        self.drop, self.second = nn.Dropout2d(0.5), nn.Sequential(nn.Conv2d(6, 12, 3, 2, 1), nn.BatchNorm2d(12), nn.ReLU())
        self.head = nn.Linear(12, 10)

    def forward(self, x): return self.head(self.drop(self.second(self.drop(self.first(x)))).mean((-2, -1)))


def snapshot(module):
    return {k: v.clone() for k, v in module.state_dict().items()}, [p.requires_grad for p in module.parameters()]


@pytest.mark.parametrize("disturb", [
    lambda nem, encoder, module: None, lambda nem, encoder, module: nem.train(), lambda nem, encoder, module: encoder.train(),
    lambda nem, encoder, module: module.train(), lambda nem, encoder, module: nn.ModuleList([nem, encoder]).train(),
], ids=["nobody", "masker", "encoder", "module", "both"])
@pytest.mark.parametrize("embed", [None, lambda output: output], ids=["pooled", "head"])
def test_the_encoder_is_frozen_whoever_calls_train(disturb, embed):
    module = WithDropout()
    encoder = FrozenEncoder(module, ["first", "second"], embed)
    x = pictures(8)
    expected, before = encoder.embed(x), snapshot(module)
    run = NEMRun().replace(batch=8, layers=2, width=4, device="cpu", check_every=2)
    trainer = Trainer(with_images(run, garments()), build=lambda run, device: run.build(device, encoder=encoder))
    disturb(trainer.model, encoder, module)
    weights = copy.deepcopy(trainer.model.unet.state_dict())
    trainer.fit(2, progress=False).snapshot()
    trainer.model.explain(x)
    after = snapshot(module)
    assert all(torch.equal(before[0][k], after[0][k]) for k in before[0]) and after[1] == before[1] == [False] * len(before[1])
    assert all(p.grad is None for p in module.parameters()) and not any(m.training for m in module.modules())
    assert torch.equal(encoder.embed(x), expected)  # and so no dropout is in it
    assert not any(torch.equal(weights[k], v) for k, v in trainer.model.unet.state_dict().items())  # while the masker did learn


def test_the_encoder_is_not_among_the_maskers_weights():
    nem = make()
    assert {id(p) for group in nem.groups() for p in group.parameters} == {id(p)
                                                                           for p in nem.unet.parameters()} == {id(
                                                                               p) for p in nem.parameters()}
    assert all(name.startswith("unet.") for name in nem.state_dict())


# Explanations -------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("settings", [{}, {"neighbourhood": "always"}, {"gate": "straight_through"}, {"smoothing": 2.0, "grid": "1/2"},
                                      {"fill": "mixed", "jitter": 4}])
def test_an_explanation_is_a_function_of_the_image(settings):
    nem, x = make(**settings), pictures(5, seed=3)
    torch.manual_seed(1)
    first = nem.explain(x)
    torch.manual_seed(2)
    terms_of(nem, x, Live(nem.settings), 7)
    again = nem.explain(x)
    assert torch.equal(first.keep, again.keep) and torch.equal(first.logits, again.logits)
    for i in range(5):
        alone = nem.explain(x[i:i + 1])
        # another batch may take another kernel, which adds in another order
        assert torch.allclose(alone.logits, first.logits[i:i + 1], atol=1e-4)
        # a hard gate may tip where it is undecided
        sure = (first.logits[i].abs() > 1e-3) if settings.get("gate") else torch.ones(28, 28, dtype=torch.bool)
        assert torch.allclose(alone.keep[0][sure], first.keep[i][sure], atol=1e-4)


def test_keep_is_float32_in_range_and_never_stretched_nor_rounded():
    for bias in (-2.0, 0.0, 2.0):
        explanation = make(mask_bias=bias).explain(pictures(4))
        assert explanation.keep.dtype == explanation.logits.dtype == torch.float32 and not explanation.keep.requires_grad
        assert torch.allclose(explanation.keep, explanation.logits.sigmoid(), atol=1e-6, rtol=0)  # neither the least is 0 nor the largest 1
        assert len(explanation.keep.unique()) > 600 and len(explanation.logits.unique()) > 600  # 3,136 pixels; 8 bits have 256 values


def test_logits_rank_where_probabilities_are_all_one():
    nem = make()
    with torch.no_grad(): nem.unet.out.bias.fill_(30.0)
    explanation = nem.explain(pictures(2))
    assert torch.equal(explanation.keep, torch.ones(2, 28, 28)) and all(len(one.unique()) > 500 for one in explanation.logits)


def test_smoothing_is_in_the_mask_that_the_encoder_gets_and_not_in_the_logits():
    nem, x = make(), pictures(2)
    plain, smooth = nem.explain(x), nem.explain(x, live=Live(nem.settings.replace(smoothing=3.0)))
    assert torch.equal(plain.logits, smooth.logits)
    rough = lambda keep: keep.diff(dim=-1).abs().mean()
    assert rough(smooth.keep) < 0.5 * rough(plain.keep)
    view = views_of(nem, x, Live(nem.settings.replace(smoothing=3.0)))["keep"]
    assert torch.equal(view, smooth.keep)


@pytest.mark.parametrize("seed", [0, 1])
def test_masks_follow_their_generator(seed):
    settings, images = NEMSettings(layers=2, width=4), pictures(20)
    a, b, c = (NEM(settings, small(), images, generator=seeded(s)).unet.state_dict() for s in (seed, seed, seed + 1))
    assert all(torch.equal(a[k], b[k]) for k in a) and not torch.equal(a["out.weight"], c["out.weight"])


# Encoders and sizes -------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("side", [28, 33, 64])
@pytest.mark.parametrize("grid", ["1", "1/2", "1/4"])
@pytest.mark.parametrize("strides", [(1, 2, 2), (2, 2, 2)])
def test_sizes_and_grids(side, grid, strides):
    images = pictures(6, 3, side)
    nem = make(small(3, strides), images, grid=grid, layers=3)
    live = Live(nem.settings.replace(neighbourhood="always", jitter=4))
    terms, gradients = step(nem, images, live)
    assert all(t.isfinite().all() for t in terms.all().values()) and all(g.any() for g in gradients["distance"].values())
    explanation = nem.explain(images)
    assert explanation.keep.shape == (6, side, side)
    probe = compare_masks(nem, images, live, seeded())
    assert all(v.isfinite().all() for v in (probe.distance_soft, probe.distance_hard, probe.distance_moved, probe.distance_blank))


def test_a_coarse_grid_makes_a_coarse_mask():
    images = pictures(6, 1, 32)
    roughness = [make(images=images, grid=grid).explain(images).logits.diff(dim=-1).square().mean().item() for grid in ("1", "1/2", "1/4")]
    assert roughness[0] > 2 * roughness[1] > 4 * roughness[2]


class Tokens(nn.Module):
    "Like a ViT: patches and a class token through blocks that return [batch, token, channel]."
    def __init__(self, patch=4, width=12):
        super().__init__()
        torch.manual_seed(3)
        self.embed = nn.Conv2d(1, width, patch, patch)
        self.first = nn.Parameter(torch.randn(1, 1, width))
        self.blocks = nn.ModuleList(nn.TransformerEncoderLayer(width, 2, 24, dropout=0.1, batch_first=True) for _ in range(3))

    def forward(self, x):
        tokens = torch.cat([self.first.expand(len(x), -1, -1), self.embed(x).flatten(2).mT], 1)
        for block in self.blocks: tokens = block(tokens)
        return tokens[:, 0]


@pytest.mark.parametrize("build", [
    lambda: FrozenEncoder(Tokens(), ["blocks.0", "blocks.1", "blocks.2"], lambda output: output),
    lambda: FrozenEncoder(Tokens(), ["embed", "blocks.2"]),
    lambda: FrozenEncoder(WithDropout(), ["first.0", "second"]),
    lambda: FrozenEncoder(WithDropout(), ["second"], lambda output: output, mean=(0.3,), std=(0.2,)),
], ids=["tokens", "patches and tokens", "convolutions", "one map and a head"])
def test_any_module_is_explained_by_naming_its_maps(build):
    encoder, images = build(), pictures(12)
    nem = make(encoder, images, layers=len(encoder.maps))
    terms, gradients = step(nem, images, Live(nem.settings))
    assert all(g is not None and g.isfinite().all() and g.any() for g in gradients["distance"].values())
    explanation = nem.explain(images)
    assert explanation.keep.shape == (12, 28, 28) and torch.equal(explanation.keep, nem.explain(images).keep)


@pytest.mark.parametrize("layers", [4, 5])
def test_deeper_than_the_maps_is_refused(layers):
    with pytest.raises(ValueError, match=f"`layers` must be in 1 to 3, the encoder's feature maps: got {layers}. Choose fewer layers or an "
                                         "encoder with more maps."):
        make(layers=layers)


# What it learns -----------------------------------------------------------------------------------------------------

def share_on(logits, truth):
    "Share of the highest |truth| logits that lie on the truth, per image."
    return torch.stack([t.flatten()[o.flatten().topk(int(t.sum())).indices].float().mean() for o, t in zip(logits, truth) if t.any()])


def test_the_planted_cause_is_found():
    scenes = draw_scenes(296, seed=0, settings=SceneSettings(side=32, must_have="red"))
    planted = PlantedEncoder("red")
    encoder = FrozenEncoder(planted, planted.names[:4], lambda output: output, name="planted:red")
    run = NEMRun().replace(batch=16, layers=2, width=8, check_every=1000, device="cpu", learning_rate=1e-2)
    trainer = Trainer(with_images(run, scenes), build=lambda run, device: run.build(device, encoder=encoder))
    held = trainer.setup.held_out
    truth = planted.cause(held)
    before = share_on(trainer.model.explain(held).logits, truth).mean()
    trainer.fit(150, progress=False)
    after = share_on(trainer.model.explain(held).logits, truth).mean()
    assert after > 0.6 and after > before, (before, after)
    wrong = share_on(trainer.model.explain(held).logits, truth.roll(1, 0)).mean()
    assert wrong < after - 0.2, (wrong, after)  # and it is the image's own cause, not a place where causes often are


def test_training_lowers_what_it_minimises(nem_images=pictures(64, seed=9)):
    nem = make(images=nem_images, mask_bias=2.0)
    live, optimiser = Live(nem.settings.replace(kl_scale=0.02)), torch.optim.AdamW(nem.unet.parameters(), lr=1e-2)
    losses = []
    for i in range(40):
        loss = weighted_sum(terms := terms_of(nem, nem_images[:16], live, i), weights_of(nem, live)).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append((loss.item(), terms.all()["area"].mean().item()))
    assert losses[-1][0] < 0.8 * losses[0][0] and losses[-1][1] < losses[0][1]


# A way back --------------------------------------------------------------------------------------------------------

def test_a_saturated_mask_comes_back_from_either_end():
    "The first steps of a mask that hides or keeps everything with logits of 60, once its price asks for the other."
    x = pictures(8)
    for end, changes, penalty in ((-60.0, dict(kl_scale=1e-4), "kl"), (60.0, dict(kl_scale=0.1), "kl"),
                                  (-60.0, dict(area_scale=0.0), "area"), (60.0, dict(area_scale=1.0), "area")):
        nem = make(penalty=penalty, fill="mean", **changes)
        with torch.no_grad(): nem.unet.out.bias.fill_(end)
        _, gradients = step(nem, x, Live(nem.settings.replace(penalty=penalty, fill="mean", **changes)))
        live = Live(nem.settings)
        weights = weights_of(nem, live)
        pull = -sum(float(weights[name]) * of["out.bias"].sum() for name, of in gradients.items())
        assert pull * end < 0, (end, penalty, pull)


# Images that are hidden whole -----------------------------------------------------------------------------------------

@pytest.mark.parametrize("hidden", [[], [2], [0, 3, 5], list(range(6))], ids=str)
def test_only_an_image_that_is_hidden_whole_is_glimpsed_and_its_value_stays(hidden):
    "The distance is that of the mask, to the last bit; only hidden images have the gradient of a glimpse."
    x, red = pictures(6, channels=3, side=64), PlantedEncoder("red")
    x[:, 0, 16:40, 16:40], x[:, 1:, 16:40, 16:40] = 0.9, 0.1
    nem = make(FrozenEncoder(red, red.names, embed="output", name="planted"), x)
    keep = torch.full((6, 64, 64), 0.9)
    keep[hidden] = 1e-3
    keep.requires_grad_()
    fill, embedding = nem.fill("mean", x, generator=seeded()), nem.encoder.embed(x)
    plain = nem.distances["half_cosine"](embedding, nem.encoder.embed(torch.lerp(fill, x, keep[:, None])))
    natural, = torch.autograd.grad(plain.sum(), keep, retain_graph=True)
    changed = set()
    for seed in range(8):  # what a single glimpse shows may be nothing
        random = seeded(seed)
        found = nem.distance_of(nem.distances["half_cosine"], embedding, x, keep, fill, random)
        assert torch.equal(found, plain)
        assert torch.equal(random.get_state(), seeded(seed).get_state()) == (not hidden), "nothing is drawn for images that are seen"
        slope, = torch.autograd.grad(found.sum(), keep)
        changed |= set((slope != natural).any((1, 2)).nonzero()[:, 0].tolist())
    assert changed == set(hidden)


# A pair and a class -------------------------------------------------------------------------------------------------

def test_a_pair_of_an_image_with_itself_is_its_embedding():
    x, live = pictures(6), Live(make(target="pair").settings)
    pair, alone = make(target="pair"), make()
    code, shown = pair.encoder.both(x), pair.encoder.embed(x.flip(-1))
    assert torch.allclose(pair.away("half_cosine", code, shown, code), alone.away("half_cosine", code, shown), atol=1e-6)
    other = code.rows(torch.arange(6).roll(1))
    expected = pair.distances["half_cosine"](other.embedding, shown) - pair.distances["half_cosine"](other.embedding, code.embedding)
    assert torch.equal(pair.away("half_cosine", code, shown, other), expected)
    assert torch.allclose(pair.away("half_cosine", code, code.embedding, other), torch.zeros(6), atol=1e-6)
    masks = [pair.explain(x, partner=partner, live=live).logits for partner in (x, x.roll(1, 0), x.roll(1, 0)[:1])]
    assert not torch.equal(masks[0], masks[1]) and torch.equal(masks[1][0], masks[2][0]) and not torch.equal(masks[1][2], masks[2][2])


def test_partners_are_others_and_the_most_alike():
    for count in (2, 3, 16):
        drawn = draw_partners(count, seeded(count))
        assert sorted(drawn.tolist()) == list(range(count)) and (drawn != torch.arange(count)).all()
    assert torch.equal(draw_partners(16, seeded(1)), draw_partners(16, seeded(1)))
    with pytest.raises(ValueError, match="`batch` must be at least 2 for the target pair: got 1"): draw_partners(1, seeded())
    with pytest.raises(ValueError, match="`batch` must be at least 2 for the target pair: got 1"): NEMRun().replace({"target": "pair", "train.batch": 1})
    nem, x = make(target="pair"), pictures(6)
    near = (x + 0.02 * torch.rand(x.shape, generator=seeded(9))).clamp(0, 1)
    assert torch.equal(nem.partners(x, near.flip(0)), near)
    assert torch.equal(nem.partners(torch.cat([x, near])), torch.cat([near, x]))


def test_what_a_partner_may_be(unchecked):
    nem, x = make(target="pair"), pictures(3)
    with pytest.raises(ValueError, match="`partner` must be given for one image"): nem.explain(x[:1])
    with pytest.raises(ValueError, match=r"`partner` must be one image of \(1, 28, 28\), or 3 of them: got \(2, 1, 28, 28\)"): nem.explain(x, partner=x[:2])
    with pytest.raises(ValueError, match=r"`partner` must be one image"): nem.explain(x, partner=pictures(3, side=14))
    with pytest.raises(ValueError, match="must be finite"): nem.explain(x, partner=x * torch.nan)
    with pytest.raises(ValueError, match="`partner` must be left out for the target embedding"): make().explain(x, partner=x)
    with pytest.raises(ValueError, match="`how` must be what NEM.explain takes: got other. It takes generator, live, partner"): ll.explain(nem, x, other=x)
    assert torch.equal(ll.explain(nem, (255 * x).byte(), partner=(255 * x).byte().numpy()).logits, nem.explain((255 * x).byte() / 255, partner=(255 * x).byte() / 255).logits)


def test_a_pair_is_trained_towards_the_partner_that_was_drawn():
    nem, x = make(target="pair", jitter=0, fill="mean"), pictures(6)
    live = Live(nem.settings)
    code, partner = nem.encoder.both(x), nem.encoder.both(x[draw_partners(6, seeded())])
    keep = nem.logits(code, x.shape[-2:], partner).sigmoid()
    shown = nem.encoder.embed(torch.lerp(nem.fill("mean", x, generator=seeded()), x, keep[:, None]))
    trained, wanted, other = terms_of(nem, x, live)["distance"], *(nem.away("half_cosine", code, shown, one) for one in (partner, code))
    assert (trained - wanted).abs().max() < 1e-6 < 1e-4 < (wanted - other).abs().max()


def test_a_pair_in_a_run(tmp_path):
    "Built, trained, resumed to the bit, measured, drawn with its row of partners, recorded."
    run = NEMRun().replace({"target": "pair", "images": 64, "train.batch": 8, "encoder": "untrained", "model.width": 4})
    assert len([*check_family(run, tmp_path)]) == 6
    trainer = Trainer(run.replace({"train.device": "cpu", "train.steps": 1})).fit(1, progress=False)
    snapshot, display = trainer.snapshot(), NEMDisplay()
    assert [row.key for row in display.layout(snapshot).rows] == ["image", "partner", "keep", "seen", "rank"]
    assert display.arrays(snapshot)["partner"].shape == display.arrays(snapshot)["image"].shape
    setup = trainer.setup
    assert torch.equal(setup.diagnostics.partners[0], trainer.model.partners(setup.preview, setup.held_out))
    assert run.rulers()["distance"].startswith("half cosine of pair")


def test_a_class_is_a_logit_of_the_model(unchecked):
    "By the last layer of a plain module, timm's forward_head, and Hugging Face's logits; others have no classes."
    plain = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 16, 3, 2, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 5))
    pixels = Pixels(size=(32, 32))
    inside = pixels.inside
    pixels.forward = lambda pixel_values, output_hidden_states=False, return_dict=True: ModelOutput(
        Pixels.forward(pixels, pixel_values, output_hidden_states), logits=inside(pixel_values))
    timm = TimmTokens()
    timm.num_classes = 10
    x = pictures(60, channels=3, side=32)
    for module, logits, many, how in ((plain, plain, 5, {"embed": "pooled"}), (plain, plain, 5, {}), (timm, lambda x: timm((x - 0.5) / 0.5), 10, {}), (pixels, inside, 10, {})):
        encoder = wrap_encoder(module.eval(), **how)
        nem = make(encoder, x, target="class:3", distance="normalised_l2")
        with torch.no_grad(): torch.testing.assert_close(nem.encoder.embed(x), logits(x))
        assert nem.encoder.maps == encoder.maps and encoder_for_target(nem.encoder, "class:3", x).embed(x[:1]).shape == (1, many)
        assert all(g.any() for of in step(nem, x[:4], Live(nem.settings))[1].values() for g in of.values())
        with pytest.raises(ValueError, match=f"`target` must be among the {many} classes of this encoder, from 0: got class:99"):
            make(encoder, x, target="class:99", distance="normalised_l2")
    run = NEMRun().replace({"data": "scenes", "target": "class:3", "distance": "normalised_l2", "train.batch": 4, "model.width": 4})
    setup = with_images(run, (255 * x).byte()).build("cpu", encoder=wrap_encoder(timm))
    assert "embedding: output, 10 numbers" in setup.info["proof"]
    bare = TimmTokens()
    bare.num_classes = 0
    for module in (small(3), wrap_encoder(bare.eval()), wrap_encoder(Pixels().eval()), wrap_encoder(net().eval())):
        with pytest.raises(ValueError, match="must have a classifier for a class: got .*Hand over the model with its head"):
            make(module, x, target="class:3", distance="normalised_l2")


# Cost -----------------------------------------------------------------------------------------------------------------

def test_a_batch_that_does_not_fit_is_refused_before_time_is_spent(monkeypatch):
    from latentlab.families.nem import experiment

    run = NEMRun().replace({"encoder": "untrained", "images": 64, "train.batch": 8, "model.width": 4})
    setup = run.build("cpu")
    assert setup.info["cost"].startswith("a step of 8 images about ") and "GB in the encoder; at most about" in setup.info["cost"]
    each = experiment.measure_cost(setup.model.encoder, setup.preview[:2]).bytes
    assert each > 4 * 28 * 28
    monkeypatch.setattr(experiment, "free_memory", lambda device: 10 * each)
    with pytest.raises(ValueError, match=r"`batch` must be at most about 7 for untrained:fashion-mnist here: got 8\. A step would cost 8 images about .*Lower it"):
        run.build("cpu")
    assert run.replace(batch=7).build("cpu").info["cost"]
    monkeypatch.setattr(experiment, "free_memory", lambda device: None)
    assert run.build("cpu").info["cost"].endswith("GB in the encoder")


def test_fewer_large_images_are_measured_and_a_slow_step_is_said(monkeypatch):
    from latentlab.families.nem import experiment

    monkeypatch.setattr(experiment, "HELD_OUT_PIXELS", 10 * 28 * 28)
    monkeypatch.setattr(experiment, "SLOW", -1.0)
    run = NEMRun().replace({"encoder": "untrained", "images": 64, "train.batch": 8, "model.width": 4, "train.device": "cpu"})
    trainer = Trainer(run)
    assert len(trainer.setup.held_out) == 10 and trainer.setup.info["held_out"] == "10"
    assert NEMDisplay().notes(trainer.snapshot())[0]["text"] == trainer.setup.info["cost"]
    monkeypatch.undo()
    setup = run.build("cpu")
    assert len(setup.held_out) == 32


def test_a_slow_encoder_is_looked_at_before_it_is_measured(tmp_path, monkeypatch):
    "The first verdicts stand on two images and say so; no figure is of two images, and a measurement that is asked for is of all."
    from latentlab.families.nem import experiment

    run = NEMRun().replace({"encoder": "untrained", "images": 64, "train.batch": 8, "model.width": 4, "train.device": "cpu", "train.check_every": 20})
    monkeypatch.setattr(experiment, "SLOW", -1.0)
    seen, usual = [], MaskDiagnostics.measure
    monkeypatch.setattr(MaskDiagnostics, "measure", lambda self, model, context: seen.append((context.step, context.early)) or usual(self, model, context))
    trainer = Trainer(run, journal=tmp_path).fit(2, progress=False)
    (row,) = ll.Journal(tmp_path).runs().to_dict("records")
    assert [value > 0 for name, value in row.items() if "distance_hard" in name] == [True], row
    looked, whole = trainer.session.measurements
    assert seen == [(0, True), (2, False)] and not looked.figures and whole.figures
    assert all("(a first look, at 2 images)" in verdict.sentence for verdict in looked.verdicts)
    assert not any("first look" in verdict.sentence for verdict in whole.verdicts)
    snapshot = trainer.snapshot()
    assert NEMDisplay().table(replace(snapshot, measurements=(looked,))) == {} and NEMDisplay().table(snapshot)
    assert Trainer(run).measure().figures, "asked for at the first step"
    monkeypatch.setattr(experiment, "SLOW", 60.0)
    assert Trainer(run).fit(1, progress=False).session.measurements[0].figures


def test_weights_are_no_cost_of_an_image():
    "What is kept for the backward pass grows with the images; a weight that a linear layer keeps is there before."
    from latentlab.nn.encoders import measure_cost

    wide = nn.Sequential(nn.Conv2d(1, 4, 3, 2, 1), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 14 * 14, 4000))
    found = measure_cost(FrozenEncoder(wide, ["0"], "output"), pictures(2))
    assert 4 * 28 * 28 <= found.bytes < 100_000, found


def test_a_target_of_one_number_brings_its_distance_and_says_so(capsys):
    "It was refused until the distance was said too; one that somebody names stays, or is refused."
    import latentlab as ll
    from latentlab.facade import make_trainer

    small = {"images": 64, "batch": 8, "encoder": "untrained", "layers": 2, "width": 4, "device": "cpu"}
    trainer = make_trainer("nem", small | {"target": "latent:3"})
    assert trainer.run.model.distance == "normalised_l2"
    assert capsys.readouterr().out == "`distance` is normalised_l2 here, in place of half_cosine: name another to have that.\n"
    assert trainer.rebuild(target="embedding").rebuild(distance="cosine").rebuild(target="latent:1").run.model.distance == "normalised_l2"
    assert make_trainer("nem", small | {"target": "latent:3", "distance": "relative_l2"}).run.model.distance == "relative_l2"
    assert make_trainer("nem", small).run.model.distance == "half_cosine" and capsys.readouterr().out == ""
    with pytest.raises(ValueError, match="`distance` must be normalised_l2 or relative_l2 for one latent: got cosine"):
        ll.train("nem", target="latent:3", distance="cosine", **small)
    with pytest.raises(ValueError, match="`target` must be embedding, pair"): ll.train("nem", target="latent:x", **small)


# One unit for every encoder -----------------------------------------------------------------------------------------

def test_a_calibrated_distance_takes_back_the_scale_and_the_offset_of_an_encoder():
    class Louder(nn.Module):
        "The same answers, fifty times as loud and elsewhere."

        def __init__(self, inner):
            super().__init__()
            self.inner = inner

        def forward(self, x): return 50 * self.inner(x) + 3

    x, plain = pictures(40), SmallEncoder(1, (1, 2, 2, 2, 1), generator=seeded())
    loud = FrozenEncoder(Louder(plain), tuple(f"inner.{name}" for name in plain.names), lambda out: out)
    found = []
    for encoder in (FrozenEncoder(plain, plain.names), loud):
        nem = make(encoder, x, distance="calibrated", fill="mean")
        found.append(terms_of(nem, x[:6], Live(nem.settings))["distance"].detach())
    assert torch.allclose(*found, atol=2e-3) and found[0].abs().max() > 1e-3
    hidden = nem.distances["calibrated"](loud.embed(x[:20]), loud.embed(x[20:])).median()
    assert 0.4 < hidden < 2.0  # strangers


def test_calibration_is_made_once_when_it_is_first_taken_and_refused_before_training():
    asked, x = [], pictures(40)
    encoder = FrozenEncoder(small := SmallEncoder(1, (1, 2, 2, 2, 1), generator=seeded()), small.names)
    nem = make(encoder, x)
    counted = encoder.embed_many
    encoder.embed_many = lambda images: asked.append(len(images)) or counted(images)
    z = counted(x)
    for _ in range(3): nem.distances["calibrated"](z, z)
    assert asked == [40, 40]
    with pytest.raises(ValueError, match="16 images or more: got"): make(encoder, x[:15], distance="calibrated")
    with pytest.raises(ValueError, match="16 images or more: got"): make(encoder, x[:1], distance="calibrated")
    with pytest.raises(ValueError, match="must tell strangers from re-photographs"):
        make(encoder, x[:1].expand(40, -1, -1, -1) + 1e-3 * torch.rand(40, 1, 1, 1, generator=seeded()), distance="calibrated")


def test_a_calibrated_run_of_the_whole_range_moves_its_weights():
    trainer = Trainer(NEMRun().replace({"distance": "calibrated", "frontier": True, "images": 64, "batch": 8, "device": "cpu"}))
    before = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    trainer.fit(3, progress=False)
    assert any(not torch.equal(value, before[name]) for name, value in trainer.model.state_dict().items())
    figures = trainer.snapshot().measurements[-1].figures if trainer.snapshot().measurements else trainer.measure().figures
    assert all(abs(value) < 1e6 for value in figures.values())  # and no NaN
    assert NEMDisplay().layout(trainer.snapshot()).table.rows
    for target in ("latent:3", "latents:0,4"):
        nem = make(images=pictures(40), target=target, distance="calibrated")
        live = Live(nem.settings)
        assert step(nem, pictures(2), live)[0]["distance"].isfinite().all()
