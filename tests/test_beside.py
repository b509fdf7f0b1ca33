"Another method's map and a painted mask beside the learned one: what is sent, what a stroke changes, and what is refused."
import numpy as np
import pytest
import torch
from latentlab.families.nem.beside import METHODS
from latentlab.families.nem.display import NEMDisplay
from latentlab.families.nem.experiment import NEMRun
from latentlab.families.nem.model import NEMSettings
from latentlab.metrics.attribution import UNTRAINED_MAPS
from latentlab.panels.layout import check_arrays
from latentlab.panels.protocol import Event
from latentlab.train.trainer import Trainer


@pytest.fixture(scope="module")
def trainer():
    return Trainer(NEMRun().replace({"images": 64, "seed": 0, "model.fill": "mean"})).fit(2, progress=False)


def look(trainer, **live):
    trainer.set(**live)
    snapshot = trainer.snapshot()
    layout, arrays = NEMDisplay().layout(snapshot), NEMDisplay().arrays(snapshot)
    check_arrays(layout, list(arrays))
    return layout, arrays, snapshot


def test_every_method_of_the_list_can_be_chosen_and_drawn(trainer):
    choices = NEMSettings.__dataclass_fields__["beside"].type.__args__
    assert choices == ("none", *METHODS) and set(METHODS) == {"painted", *UNTRAINED_MAPS} - {"constant"}
    plain = [row.key for row in look(trainer, beside="none")[0].rows]
    for method in METHODS:
        layout, arrays, snapshot = look(trainer, beside=method)
        rows = {row.key: row for row in layout.rows}
        assert list(rows)[:3] == ["image", "keep", "beside"] and set(plain) < set(rows)
        if method == "painted": continue
        assert METHODS[method] == rows["beside"].label and " ms" in rows["beside"].note
        kept = [(arrays[name] / 255).mean((1, 2)) for name in ("beside", "keep")]
        assert np.allclose(*kept, atol=0.004)  # a byte of each pixel, and half a pixel
    assert [row.key for row in look(trainer, beside="none")[0].rows] == plain


def test_a_stroke_moves_what_is_lost_and_the_pad_holds_what_was_painted(trainer):
    _, before, _ = look(trainer, beside="painted")
    assert np.array_equal(before["pad"], before["keep"])
    display, blank = NEMDisplay(), bytes(28 * 28)
    display.on_event(Event("pad", "paint", 3, blank), trainer)
    display.on_event(Event("pad", "paint", 4, b"\xff" * 784), trainer)
    _, after, snapshot = look(trainer)
    assert not after["pad"][3].any() and (after["pad"][4] == 255).all() and np.array_equal(after["pad"][0], before["pad"][0])
    assert after["beside_soft"][3] > 5 * before["beside_soft"][3] and after["beside_units"][3] > 0.3
    assert abs(after["beside_soft"][4]) < 1e-5 and np.array_equal(after["nearest"][4], after["nearest_left"][4])
    assert np.allclose(after["beside_soft"][0], before["beside_soft"][0]) and np.allclose(after["keep_soft"], before["keep_soft"])
    assert any("nearest training images" in note["text"] for note in display.notes(snapshot))
    display.on_event(Event("threshold", "slide", 0.5), trainer)
    _, start, _ = look(trainer)
    assert ((start["pad"] == 255).sum((1, 2)) == 392).all() and set(np.unique(start["pad"])) == {0, 255}
    order = start["rank"].astype(int)
    assert order[start["pad"] == 255].reshape(8, -1).min() >= order[start["pad"] == 0].reshape(8, -1).max()
    look(trainer, beside="none")
    _, again, _ = look(trainer, beside="painted")
    assert np.array_equal(again["pad"], again["keep"])  # put away, it begins anew


def test_what_is_trained_does_not_see_what_is_shown():
    "Neither where it is chosen beforehand, nor where it is moved on the way: Adam goes on, as it does not after another change."
    ends = []
    for change in ({}, {"beside": "painted"}, {"beside": "random"}, {"kl_scale": 0.006}):
        trainer = Trainer(NEMRun().replace({"images": 64, "seed": 0}))
        trainer.fit(2, progress=False).set(change).snapshot()
        if "kl_scale" in change: trainer.set(kl_scale=NEMRun().get("kl_scale"))
        ends.append(torch.cat([weight.flatten() for weight in trainer.fit(2, progress=False).model.unet.parameters()]))
    assert torch.equal(ends[0], ends[1]) and torch.equal(ends[0], ends[2]) and not torch.equal(ends[0], ends[3])
    chosen = Trainer(NEMRun().replace({"images": 64, "seed": 0, "model.beside": "random"})).fit(4, progress=False)
    assert torch.equal(ends[0], torch.cat([weight.flatten() for weight in chosen.model.unet.parameters()]))


def test_a_method_without_a_map_and_another_question_are_said(trainer):
    _, _, snapshot = look(trainer, beside="relax")
    gone = {name: view for name, view in snapshot.views.items() if not name.startswith("beside")}
    snapshot.__dict__["views"] = gone
    display = NEMDisplay()
    assert [row.key for row in display.layout(snapshot).rows] == ["image", "keep", "seen", "rank"] and "pad" not in display.arrays(snapshot)
    assert any("No map of RELAX" in note["text"] and note["loud"] for note in display.notes(snapshot))
    latents = Trainer(NEMRun().replace({"images": 64, "model.target": "latents:0,1", "model.beside": "gradient"})).fit(1, progress=False)
    assert any("explains the whole embedding" in note["text"] for note in display.notes(latents.snapshot()))
