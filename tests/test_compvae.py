"The parent of compvae, its total correlation, and a child in the same trainer: known answers, and faults that were seen."
import math

import pytest
import torch

from latentlab.core.batch import Context
from latentlab.core.settings import Live
from latentlab.core.terms import Terms
from latentlab.data.sprites import SPRITE_FACTORS, SpriteSettings, draw_sprites
from latentlab.families.compvae.experiment import CompVAERun
from latentlab.families.compvae.levels import ChildControls, Levels
from latentlab.families.compvae.meters import child_calls, child_terms_added, probe_children
from latentlab.families.compvae.model import CompVAESettings
from latentlab.families.compvae.total_correlation import Code, decompose, exchange_latents, gaussian_tc, log_weights
from latentlab.losses.gaussian import kl
from latentlab.train.trainer import Rebuild, Trainer

SMALL = {"images": 64, "batch": 8, "side": 16, "features": 16, "model.width": 4, "latents": 4, "warmup_steps": 0}


def draws(*shape: int, seed: int = 0) -> torch.Tensor: return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("kind", ["weighted", "stratified"])
@pytest.mark.parametrize(("batch", "total"), [(2, 2), (2, 9), (64, 64), (64, 20_000)])
def test_weights_of_a_row_sum_to_one(kind, batch, total):
    rows = log_weights(batch, total, kind).double().exp().sum(1)
    assert (rows - 1).abs().max() < 1e-6  # the published code fills a column, whose rows do not


@pytest.mark.parametrize("kind", ["weighted", "stratified"])
def test_three_parts_add_up_to_the_kl_of_the_draws(kind):
    code = Code(draws(128, 6), draws(128, 6, seed=1) - 1)
    z = code.sample(torch.Generator().manual_seed(2))
    parts = decompose(z, code, 20_000, kind)
    normal = lambda x, mean, variance: -0.5 * ((x - mean).square() / variance + variance.log() + math.log(2 * math.pi)).sum(1)
    whole = normal(z, code.mean, code.log_variance.exp()) - normal(z, torch.zeros(6), torch.ones(6))
    assert (parts.total() - whole).abs().max() < 1e-4 and (parts.total() - whole).abs().mean() < 1e-5


@pytest.mark.parametrize("correlation", [0.0, 0.6, 0.9])
def test_total_correlation_of_a_gaussian(correlation):
    "Posteriors of little information, so that a batch knows the aggregate: -ln(1 - r^2) / 2."
    mix, noise = torch.tensor([[1.0, 0.0], [correlation, (1 - correlation**2) ** 0.5]]), 0.5
    mean = draws(4096, 2) @ mix.T * (1 - noise) ** 0.5
    wanted = gaussian_tc((1 - noise) * mix @ mix.T + noise * torch.eye(2))
    code = Code(mean, torch.full_like(mean, math.log(noise)))
    found = decompose(code.sample(torch.Generator().manual_seed(1)), code, 4096, "stratified").tc.mean().item()
    assert abs(found - wanted) < 0.03 and (correlation == 0) == (wanted < 1e-6)


def test_exchanged_latents_keep_their_marginals_and_lose_their_dependence():
    z = draws(2000, 1).expand(-1, 3).contiguous()
    found = exchange_latents(z, torch.Generator().manual_seed(0))
    assert torch.equal(found.sort(0).values, z.sort(0).values) and torch.corrcoef(found.T).triu(1).abs().max() < 0.08


def test_a_child_trains_and_the_frozen_parent_does_not_move():
    trainer = Trainer(CompVAERun().replace({**SMALL, "child": "on"})).fit(2)
    parent = {name: value.clone() for name, value in trainer.model.state_dict().items() if name.split(".")[0] in ("encoder", "decoder")}
    child = [value.clone() for value in trainer.model.below["child"].parameters()]
    trainer.fit(6)
    now = trainer.model.state_dict()
    assert parent and all(torch.equal(now[name], value) for name, value in parent.items())
    assert any(not torch.equal(a, b) for a, b in zip(child, trainer.model.below["child"].parameters(), strict=True))


def test_the_kl_of_a_child_comes_in_over_its_own_steps():
    run = CompVAERun().replace({**SMALL, "child": "on", "child_warmup": 4, "child_beta": 8.0})
    model, context = run.build().model, Context(live=Live(run), generator=torch.Generator().manual_seed(0))
    model.steps += 1000  # the parent is old
    seen = []
    for _ in range(6):
        seen.append(float(model.weights(context)["child_kl"]))
        model.after_step()
    assert seen == [0, 2, 4, 6, 8, 8] and float(model.settled_weights(context)["child_kl"]) == 8 and float(model.weights(context)["rival_kl"]) == 8
    assert set(model.weights(context)) == set(model.settled_weights(context)) and model.weights(context)["child_nll"] == 1


@pytest.mark.parametrize("keep_parent", ["frozen", "joint"])
def test_every_group_is_paid_for_what_it_may_move(keep_parent):
    run = CompVAERun().replace({**SMALL, "child": "on", "keep_parent": keep_parent, "penalty": "cross_covariance"})
    setup = run.build()
    model, names = setup.model, [group.name for group in setup.model.groups()]
    context = Context(live=Live(run), generator=torch.Generator().manual_seed(0))
    terms, weights = model.losses(setup.batches.at(0), context), model.weights(context)
    optimised = {name for group in model.groups() for name in group.terms or ()}
    assert names == (["child", "rival", "critics"] if keep_parent == "frozen" else ["model", "rival", "critics"])
    assert optimised <= set(weights) and optimised <= set(terms), "a term computed and not added, or added and not computed"
    moved = {id(p) for group in model.groups() for p in group.parameters}
    assert (id(next(model.encoder.parameters())) in moved) == (keep_parent == "joint")


def test_a_grandchild_is_told_both_codes_and_moves_neither():
    run = CompVAERun().replace({**SMALL, "child": "on", "rival": "none"})
    plain, trainer = Trainer(run).fit(4), Trainer(run.replace({"child.grandchild": "on"})).fit(4)
    above = {name: value for name, value in trainer.model.below["child"].state_dict().items()}
    assert all(torch.equal(value, above[name]) for name, value in plain.model.below["child"].state_dict().items()), "the child learns as without one"
    third = trainer.model.below["grandchild"]
    assert third.given == run.model.latents + run.child.child_latents
    x = trainer.setup.held_out[:4]
    z = trainer.model.encode(x).mean
    w = trainer.model.below["child"].encode(x, torch.ones(4, *x.shape[2:]), z).mean
    assert torch.equal(trainer.model.decode_both(torch.cat([z, w], 1)), trainer.model.below["child"].decode(w, z)), "the parent's code comes first"


def test_a_click_keeps_the_parent_and_a_dead_latent_is_refused():
    trainer = Trainer(CompVAERun().replace(SMALL)).fit(3)
    before = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    trainer.submit(Rebuild(changes={"child.child": "on", "child.child_latent": 1}, keep_weights=True)).result()
    after = trainer.model.state_dict()
    assert trainer.model.kinds and all(torch.equal(after[name], value) for name, value in before.items() if name in after)
    assert {"encoder", "decoder"} <= {name.split(".")[0] for name in before}
    with torch.no_grad():
        for value in trainer.model.encoder.parameters(): value.zero_()
    with pytest.raises(ValueError, match="`latent` must carry 0.05 nats or more: got 1 .*dead"): trainer.setup.diagnostics.choose(trainer.model, 1)


def test_a_child_that_carries_nothing_leaks_nothing():
    "Its mean still tells trees where the sprite is; a draw of its posterior does not."
    drawn = draw_sprites(400, seed=0, split="test", settings=SpriteSettings(side=16))
    run = CompVAERun().replace({**SMALL, "child": "on", "rival": "none", "condition": "none"})
    model = Levels(run.model, (1, 16, 16), total=400, controls=run.child, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        for value in model.below["child"].posterior.parameters(): value.mul_(0.05)  # all but the prior
    context = Context(live=Live(run), generator=torch.Generator().manual_seed(0), step=1000)
    found = probe_children(model, (drawn.images > 127).float(), context, focus=0, factors=SPRITE_FACTORS, values=drawn.factor_values).figures
    assert found["child_kl"] < 0.05 and max(found["child_leak_x"], found["child_leak_y"], found["child_leak"]) < 0.1


def test_every_leak_and_meter_of_a_measurement_says_what_it_was_read_by():
    "A leak that trees read and one that a line reads must not stand in one column."
    trainer = Trainer(CompVAERun().replace({**SMALL, "images": 64, "child": "on"})).fit(2)
    figures, rulers = trainer.measure().figures, trainer.run.rulers()
    read = [name for name in figures if "_leak" in name or name.startswith("shared_")]
    assert len(read) > 10 and all("draw" in rulers[f"held_out/{name}"] for name in read)
    assert all("trees" in rulers[f"held_out/{name}"] for name in read if "_leak" in name)


def test_the_shape_of_a_mask_is_seen_to_tell_the_place(monkeypatch):
    "By a line of 144 pixels from 192 images it was not: R2 .00 of masks that trees read with .9."
    drawn = draw_sprites(384, seed=0, split="test", settings=SpriteSettings(side=16))
    x, known = (drawn.images > 127).float(), drawn.factor_values
    run = CompVAERun().replace({**SMALL, "child": "on", "rival": "none"})
    model = Levels(run.model, (1, 16, 16), total=400, controls=run.child, generator=torch.Generator().manual_seed(0))
    place = torch.cat([4 * known[:, 3:5] - 2, known[:, 1:3]], 1)
    monkeypatch.setattr(model, "encode", lambda some: Code(place[:len(some)], torch.full_like(place[:len(some)], -4.0)))
    monkeypatch.setattr(model, "keep", lambda code, *_: x[:len(code.mean), 0])
    context = Context(live=Live(run), generator=torch.Generator().manual_seed(0), step=1000)
    shape = probe_children(model, x, context, focus=0, factors=SPRITE_FACTORS, values=known).shape
    assert min(shape["z1"], 1) > 0.8 and set(shape) == {"z1", "z2", "z3"}  # the child's own latent is no nuisance


def test_controls_of_a_child_are_checked():
    with pytest.raises(ValueError, match="`latent` must be a whole number from 0 to 3: got 9"):
        Levels(CompVAESettings(latents=4), (1, 16, 16), total=10, controls=ChildControls(child="on", child_latent=9))


def measured_child(**changes):
    "What is measured of an untrained child, whose tie is far from 0."
    drawn = draw_sprites(120, seed=0, split="test", settings=SpriteSettings(side=16))
    run = CompVAERun().replace({**SMALL, "child": "on", "rival": "none"} | changes)
    model = Levels(run.model, (1, 16, 16), total=120, controls=run.child, generator=torch.Generator().manual_seed(0))
    with torch.no_grad(): model.encoder.dense.rest[-1].bias[len(model.encoder.dense.rest[-1].bias) // 2:] -= 2  # narrower than what reads it
    context = Context(live=Live(run), generator=torch.Generator().manual_seed(0), step=1000)
    return lambda: probe_children(model, (drawn.images > 127).float(), context, focus=0)


def test_swapped_arguments_of_the_tie_are_seen_where_the_loss_is_made(monkeypatch):
    measure = measured_child()
    assert child_calls(measure()).level == "ok"
    monkeypatch.setattr("latentlab.families.compvae.child.kl", lambda q, p: kl(p, q))
    found = child_calls(measure())
    assert found.level == "bad" and "child_tie" in found.sentence and "order of the arguments" in found.remedy


def test_a_term_of_a_child_that_nobody_adds_is_named(monkeypatch):
    measure = measured_child()
    assert child_terms_added(measure()).level == "ok"
    whole = Levels.losses

    def dropped(self, batch, context):
        found = whole(self, batch, context)
        return Terms({name: value for name, value in found.items() if name != "child_kl"}, observed=found.observed)

    monkeypatch.setattr(Levels, "losses", dropped)
    found = child_terms_added(measure())
    assert found.level == "bad" and found.sentence == "not minimised: child_kl"
    monkeypatch.undo()
    light = Levels.settled_weights
    monkeypatch.setattr(Levels, "settled_weights", lambda self, context: light(self, context) | {"child_nll": 0.0})
    assert child_terms_added(measure()).sentence == "not minimised: child_nll"
