"""One explainer for a range of penalty weights: what is drawn and told, what it costs, the path along it, ranks, and what is refused."""
import math

import latentlab as ll
import pytest
import torch
from latentlab.core.batch import Batch, Context
from latentlab.core.settings import Live, Range
from latentlab.core.terms import weighted_sum
from latentlab.facade import make_run
from latentlab.families.nem import diagnostics
from latentlab.families.nem.display import NEMDisplay
from latentlab.families.nem.experiment import NEMRun
from latentlab.families.nem.model import weight_place
from latentlab.metrics.masks import unique_ranks
from latentlab.panels.layout import check_arrays
from latentlab.panels.protocol import Event
from latentlab.train.session import draw_views
from latentlab.train.trainer import Trainer
from test_nem import make, pictures, seeded
from torch import nn


def frontier(images=None, **settings):
    nem = make(images=images, **{"frontier": True} | settings)
    nn.init.normal_(nem.unet.modulation.last.weight, std=0.3, generator=seeded(3))
    return nem


def falling(step):
    "A frontier whose logits at weight w are `step` times the place of w, for every pixel of every image."
    nem = frontier()
    for weight in nem.unet.parameters(): nn.init.zeros_(weight)

    def told(skips, size, place): return (step * place)[:, None, None].expand(len(skips[0]), *size)
    nem.unet.decode = told
    return nem


def test_an_ordinary_explainer_is_told_nothing_and_draws_nothing():
    nem = make()
    assert not any("modulation" in name for name in nem.state_dict()) and not Live(nem.settings).ranges
    plain, told = make().unet.state_dict(), make(frontier=True).unet.state_dict()
    assert all(torch.equal(value, told[name]) for name, value in plain.items())  # and a frontier starts as it


def test_weight_is_what_keeping_all_costs_whatever_the_penalty():
    x, lost = pictures(8), {}
    for penalty in ("kl", "area"):
        nem = make(frontier=True, penalty=penalty, jitter=0)
        nn.init.zeros_(nem.unet.out.weight)
        nn.init.constant_(nem.unet.out.bias, 30.0)
        drawn = torch.logspace(-2, -0.5, 8)
        context = Context(live=Live(nem.settings).with_drawn({"penalty_weight": drawn}), generator=seeded())
        terms, weights = nem.losses(Batch(x=x), context), nem.weights(context)
        lost[penalty] = weighted_sum(terms, weights)
        middle = math.sqrt(0.003 * 0.6)
        assert torch.allclose(lost[penalty], drawn * (drawn / middle) ** -0.5, rtol=1e-3, atol=1e-5)  # the distance is 0
    assert torch.allclose(lost["kl"], lost["area"], rtol=1e-3)


def test_each_image_is_told_its_own_weight():
    nem, x = frontier(), pictures(4)
    code, weights = nem.encoder.both(x), torch.tensor([0.003, 0.02, 0.1, 0.6])
    each = nem.logits(code, x.shape[-2:], None, weights)
    alone = torch.stack([nem.explain(x, weight=float(w)).logits[i] for i, w in enumerate(weights)])
    assert torch.allclose(each, alone, atol=1e-5) and not torch.allclose(each[0], nem.explain(x, weight=0.6).logits[0])
    path = nem.path(code, x.shape[-2:], weights)
    assert torch.allclose(path[torch.arange(4), torch.arange(4)], alone, atol=1e-5)


def test_a_run_draws_its_weights_and_resumes_to_the_bit(tmp_path):
    run = NEMRun().replace({"frontier": True, "images": 64, "batch": 8, "check_every": 4, "checkpoint_every": 4, "device": "cpu"})
    whole = Trainer(run).fit(8, progress=False)
    Trainer(run, folder=tmp_path).fit(4, progress=False)
    again = Trainer(run, folder=tmp_path).resume().fit(4, progress=False)
    assert all(torch.equal(value, again.model.state_dict()[name]) for name, value in whole.model.state_dict().items())
    assert whole.model.unet.modulation.last.weight.abs().sum() > 0  # the weights were told
    assert set(whole.live.ranges) == {"penalty_weight"}
    whole.set(penalty_weight=[0.01, 0.1, "log"]).fit(1, progress=False)
    with pytest.raises(ValueError, match="`weight` must be in 0.01 to 0.1"): whole.model.explain(pictures(1), weight=0.3)
    with pytest.raises(ValueError, match="`penalty_weight` must be a range"): whole.set(penalty_weight=0.1)


def test_nesting_is_0_where_pixels_only_leave_and_1_where_they_only_come():
    x = pictures(3)
    for step, expected in ((-4.0, 0.0), (4.0, 1.0), (0.0, 0.0)):
        path = falling(step).frontier(x, points=5)
        assert torch.allclose(path.nesting, torch.full((3,), expected), atol=1e-5)
        assert torch.allclose(path.area[:, 0], (step * weight_place(path.weights)).sigmoid(), atol=1e-5)


def test_ranks_are_an_order_also_of_saturated_masks():
    nem, x = frontier(), pictures(5)
    nn.init.constant_(nem.unet.out.bias, 100.0)
    ranks, n = nem.rank(x, points=4), 28 * 28
    assert ranks.dtype == torch.float32
    assert torch.equal(ranks.flatten(1).sort(1).values, (torch.arange(1, n + 1).double() / n).float().expand(5, n))
    nem.unet.out.bias.data.fill_(0.0)
    assert torch.allclose(nem.rank(x[1:2])[0], nem.rank(x)[1], atol=4 / n)  # of the image, whatever stands beside it
    nem.unet.out.bias.data.fill_(100.0)
    logits = nem.explain(x).logits
    assert (logits.sigmoid() == 1).all()
    order = unique_ranks(logits.sigmoid(), logits).flatten(1).argsort(1)
    assert (logits.flatten(1).gather(1, order).diff(dim=1) >= 0).all()


def test_the_facade_takes_a_weight(tmp_path):
    trainer = ll.train("nem", frontier=True, images=64, batch=8, steps=2, device="cpu", progress=False)
    x = trainer.setup.preview
    assert torch.equal(ll.explain(trainer, weight=0.1).logits, trainer.model.explain(x, weight=0.1).logits)
    assert not torch.equal(ll.explain(trainer, weight=0.01).logits, ll.explain(trainer, weight=0.1).logits)
    middle = Range(0.003, 0.6, "log").middle
    assert torch.allclose(ll.explain(trainer).logits, ll.explain(trainer, weight=middle).logits, atol=1e-5)
    assert trainer.run.rulers()["held_out/area"] == f"share of pixels, at weight {middle:.3g}"


@pytest.mark.parametrize("call, words", [
    (lambda nem: nem.explain(pictures(1), weight=0.7), "`weight` must be in 0.003 to 0.6, the range that was trained: got 0.7"),
    (lambda nem: nem.explain(pictures(1), weight=0.0), "got 0.0"), (lambda nem: nem.rank(pictures(1), points=1), "`points` must be"),
    (lambda nem: make().frontier(pictures(1)), "Train with frontier=True"),
    (lambda nem: make().explain(pictures(1), weight=0.1), "`weight` must be left out"),
    (lambda nem: make(frontier=True, penalty_weight=Range(0.1, 0.1, "log")), "`penalty_weight` must be a range on a log scale"),
    (lambda nem: make(frontier=True, penalty_weight=Range(0.01, 0.1)), "got 0.01..0.1. Write"),
    (lambda nem: make(frontier=True, kl_scale=0.02), "`kl_scale` must be left at its default for a whole range of weights: got 0.02"),
    (lambda nem: nem.settings.replace(area_scale=0.3), "`area_scale` must be left at its default"),
])
def test_what_is_refused(call, words):
    with pytest.raises(ValueError, match=words): call(frontier())


def test_the_slider_moves_the_masks_and_nothing_trains():
    trainer = Trainer(NEMRun().replace({"frontier": True, "images": 64, "batch": 8, "device": "cpu"}))
    nn.init.normal_(trainer.model.unet.modulation.last.weight, std=0.5, generator=seeded())
    display, first = NEMDisplay(), trainer.snapshot()
    layout, arrays = display.layout(first), display.arrays(first)
    check_arrays(layout, list(arrays))
    assert [part.kind for part in layout.pictures] == ["slider", "lines"] and {"kl_scale", "area_scale"} <= set(layout.hidden)
    assert layout.pictures[1].values == pytest.approx(trainer.model.weight_grid(len(arrays["curve"])).tolist(), rel=1e-5)
    display.on_event(Event("weight", "slide", 0.6), trainer)
    later = trainer.snapshot()
    moved = display.arrays(later)
    assert later.step == first.step and (arrays["curve"] == moved["curve"]).all() and (arrays["rank"] == moved["rank"]).all()
    assert moved["here"] == pytest.approx(moved["curve"][-1], abs=1e-4) and (arrays["keep"] != moved["keep"]).any()
    assert "weight 0.6" in display.notes(later)[0]["text"]
    with torch.no_grad(): trainer.model.unet.out.bias.add_(-3.0)  # as a checkpoint that is loaded: the curve must not be the old one
    assert (display.arrays(trainer.snapshot())["curve"][:, 0] < arrays["curve"][:, 0]).all()
    with pytest.raises(ValueError, match="must have an answer"): display.on_event(Event("curve", "click", 3), trainer)


def test_the_curve_and_the_order_follow_training():
    "Fused kernels move weights without counting it: what was computed of others is never shown again; a second look at the same ones is."
    trainer = Trainer(NEMRun().replace({"frontier": True, "images": 64, "fill": "mean", "device": "cpu"}))
    held, seen = trainer.setup.diagnostics, []
    look = lambda: held.views(trainer.model, Context(live=trainer.live, generator=seeded(0), step=trainer.step_count))
    for steps in (0, 4, 8):
        if steps: trainer.fit(steps, progress=False)
        seen.append(look())
    again = look()
    for name in ("curve", "rank"):
        assert again[name] is seen[2][name] and not torch.equal(seen[0][name], seen[1][name]), name
        assert not torch.equal(seen[1][name], seen[2][name]), name
    assert seen[2]["curve"][:, 0].unique().numel() > 1, "one area for every weight"


def test_one_price_goes_back_where_a_whole_range_is_switched_on():
    moved = NEMRun().replace(kl_scale=0.02, area_scale=0.3)
    whole = moved.replace(frontier=True)
    assert (whole.get("kl_scale"), whole.get("area_scale")) == (NEMRun().get("kl_scale"), NEMRun().get("area_scale"))
    assert moved.replace(width=12).get("kl_scale") == 0.02


def test_the_preset_is_the_one_that_was_measured():
    run = make_run("nem", {"preset": "whole range of weights"})
    assert (run.get("complement_scale"), run.get("penalty_weight"), run.get("fill")) == (0.3, Range(0.03, 1.5, "log"), "mean")


def test_the_curve_is_a_second_old_at_most_while_training_goes_on_and_exact_at_rest(monkeypatch):
    trainer = Trainer(NEMRun().replace({"images": 64, "seed": 0, "frontier": True, "layers": 2, "width": 4, "batch": 8}))
    monkeypatch.setattr(diagnostics, "OLD_ENOUGH", 1e9)
    curve = lambda moving: torch.from_numpy(draw_views(trainer.session, trainer.live, moving=moving)["curve"])
    first = curve(True)
    trainer.fit(5, progress=False)
    assert torch.equal(curve(True), first)  # young
    trainer.set(fill="mean")
    filled = curve(True)
    assert not torch.equal(filled, first)  # a person's own change is seen at once
    trainer.fit(5, progress=False)
    monkeypatch.setattr(diagnostics, "OLD_ENOUGH", 0.0)
    later = curve(True)
    assert not torch.equal(later, filled)
    trainer.fit(5, progress=False)
    monkeypatch.setattr(diagnostics, "OLD_ENOUGH", 1e9)
    exact = curve(False)
    assert not torch.equal(exact, later) and torch.equal(curve(True), exact)
