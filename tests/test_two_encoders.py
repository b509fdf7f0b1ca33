"Two encoders beside each other: the difference lies where they differ, the first explainer does not see the second, and what is refused."
import functools

import numpy as np
import pytest
import torch
from latentlab.contract import all_weights, check_family, same_weights
from latentlab.core.batch import Context
from latentlab.core.settings import Range
from latentlab.data.images import load
from latentlab.data.sources import with_images
from latentlab.facade import make_run
from latentlab.families.nem import experiment
from latentlab.families.nem.display import NEMDisplay
from latentlab.families.nem.experiment import NEMRun
from latentlab.families.nem.matched import FAR, ComparedMasks, match_masks
from latentlab.nn.encoders import FrozenEncoder
from latentlab.panels.layout import check_arrays
from latentlab.panels.protocol import Event
from latentlab.train.trainer import Trainer
from test_nem import seeded
from torch import nn

RANGE = {"frontier": True, "fill": "mean", "distance": "calibrated", "penalty_weight": Range(0.05, 9.0, "log")}
SMALL = {**RANGE, "images": 64, "batch": 8, "device": "cpu", "check_every": 4, "checkpoint_every": 4}


class Half(nn.Module):
    "The picture in cells of 2 x 2, of the upper or the lower half alone. Its maps show all of the picture, and where it is."

    def __init__(self, lower):
        super().__init__()
        self.fine, self.middle = nn.Conv2d(2, 4, 3, padding=1), nn.Conv2d(4, 8, 3, padding=1, stride=2)
        for layer in (self.fine, self.middle): nn.init.normal_(layer.weight, std=0.3, generator=seeded(1))
        self.register_buffer("rows", torch.linspace(0, 1, 16)[:, None].expand(16, 16))
        self.lower = lower

    def forward(self, x):
        maps = self.middle(self.fine(torch.cat([x, x + self.rows], 1)).relu())
        cells = nn.functional.avg_pool2d(x[:, 0], 2)
        return (cells[:, 4:] if self.lower else cells[:, :4]).flatten(1) + 0 * maps.mean()


def half(lower): return FrozenEncoder(Half(lower), maps=["fine", "middle"], embed="output", name="lower" if lower else "upper")


@functools.cache
def garments(): return load("fashion-mnist", limit=300).resize(16)


def look(trainer):
    snapshot, display = trainer.snapshot(), NEMDisplay()
    layout, arrays = display.layout(snapshot), display.arrays(snapshot)
    check_arrays(layout, list(arrays))
    return layout, arrays, snapshot


def test_the_difference_lies_where_the_encoders_differ(monkeypatch):
    "The first sees the upper half of a picture and nothing else, the second the lower one."
    monkeypatch.setattr(experiment, "encoder_for", lambda name, data, device: half(lower=True))
    run = with_images(NEMRun().replace({**SMALL, "against": "lower", "layers": 2, "batch": 32, "learning_rate": 1e-2, "mask_bias": 0.0, "check_every": 100,
                                            "checkpoint_every": 100}), garments())
    trainer = Trainer(run, build=lambda run, device: run.build(device, encoder=half(lower=False))).fit(60, progress=False)
    views = trainer.snapshot().views
    apart = torch.from_numpy(views["keep"] - views["second"])
    share = lambda part, rows: (part.clamp_min(0)[:, rows].sum() / part.clamp_min(0).sum()).item()  # of what one keeps more
    upper, lower = share(apart, slice(0, 8)), share(-apart, slice(8, 16))
    assert views["matched"].all() and min(upper, lower) > 0.9 and apart[:, :8].mean() > 0.2, (upper, lower)
    assert abs(views["reached"] - FAR).max() < 0.02
    found = match_masks(trainer.model, trainer.model.second, trainer.setup.preview, FAR)
    assert found.difference[:, :8].mean() > 0.2 and found.difference[:, 8:].mean() < -0.2 and found.matched.all()
    figures = trainer.measure().figures
    assert min(figures["matched"], figures["second_matched"]) > 0.9 and min(figures["matched_alone"], figures["second_matched_alone"]) > 0.1


def test_nothing_of_the_first_explainer_depends_on_the_second(tmp_path):
    "Weights, moments, curves and held-out figures are equal to the bit; and a run with both resumes to the bit."
    run = NEMRun().replace({**SMALL, "against": "swav"})
    both, alone = Trainer(run).fit(8, progress=False), Trainer(run.replace(against="none")).fit(8, progress=False)
    assert same_weights({name: value for name, value in both.model.state_dict().items() if not name.startswith("second")},
                        alone.model.state_dict())
    one, other = (trainer.session.optimisers[0].state_dict()["state"] for trainer in (both, alone))
    assert all(torch.equal(one[k][name], other[k][name]) for k in one for name in one[k])
    curves = both.snapshot().curves.values
    assert {"distance", "second_distance", "loss", "loss_second"} <= set(curves)
    for name, values in alone.snapshot().curves.values.items(): assert np.array_equal(curves[name], values, equal_nan=True), name
    figures, expected = (trainer.session.measurements[-1].figures for trainer in (both, alone))
    assert expected.items() <= figures.items() and figures["second_distance_hard"] != figures["distance_hard"]
    Trainer(run, folder=tmp_path).fit(4, progress=False)
    assert same_weights(all_weights(Trainer(run, folder=tmp_path).resume().fit(4, progress=False)), all_weights(both))
    ends = [list(model.unet.parameters()) for model in (both.model, both.model.second)]
    assert not any(torch.equal(a, b) for a, b in zip(*ends) if a.shape == b.shape and a.any())  # trained, each in its own way


def test_a_family_of_two_encoders_keeps_the_contract(tmp_path):
    assert len(list(check_family(NEMRun().replace({**SMALL, "against": "swav"}), tmp_path))) == 6


@pytest.mark.parametrize(("changes", "words"), [
    ({"frontier": False, "penalty_weight": 0.1}, r"`against` must be none for an explainer of one weight: got 'swav'. .* set frontier=True"),
    ({"target": "pair"}, "`against` must be none for the target pair: got 'swav'"),
    ({"target": "latents:0,1"}, "`against` must be none for the target latents:0,1"),
    ({"against": "dino"}, "`against` must be an encoder of the same images: got 'dino'. `name` must be a known encoder"),
    ({"against": "planted:red"}, r"`against` must be an encoder of the same images: got 'planted:red'. .*3 channels for this encoder: got 1"),
])
def test_what_is_refused(changes, words):
    with pytest.raises(ValueError, match=words): NEMRun().replace({**SMALL, "against": "swav", **changes}).build("cpu")


def test_an_encoder_beside_itself_shows_what_training_makes_of_it():
    "With the first one's weights there is no difference at all; with its own there is, and it is said why."
    trainer = Trainer(NEMRun().replace({**SMALL, "against": "simclr"})).fit(4, progress=False)
    layout, arrays, snapshot = look(trainer)
    assert (arrays["keep"] != arrays["second"]).any() and layout.rows[2].label == "SimCLR again"
    assert any(note["loud"] and "Both encoders are SimCLR" in note["text"] for note in NEMDisplay().notes(snapshot))
    trainer.model.second.load_state_dict({name: value for name, value in trainer.model.state_dict().items() if not name.startswith("second")})
    _, arrays, snapshot = look(trainer)
    assert np.array_equal(arrays["keep"], arrays["second"]) and np.array_equal(arrays["keep_reached"], arrays["second_reached"])


def test_the_slider_moves_the_pictures_and_nothing_that_is_trained():
    run = NEMRun().replace({**SMALL, "against": "untrained", "batch": 32, "check_every": 100, "checkpoint_every": 100})
    trainer, still = (Trainer(run).fit(25, progress=False) for _ in range(2))
    display, (layout, before, _) = NEMDisplay(), look(trainer)
    (slider, curve), rows = layout.pictures, {row.key: row for row in layout.rows}
    assert (slider.name, slider.low, slider.high, slider.value, curve.slides) == ("far", 0.05, 1.0, 0.3, "far")
    assert (rows["keep"].label, rows["second"].label, rows["difference"].ends) == ("SimCLR", "untrained", ("SimCLR", "untrained"))
    measured = trainer.measure().figures
    display.on_event(Event("far", "slide", 0.6), trainer)
    _, after, snapshot = look(trainer)
    assert (after["keep"] != before["keep"]).any() and (after["second"] != before["second"]).any()
    assert after["needs_here"][0] == np.float32(0.6) and (after["needs_here"][1:] < before["needs_here"][1:]).all()
    assert np.array_equal(after["needs"], before["needs"])  # no path was computed for it
    for name in ("keep", "second"):  # what is said below an image is what its mask costs
        good = after["matched"] > 0
        assert good.any() and abs(after[f"{name}_reached"] - 0.6)[good].max() <= 0.05
    assert any("cost D~ 0.6" in note["text"] for note in display.notes(snapshot))
    lost = 1 + np.flatnonzero(after["matched"] == 0)
    assert all(any(str(i) in note["text"] and "Not compared" in note["text"] for note in display.notes(snapshot)) for i in lost)
    assert trainer.measure().figures == measured  # figures have a D~ of their own
    for name, (one, other) in display.table(trainer.snapshot()).items(): assert (one, other) == (measured[name], measured[f"second_{name}"]) and one != other
    assert same_weights(all_weights(trainer.fit(2, progress=False)), all_weights(still.fit(2, progress=False)))
    with pytest.raises(ValueError, match="`far` must be above 0 and below 2: got 0"): display.on_event(Event("far", "slide", 0.0), trainer)


def test_an_image_that_cannot_be_matched_is_said_so():
    "A range of weights that is far too cheap: nothing costs a D~ of 1."
    trainer = Trainer(NEMRun().replace({**SMALL, "against": "swav", "penalty_weight": Range(0.001, 0.002, "log"), "mask_bias": 6.0}))
    trainer.setup.diagnostics.comparison.move(1.0)
    _, arrays, snapshot = look(trainer)
    assert not arrays["matched"].any() and arrays["keep_reached"].max() < 0.9
    (note,) = [note for note in NEMDisplay().notes(snapshot) if "Not compared" in note["text"]]
    assert "images 1, 2, 3, 4, 5, 6, 7, 8 (SimCLR is at" in note["text"]
    figures = trainer.measure().figures
    assert figures["matched"] == 0 and np.isnan(figures["matched_area"]) and figures["second_area"] > 0.9
    figure = NEMDisplay().figure(snapshot)
    words, notes = [text.get_text() for text in figure.texts], [f"D~ {np.median(one):.2f}" for one in snapshot.views["reached"]]
    assert [words[words.index(name) + 1] for name in ("SimCLR", "SwAV")] == notes and notes[0] != notes[1] and figure.axes


def test_while_training_goes_on_paths_are_a_second_old_at_most():
    trainer = Trainer(NEMRun().replace({**SMALL, "against": "swav"})).fit(2, progress=False)
    screen = ComparedMasks(preview=trainer.setup.preview, every=1000.0)
    seen = lambda moving: screen.views(trainer.model, Context(live=trainer.live, generator=seeded(), moving=moving))
    first = seen(True)
    trainer.fit(3, progress=False)
    assert seen(True)["keep"] is first["keep"]  # the second has not passed
    rest = seen(False)
    assert not torch.equal(rest["keep"], first["keep"]) and seen(False)["keep"] is rest["keep"]  # at rest it is exact, and computed once
    trainer.set(fill="zero")
    assert not torch.equal(seen(True)["needs"], rest["needs"])  # another fill is another question


def test_the_preset_compares_two_encoders():
    run = make_run("nem", {"preset": "two encoders"})
    assert (run.encoder, run.against, run.model.distance, run.model.frontier) == ("simclr", "swav", "calibrated", True)
    rulers = run.rulers()
    assert rulers["held_out/second_area"] != rulers["held_out/area"] and "loss_second" in rulers
