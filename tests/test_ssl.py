"""SimCLR and SwAV as models of the trainer: reproducible views, terms, collapse, and a run that learns."""
import pytest
import torch
from latentlab.core.runtime import generator
from latentlab.core.batch import Batch, Context
from latentlab.core.model import Model, missing_parts
from latentlab.core.settings import Live
from latentlab.data.images import load
from latentlab.data.sources import open_images
from latentlab.families.ssl.diagnostics import (
    SSLDiagnostics,
    embed_at_rest,
    lost_embeddings,
    measure_spread,
    spread_check,
    spread_figures,
)
from latentlab.families.ssl.experiment import SSLRun
from latentlab.families.ssl.model import SSL, SSLSettings, make_augment, relight
from latentlab.nn.encoders import load_encoder
from latentlab.train.trainer import Trainer

BOTH = [SSLSettings(), SSLSettings(method="swav", temperature=0.1, prototypes=16)]


@pytest.fixture(scope="module")
def images(): return load("fashion-mnist", "train", limit=64).float()


def model_of(settings): return SSL(settings, generator=generator(0, "model"))


def context_of(settings, *stream): return Context(live=Live(settings), generator=generator(0, *stream))


@pytest.mark.parametrize("changes", [{}, {"flip": False}, {"light": 0.0}, {"blur": 0.0}, {"erase": 0.0}, {"shadow": 0.3}, {"cast": 0.1},
                                     {"crop": 1.0}])
@pytest.mark.parametrize(("shape", "size"), [("fashion-mnist", (1, 28, 28)), ("scenes", (3, 64, 64))])
def test_views_are_images_and_follow_the_generator_alone(changes, shape, size):
    augment = make_augment(SSLSettings(shape=shape).replace(changes), size[-1])
    x = torch.rand(5, *size, generator=torch.Generator().manual_seed(0))
    before, kept = torch.get_rng_state(), x.clone()
    one, same, other = (augment(x, generator(0, "view", k)) for k in (1, 1, 2))
    assert torch.equal(one, same) and not torch.equal(one, other)
    assert torch.equal(torch.get_rng_state(), before) and torch.equal(x, kept)
    assert one.shape == x.shape and one.min() >= 0 and one.max() <= 1 and one.isfinite().all()
    torch.manual_seed(5)
    assert torch.equal(augment(x, generator(0, "view", 1)), one)


def test_two_views_of_one_generator_differ():
    augment, source = make_augment(SSLSettings(), 28), generator(0, "v")
    x = torch.rand(4, 1, 28, 28)
    assert not torch.equal(augment(x, source), augment(x, source))


def test_shadow_is_smooth_grey_and_zero_at_zero():
    x = torch.full((3, 3, 64, 64), 0.5)
    assert torch.equal(relight(x, 0.0, 0.0, generator(0)), x)
    field = relight(x, 0.1, 0.0, generator(0)) - x
    assert torch.equal(field[:, 0], field[:, 1]) and torch.equal(field[:, 0], field[:, 2])
    assert field.diff(dim=-1).abs().max() < 0.05 < field.abs().max()
    tint = relight(x, 0.0, 0.1, generator(0)) - x
    assert torch.allclose(tint, tint[..., :1, :1].expand_as(tint)) and tint[0, :, 0, 0].std() > 0


@pytest.mark.parametrize("settings", BOTH)
def test_it_is_trainable_and_its_terms_are_per_example(settings, images):
    model, context = model_of(settings), context_of(settings, "step", 0)
    assert not missing_parts(model, Model)
    terms = model.losses(Batch(x=images), context)
    assert list(terms) == ["contrastive"] and list(terms.observed) == ["view_distance"] and set(model.weights(context)) == set(terms)
    assert all(t.shape == (64,) and t.isfinite().all() for t in terms.all().values()) and not terms.observed["view_distance"].requires_grad
    terms["contrastive"].mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() and p.grad.abs().sum() > 0 for p in model.parameters())
    assert {id(p) for group in model.groups() for p in group.parameters} == {id(p) for p in model.parameters()}


@pytest.mark.parametrize("settings", BOTH)
def test_looking_does_not_move_it(settings, images):
    model, diagnostics = model_of(settings), SSLDiagnostics(preview=images[:8], held_out=images)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    measured = diagnostics.measure(model, context_of(settings, "p"))
    shown = diagnostics.views(model, context_of(settings, "v"))
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items()) and model.training
    assert all(v.shape == (8, 1, 28, 28) for v in shown.values()) and [v.level for v in measured.verdicts] == ["ok"]


def test_prototypes_return_to_the_sphere():
    model = model_of(BOTH[1])
    with torch.no_grad(): model.prototypes.mul_(3)
    model.after_step()
    torch.testing.assert_close(model.prototypes.norm(dim=-1), torch.ones(16))
    model_of(BOTH[0]).after_step()


def test_collapse_is_seen(images):
    model = model_of(SSLSettings())
    torch.nn.init.zeros_(model.encoder.block5[1].weight)
    assert measure_spread(model, images)["dead"] == 1.0 and spread_check(measure_spread(model, images)).level == "bad"
    healthy = [measure_spread(SSL(SSLSettings(), generator=generator(seed, "model")), images) for seed in range(5)]
    assert all(one["dead"] < 0.5 and spread_check(one).level == "ok" for one in healthy)
    assert [spread_check({"spread": spread, "dead": 0.0}).level for spread in (0.02, 0.004, 0.0004, 0.0)] == ["ok", "warn", "bad", "bad"]


@pytest.mark.parametrize("plant, words", [
    (lambda e: e * (torch.arange(len(e)) != 2)[:, None], "image 2 has 0 in every unit"),
    (lambda e: torch.where((torch.arange(len(e)) < 10)[:, None], 3 * e[:1], e), "image 0 has the embedding of 9 others"),
])
def test_single_images_without_an_embedding_of_their_own_are_named_though_the_mean_looks_well(images, plant, words):
    embeddings = embed_at_rest(model_of(SSLSettings()), images[:32]).double()
    planted = plant(embeddings)
    figures, cases = spread_figures(planted), lost_embeddings(planted)
    assert spread_check(figures).level == "ok", "the means say nothing"
    verdict = spread_check(figures, cases, len(planted))
    assert verdict.level == ("bad" if len(cases) >= 8 else "warn") and words in verdict.sentence and verdict.remedy
    assert f"{len(cases)} of 32 images without an embedding of their own" in verdict.sentence


def test_healthy_encoders_have_an_embedding_for_each_image():
    for data in ("fashion-mnist", "scenes"):
        x = open_images(data, "test", 32).float()
        for name in ("simclr", "swav"): assert lost_embeddings(load_encoder(f"{name}:{data}").embed(x)) == (), (name, data)
        for seed in range(3):
            fresh = SSL(SSLSettings(shape=data), generator=generator(seed, "model"))
            assert lost_embeddings(embed_at_rest(fresh, x)) == (), (seed, data)


@pytest.mark.parametrize("settings", BOTH)
def test_the_trainer_lowers_the_loss_and_repeats_itself(settings, images):
    run = SSLRun(model=settings).replace({"data.images": 64, "batch": 32, "device": "cpu"})
    first = Trainer(run)

    def loss():
        with torch.no_grad(): return first.model.losses(Batch(x=images), context_of(settings, "eval"))["contrastive"].mean().item()

    before = loss()
    first.fit(25)
    assert loss() < before - 0.2
    again = Trainer(run)
    again.fit(25)
    state = {k: v for k, v in again.model.state_dict().items() if "num_batches" not in k and "running" not in k}
    assert all(torch.equal(v, first.model.state_dict()[k]) for k, v in state.items())


@pytest.mark.parametrize(("changes", "sentence"), [
    ({"crop": 0.01}, "`crop` must be at least"), ({"temperature": 5.0}, "`temperature` must be at most"),
    ({"projection": 1}, "`projection` must be at least")])
def test_settings_out_of_range(changes, sentence):
    with pytest.raises(ValueError, match=sentence): SSLSettings(**changes)
