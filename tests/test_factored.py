"""Images drawn from known factors: the truth fits the pixels, stays with them, and any family can be given both."""

import dataclasses

import pytest
import torch

import latentlab as ll
from latentlab.core.factors import check_values, decode_values, encode_values, factor_errors
from latentlab.data.batches import Batches
from latentlab.data.binarise import make_prepare, without
from latentlab.data.causal import pendulum
from latentlab.data.factored import FactoredImages, true_change
from latentlab.data.sources import DataSettings, open_images
from latentlab.data.sprites import SPRITES, sprites, sprites_for_test

NAMES = ("sprites", "sprites-correlated", "pendulum", "flow")


@pytest.mark.parametrize("name", NAMES)
def test_a_drawn_set_keeps_its_truth(name):
    images = open_images(name, "train", 40, side=32)
    assert isinstance(images, FactoredImages) and images.images.shape[-2:] == (32, 32) and len(images) == 40
    check_values(images.factors, images.factor_values)
    assert images.masks.max() == len(images.objects) and images.masks.dtype == torch.uint8
    again = images.subset([3, 3, 0])
    assert torch.equal(again.factor_values, images.factor_values[[3, 3, 0]]) and torch.equal(again.masks, images.masks[[3, 3, 0]])
    small = images.resize(16)
    assert torch.equal(small.factor_values, images.factor_values) and small.masks.shape == (40, 16, 16)
    shares = [(part.masks == 1).float().mean() for part in (images, small)]
    assert abs(shares[0] - shares[1]) < 0.01, "an object keeps its share of the picture"
    assert set(images.table()) == {f.name for f in images.factors} and len(images.table()[images.factors[0].name]) == 40


@pytest.mark.parametrize("name", NAMES)
def test_training_and_test_images_differ_and_repeat(name):
    train, test = (open_images(name, split, 300, side=32) for split in ("train", "test"))
    rows = {tuple(row) for row in train.factor_values.tolist()}
    assert not rows & {tuple(row) for row in test.factor_values.tolist()}
    assert torch.equal(open_images(name, "train", 300, side=32).images, train.images)
    assert torch.equal(ll.images(name, limit=300).factor_values, train.factor_values), "the side changes pixels, not which images"


@pytest.mark.parametrize("name", NAMES)
def test_a_step_sees_the_factors(name):
    images = DataSettings(name=name, images=64).open("train", side=16)
    extra = {"factors": images.factor_values, "objects": images.masks}
    batch = Batches(images.images, 8, 0, labels=images.labels, extra=extra, prepare=make_prepare("dynamic", 0)).at(9)
    assert torch.equal(batch.extra["factors"], images.factor_values[batch.index])
    assert torch.equal(batch.extra["objects"], images.masks[batch.index]) and set(batch.x.unique().tolist()) <= {0.0, 1.0}


@pytest.mark.parametrize("name", NAMES)
def test_factors_are_coded_and_read_back(name):
    images = open_images(name, "test", 200, side=16)
    coded = encode_values(images.factors, images.factor_values)
    assert coded.abs().max() <= 1
    assert factor_errors(images.factors, decode_values(images.factors, coded), images.factor_values).max() < 1e-5


def test_classes_are_left_out_with_their_factors():
    parts = without(open_images("sprites", "train", 300, side=16), ["heart"])
    assert set(parts.left_out.column("shape").tolist()) == {2.0} and 2.0 not in parts.kept.column("shape")


def test_factors_must_fit_their_images(unchecked):
    images = open_images("sprites", "train", 4, side=16)
    with pytest.raises(ValueError, match="must have one length: got"):
        dataclasses.replace(images, factor_values=images.factor_values[:3])
    with pytest.raises(ValueError, match=r"`values` must be \[batch, 5\], shape, scale, orientation, x, y: got \(4, 4\)"):
        dataclasses.replace(images, factor_values=images.factor_values[:, :4])


def test_a_factor_acts_at_the_edges_of_its_object():
    "Moving or scaling a sprite changes its border and not its middle; moving the light leaves the shadow alone."
    images = open_images("sprites", "test", 60, side=32)
    big = images.subset((images.column("scale") > 0.75).nonzero().flatten())
    for name in ("x", "y", "scale", "orientation"):
        change = true_change(sprites(), big.factor_values, name, side=32)
        near = torch.nn.functional.max_pool2d(big.masks[:, None].float(), 5, 1, 2)[:, 0]
        deep = -torch.nn.functional.max_pool2d(-big.masks[:, None].float(), 7, 1, 3)[:, 0]
        assert (change > 0.1).any() and not (change * (1 - near) > 0.1).any(), name
        assert not (change * deep > 0.1).any(), name
    world = pendulum()
    values = world.sample(20, seed=0)
    change = true_change(world, values, "light_angle", side=32)
    assert (change[:, :8] > 0.1).flatten(1).any(1).all() and not change[:, 8:].any()


@pytest.mark.parametrize("name", ("sprites", "sprites-correlated"))
def test_no_test_sprite_is_drawn_for_training(name):
    held = sprites_for_test()
    assert held.sum() == SPRITES // 10
    assert not held[open_images(name, "train", 2000, side=16).indices].any() and held[open_images(name, "test", 500, side=16).indices].all()
