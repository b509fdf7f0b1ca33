"The explanation of an encoder in training: it changes nothing, says how old it is, and moves onto what decides the label."

import numpy as np
import pytest
import torch
from latentlab.core.batch import Batch, Context
from latentlab.core.runtime import generator
from latentlab.core.settings import Live
from latentlab.data.scenes import SceneSettings, draw_scenes
from latentlab.data.sources import with_images
from latentlab.families.ssl.display import SSLDisplay, age_words
from latentlab.families.ssl.experiment import SSLRun
from latentlab.families.ssl.explain import CopyExplainer
from latentlab.families.ssl.model import SSL, METHOD_TERMS, SSLSettings
from latentlab.metrics.ood import auroc
from latentlab.train.trainer import Trainer

RUN = SSLRun().replace({"data.images": 64, "train.batch": 16, "train.steps": 6, "train.check_every": 3, "device": "cpu"})


@pytest.mark.parametrize("method", METHOD_TERMS)
def test_weights_are_the_same_to_the_bit_with_and_without_it(method):
    "Drawn before each step, with and without an explanation."
    def weights(steps):
        trainer = Trainer(RUN.replace(method=method, explain=steps))
        for _ in range(4):
            trainer.snapshot()
            trainer.fit(1, progress=False)
        return trainer.snapshot().views, trainer.model.state_dict(), trainer

    (plain, without, _), (views, with_it, trainer) = weights(0), weights(2)
    assert "keep" not in plain and views["keep"].shape == (8, 28, 28)
    assert age_words(views["age"]) == "weights of step 4, masking network 2 steps on them, 10 in all"
    assert all(torch.equal(without[name], with_it[name]) for name in without)
    assert METHOD_TERMS[method] in trainer.session.curves.fetch().values


def test_the_panel_has_its_row_and_says_its_age_and_none_when_it_is_off():
    trainer, display = Trainer(RUN.replace(explain=1)), SSLDisplay()
    now = trainer.fit(2, progress=False).snapshot()
    layout, arrays = display.layout(now), display.arrays(now)
    assert layout.rows[-1].key == "keep" and layout.rows[-1].note.startswith("of step 2, 1 of ")
    assert arrays["keep"].dtype == np.uint8 and arrays["keep"].shape == (8, 28, 28) and "behind" in display.notes(now)[0]["text"]
    rows = len(display.figure(now).axes)
    trainer.set(explain=0)
    off = trainer.snapshot()
    assert "keep" not in display.arrays(off) and len(display.layout(off).rows) == 3 and not display.notes(off)
    assert len(display.figure(off).axes) == rows - 8
    assert age_words(np.array([[12, 345], [0, 7], [3, 1]], np.float16)) == "weights of step 12,345, masking network 7 steps on them, 3,001 in all"


def test_supervised_needs_labels():
    with pytest.raises(ValueError, match="images of 0 classes: got supervised"):
        Trainer(with_images(RUN.replace(method="supervised"), torch.zeros(80, 1, 28, 28, dtype=torch.uint8)))


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_it_moves_onto_the_cause_while_a_supervised_encoder_learns(seed):
    "Red objects decide the label: AUROC of their pixels against those of other objects, of the weights at the start and at the end."
    yes = draw_scenes(300, seed=seed, settings=SceneSettings(side=64, must_have="red"))
    no = draw_scenes(900, seed=seed + 1000, settings=SceneSettings(side=64))
    no = no.float()[[i for i in range(900) if not no.colour_mask("red")[i].any()]][:300]
    x, y = torch.cat([yes.float()[50:], no[50:]]), torch.tensor([1] * 250 + [0] * (len(no) - 50))
    held, truth = yes.float()[:50], yes.colour_mask("red")[:50].bool()
    others = yes.masks[:50].bool() & ~truth  # pixels of objects of other colours: before training they are looked at as much
    settings = SSLSettings(method="supervised", shape="scenes", crop=0.8, light=0.1, erase=0.0, blur=0.0)
    model = SSL(settings, generator=generator(seed, "model"), classes=2)
    adam, found = torch.optim.Adam(model.parameters(), lr=3e-3), {}

    def area(step):
        seen = CopyExplainer(x[:256], seed=seed).explain(model.encoder, held, steps=150, at=step)
        found[step] = auroc(seen.logits[others], seen.logits[truth])
        print(f"seed {seed}, step {step}: AUROC {found[step]:.3f}, against all {auroc(seen.logits[~truth], seen.logits[truth]):.3f}, kept {seen.keep.mean():.2f}", flush=True)

    area(0)
    for step in range(1, 301):
        rows = torch.randperm(len(x), generator=generator(seed, "batch", step))[:64]
        context = Context(live=Live(settings), generator=generator(seed, "step", step))
        loss = model.losses(Batch(x=x[rows], y=y[rows]), context)["cross_entropy"].mean()
        adam.zero_grad()
        loss.backward()
        adam.step()
        if step == 300: print(f"seed {seed}: cross entropy {loss.item():.3f}")
    area(300)
    assert found[300] > 0.8 and found[300] > found[0] + 0.1
