"""Encoders in the shape of a ViT and of a ResNet, their weights set by hand so that red objects alone matter: is that what the explanation finds?"""
import pytest
import torch
from latentlab.data.scenes import SceneSettings, draw_scenes
from latentlab.data.sources import with_images
from latentlab.families.nem.experiment import NEMRun
from latentlab.metrics.masks import top_share
from latentlab.nn.encoders import wrap_encoder
from latentlab.nn.planted import PLANTED, PlantedEncoder
from latentlab.train.trainer import Trainer
from torch import nn

RED, THRESHOLD = PLANTED["red"]
TOP = 1 - THRESHOLD  # Of a pixel that is purely red


def to_one(weight, *places):
    "Weights of 0 but for some places."
    with torch.no_grad():
        weight.zero_()
        for *place, value in places: weight[tuple(place)] = value


class RedViT(nn.Module):
    """Patches of 4 px, a class token, a block that looks at each patch (how red is each of its 16 pixels), and a block in which 16 heads of the class token
    look at one place of a 4 x 4 grid each. Every number is a token's: 16 pixels, 16 places, and the 16 answers of the class token.
    """

    def __init__(self, side=32, patch=4):
        super().__init__()
        pixels, rows = patch * patch, side // patch
        self.patch, self.cls_token = nn.Conv2d(3, pixels, patch, patch), nn.Parameter(torch.zeros(1, 1, 3 * pixels + 1))
        self.place = nn.Parameter(torch.zeros(1, 1 + rows * rows, 3 * pixels + 1))
        self.look, self.ask = nn.Linear(3 * pixels + 1, 3 * pixels + 1), nn.Linear(3 * pixels + 1, 16, bias=False)
        self.blocks = nn.ModuleList([nn.Identity(), nn.Identity()])  # what leaves each block
        self.pixels = pixels
        to_one(self.patch.weight, *((k, channel, k // patch, k % patch, RED[channel] / TOP) for k in range(pixels) for channel in range(3)))
        to_one(self.patch.bias, *((k, -THRESHOLD / TOP) for k in range(pixels)))
        grid = [(1 + r * rows + c, pixels + 4 * (r * 4 // rows) + c * 4 // rows) for r in range(rows) for c in range(rows)]
        to_one(self.place, *((0, token, place, 1.0) for token, place in grid))
        to_one(self.look.weight, *((k, k, 1.0) for k in range(3 * pixels + 1)))
        to_one(self.look.bias)
        to_one(self.ask.weight, *((head, pixels + head, 30.0) for head in range(16)))
        to_one(self.cls_token, (0, 0, 3 * pixels, 1.0))

    def forward(self, x):
        h = self.patch(x).flatten(2).mT
        h = torch.cat([h, h.new_zeros(*h.shape[:2], 2 * self.pixels + 1)], -1)
        h = torch.cat([self.cls_token.expand(len(x), -1, -1), h], 1) + self.place
        h = self.blocks[0](self.look(h).relu())
        heads = self.ask(h).softmax(1).mT  # [batch, head, token]: the places that a head looks at
        answers = (heads @ h[..., :self.pixels]).mean(-1)
        class_token = torch.cat([h[:, :1, :2 * self.pixels], 4 * answers[:, None], h[:, :1, 3 * self.pixels:]], -1)
        return self.blocks[1](torch.cat([class_token, h[:, 1:]], 1))[:, 0]


class RedResNet(nn.Module):
    "A stem, three residual stages with strided shortcuts and branches that add nothing, and local means."

    def __init__(self, side=32):  # it reads any
        super().__init__()
        self.stem, self.relu = nn.Conv2d(3, 4, 2, 2), nn.ReLU()
        self.branches, self.shortcuts = (nn.ModuleList([nn.Conv2d(4, 4, *kind) for _ in range(2)]) for kind in ((3, 2, 1), (2, 2)))
        self.stages = nn.ModuleList([nn.Identity(), nn.Identity()])
        to_one(self.stem.weight, *((k, channel, k // 2, k % 2, RED[channel] / TOP) for k in range(4) for channel in range(3)))
        to_one(self.stem.bias, *((k, -THRESHOLD / TOP) for k in range(4)))
        for branch, shortcut in zip(self.branches, self.shortcuts):
            to_one(shortcut.weight, *((k, k, r, c, 0.25) for k in range(4) for r in (0, 1) for c in (0, 1)))
            for weight in (branch.weight, branch.bias, shortcut.bias): to_one(weight)

    def forward(self, x):
        h = self.relu(self.stem(x))
        for branch, shortcut, stage in zip(self.branches, self.shortcuts, self.stages): h = stage(shortcut(h) + branch(h))
        return nn.functional.pad(4 * nn.functional.adaptive_avg_pool2d(h.mean(1, keepdim=True), 4).flatten(1), (0, 1), value=1.0)


def explained(module, maps, steps, layers, seed=0, side=64):
    "Mean share of the top pixels that lie on the cause, of 32 held-out scenes, before and after training."
    scenes = draw_scenes(296, seed=seed, settings=SceneSettings(side=side, must_have="red"))
    encoder = wrap_encoder(module, maps=maps, size=side)
    run = NEMRun().replace({"train.batch": 16, "model.layers": layers, "model.width": 8, "train.check_every": 1000, "train.device": "cpu",
                            "train.learning_rate": 1e-2, "train.seed": seed})
    trainer = Trainer(with_images(run, scenes), build=lambda run, device: run.build(device, encoder=encoder))
    held = trainer.setup.held_out
    truth = PlantedEncoder("red").cause(held)
    share = lambda: top_share(trainer.model.explain(held).logits, truth).mean().item()
    before = share()
    trainer.fit(steps, progress=False)
    return before, share()


@pytest.mark.parametrize("module", [RedViT, RedResNet])
def test_they_answer_to_red_alone(module):
    x = draw_scenes(8, seed=1, settings=SceneSettings(side=32, must_have="red")).float()
    truth, encoder = PlantedEncoder("red").cause(x), module().eval()
    x = x.clone().requires_grad_()
    slope = torch.autograd.grad(encoder(x).sum(), x)[0].abs().sum(1) > 1e-6
    assert torch.equal(slope, truth), (slope.sum(), truth.sum())


@pytest.mark.slow
@pytest.mark.parametrize("module, maps, steps", [(RedViT, ["blocks.0", "blocks.1"], 150), (RedResNet, ["relu", "stages.0", "stages.1"], 100)])
def test_the_explanation_finds_the_cause(module, maps, steps):
    before, after = explained(module(64), maps, steps, layers=2)
    assert after >= 0.85 and before < 0.5, (before, after)
