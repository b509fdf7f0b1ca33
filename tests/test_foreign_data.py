"""Images, labels, masks and truths as other libraries give them: one unit behind the door, or a refusal by name. Each was
reported by users of neighbouring tools, or is another face of the same fault.
"""
import dataclasses
import functools

import numpy as np
import pytest
import torch
from latentlab.core.arrays import read_array
from latentlab.data.batches import Batches
from latentlab.data.images import ImageSet, as_image_set, load
from latentlab.data.scenes import draw_scenes
from latentlab.data.sources import with_images
from latentlab.facade import pixels_of
from latentlab.families.nem.experiment import NEMRun
from latentlab.metrics.masks import pointing_game, relevance_mass, top_share
from latentlab.metrics.ood import auprc, auroc, compare_sets

pytestmark = pytest.mark.usefixtures("unchecked")  # the values are of types that a user may hand over, and our annotations do not name
TINY = NEMRun().replace({"model.layers": 2, "model.width": 4, "train.batch": 8})


@functools.cache
def all_garments(): return load("fashion-mnist", "test", limit=60).images


def garments(n=60): return all_garments()[:n].clone()


def own(images, **more): return ImageSet(name="own", split="train", images=images, **more)


# Pixels -------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("given", [
    lambda x: x, lambda x: x.float() / 255, lambda x: x.double() / 255, lambda x: (x.float() / 255).numpy(), lambda x: x.long(),
    lambda x: x.numpy().astype(">i4"), lambda x: x.numpy()[::-1][::-1], lambda x: (x.float() / 255).half()])
def test_what_is_trained_on_is_what_is_shown_whatever_type_it_came_in(given):
    x = garments()
    setup = with_images(TINY, own(given(x))).build("cpu")
    held = torch.arange(len(x)) % 5 == 4
    assert setup.batches.images.dtype == torch.uint8 and (setup.batches.images.int() - x[~held].int()).abs().max() <= 1
    assert setup.preview.max() > 0.9 and setup.batches.at(0).x.max() > 0.9 and setup.model.fill.mean.max() > 0.1
    everything = torch.cat([setup.preview, setup.held_out])
    assert abs(everything.mean() - x[held].float().mean() / 255) < 2e-3


def test_pixels_alone_are_a_set():
    x = garments()
    assert torch.equal(as_image_set(x).images, x) and as_image_set(x.numpy()).classes == ("no label",)
    assert with_images(TINY, x.float() / 255).build("cpu").info["columns"].startswith("no label")


@pytest.mark.parametrize("given, rule", [
    (lambda x: x.float(), "must be bytes from 0 to 255, or floats in [0, 1]: got torch.float32 from 0 to 255"),
    (lambda x: x.float() / 255 / 255, "as if divided by 255 twice"),
    (lambda x: (x.float() / 255 - 0.2860) / 0.3530, "undo a normalisation"),
    (lambda x: x.float() / 127.5 - 1, "from -1 to 1"),
    (lambda x: (x > 100).to(torch.uint8), "whole numbers of at most 1"),
    (lambda x: x.long() - 1, "from -1 to 254"),
    (lambda x: x.long() * 257, "Scale them"),
    (lambda x: x.permute(0, 2, 3, 1), "channels come last"),
    (lambda x: x[:, 0], "Add axes of size 1"),
    (lambda x: x.float() / 255 / 0, "must be bytes"),
    (lambda x: "images.npy", "`images` must be an array of numbers: got str"),
])
def test_pixels_that_can_be_read_in_two_ways_are_refused(given, rule):
    with pytest.raises(ValueError) as error: with_images(TINY, own(given(garments()))).build("cpu")
    assert "`images`" in str(error.value) and rule in str(error.value)


def test_bits_become_black_and_white():
    x = garments() > 100
    assert own(x).images.unique().tolist() == [0, 255]


def test_floats_between_levels_are_rounded_and_the_set_says_so():
    x = torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    assert "256 levels" in own(x).source and (own(x).float() - x).abs().max() <= 0.5 / 255 + 1e-6
    assert "256 levels" not in own((x * 255).round() / 255).source


@pytest.mark.parametrize("given", [lambda x: x / 255, lambda x: (x * 255 > 100).to(torch.uint8)])
def test_batches_refuse_what_is_nearly_black(given):
    with pytest.raises(ValueError, match="above a level of 1/255"): Batches(given(garments().float() / 255), 8, 0)


def test_the_facade_reads_one_unit():
    x, model = garments(4), torch.nn.Linear(1, 1)
    assert torch.equal(pixels_of(x, model), pixels_of(x.numpy(), model)) and pixels_of(x, model).max() <= 1
    with pytest.raises(ValueError, match="must be uint8 from 0 to 255, or floats: got torch.int64"): pixels_of(x.long(), model)


# Labels -------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("label, got", [(-1, "got -1"), (7, "got 7"), (2, "got 2")])
def test_a_label_names_a_class(label, got):
    labels = torch.zeros(60, dtype=torch.long)
    labels[3] = label
    with pytest.raises(ValueError, match=f"`labels` must be from 0 to 1.*{got} for image 3"): own(garments(), labels=labels,
                                                                                                  classes=("cat", "dog"))


@pytest.mark.parametrize("labels", [np.arange(60, dtype=np.uint8) % 2, [i % 2 for i in range(60)],
                                    (torch.arange(60) % 2).to(torch.int32), (np.arange(60) % 2)[::-1][::-1]])
def test_labels_of_any_whole_type(labels):
    found = own(garments(), labels=labels, classes=("cat", "dog")).labels
    assert found.dtype == torch.int64 and found.tolist() == [i % 2 for i in range(60)]


@pytest.mark.parametrize("labels, rule", [
    (torch.zeros(60), "must be whole numbers"), (torch.zeros(60, 2, dtype=torch.long), "one number for each image"), (None, "must be given")])
def test_labels_that_are_none(labels, rule):
    with pytest.raises(ValueError, match=rule): own(garments(), labels=labels, classes=("cat", "dog"))


# Masks, boxes, truths -----------------------------------------------------------------------------------------------

@pytest.mark.parametrize("given", [lambda m: m, lambda m: 255 * m, lambda m: m.bool(), lambda m: m.float(), lambda m: m[:, None],
                                   lambda m: (255 * m).numpy(), lambda m: m.long()])
def test_a_mask_survives_a_change_of_size(given):
    x = garments(20)
    mask = (x[:, 0] > 50).to(torch.uint8)
    found = own(x, masks=given(mask))
    assert torch.equal(found.masks, mask) and torch.equal(found.resize(14).masks, own(x, masks=mask).resize(14).masks)
    assert abs(found.resize(14).masks.float().mean() - mask.float().mean()) < 0.05


@pytest.mark.parametrize("given, rule", [
    (lambda m: 128 * m, "got the value 128"), (lambda m: torch.where(m == 1, 1, 255) * (torch.arange(28) > 3), "0, 1 and 255 together"),
    (lambda m: m + 1, "got the value 2"), (lambda m: m * 0.5, "got the value 0.5"), (lambda m: -m.long(), "got the value -1"),
    (lambda m: m[:, ::2, ::2], "28 x 28 pixels as the images"), (lambda m: m[..., None], "must be [batch, height, width]")])
def test_masks_that_can_be_read_in_two_ways_are_refused(given, rule):
    x = garments(20)
    with pytest.raises(ValueError) as error: own(x, masks=given((x[:, 0] > 50).to(torch.uint8)))
    assert "`masks`" in str(error.value) and rule in str(error.value)


def test_scenes_number_their_objects():
    scenes = draw_scenes(6, seed=0)
    assert scenes.masks.max() > 1 and torch.equal(scenes.subset(range(3)).masks, scenes.masks[:3])
    assert torch.equal(dataclasses.replace(scenes, name="again").masks, scenes.masks)


@pytest.mark.parametrize("box", [[2, 2, 28, 3], [5, 2, 4, 3], [-1, 0, 3, 3], [0.1, 0.2, 0.5, 0.6]])
def test_boxes_lie_in_their_images(box):
    with pytest.raises(ValueError, match="`boxes` must be"): own(garments(1), boxes=torch.tensor([box]))


def truths():
    truth = torch.zeros(4, 16, 16, dtype=torch.uint8)
    truth[:, :, :8] = 1
    return torch.randn(4, 16, 16, generator=torch.Generator().manual_seed(0)), truth


@pytest.mark.parametrize("given", [lambda t: 255 * t, lambda t: t[:, None], lambda t: 255 * t[:, None].float(), lambda t: t.bool(),
                                   lambda t: t.numpy(), lambda t: t.long()])
def test_a_truth_means_the_same_in_every_unit(given):
    z, truth = truths()
    for measure, scores in ((top_share, z), (pointing_game, z), (relevance_mass, z.sigmoid())):
        right = measure(scores, truth.float())
        assert right.shape == (4,) and torch.equal(measure(scores, given(truth)), right) and ((right >= 0) & (right <= 1)).all()


@pytest.mark.parametrize("given, rule", [
    (lambda t: t * 3, "got the value 3"), (lambda t: t[0], "must have the shape"), (lambda t: t[:, :8], "must have the shape"),
    (lambda t: t.float() * 0.7, "got the value 0.7"), (lambda t: t[..., None], "must have the shape"),
    (lambda t: torch.where(t == 1, 1, 255).index_fill(2, torch.tensor(0), 0), "0, 1 and 255 together")])
def test_truths_that_are_none_are_refused(given, rule):
    z, truth = truths()
    for measure, scores in ((top_share, z), (pointing_game, z), (relevance_mass, z.sigmoid())):
        with pytest.raises(ValueError, match="`truth`.*" + rule): measure(scores, given(truth))


def test_scores_without_an_order_are_refused():
    z, truth = truths()
    z[1, 2, 3] = float("nan")
    for measure in (top_share, pointing_game, relevance_mass):
        with pytest.raises(ValueError, match="must be finite: got 1 of 1024"): measure(z, truth)
    with pytest.raises(ValueError, match="`keep` must be at least 0.*not logits"): relevance_mass(z.nan_to_num(), truth)


# Arrays -------------------------------------------------------------------------------------------------------------

def test_rows_and_scores_read_backwards():
    some, score = own(garments(50)), np.random.default_rng(0).normal(size=50)
    worst = np.argsort(score)[::-1]
    assert torch.equal(some.subset(worst[:8]).indices, torch.from_numpy(worst[:8].copy()))
    for figure in (auroc, auprc): assert figure(score[::-1], score[::-1] + 1) == figure(score, score + 1)


def read_only():
    values = np.arange(4.0)
    values.setflags(write=False)
    return values


@pytest.mark.parametrize("given", [lambda s: s.astype(">f8"), lambda s: s.astype(np.longdouble), lambda s: s.tolist(), lambda s: s[::-1][::-1],
                                   lambda s: torch.from_numpy(s).requires_grad_(), lambda s: s.astype("f4").astype("f8")])
def test_scores_of_any_kind(given):
    s = np.random.default_rng(1).integers(0, 50, 40) / 64
    assert auroc(given(s), given(s + 0.25)) == auroc(s, s + 0.25)
    assert compare_sets(given(s), given(s + 0.25), seed=0, resamples=20).auroc.value == auroc(s, s + 0.25)


def test_a_column_of_a_table():
    pandas = pytest.importorskip("pandas")
    column = pandas.Series([0.3, 0.1, 0.2], index=[5, 9, 7])
    assert read_array(column, "scores").tolist() == [0.3, 0.1, 0.2]
    assert read_array(column[::-1], "scores").tolist() == [0.2, 0.1, 0.3] and auroc(column, column + 1) == 1


@pytest.mark.parametrize("given", [["a"], [[1], [2, 3]], None, object(), np.ma.masked_less(np.arange(4.0), 2), np.ones(2, complex),
                                   np.array(["2020-01-01"], "M8[D]")])
def test_what_holds_no_numbers_is_refused(given):
    with pytest.raises(ValueError, match="`scores_in` must"): auroc(given, [1.0])


def test_read_only_arrays_are_copied():
    values = read_only()
    read_array(values, "scores").add_(1)
    assert values.tolist() == [0, 1, 2, 3]


# Files that declare more than they may hold -------------------------------------------------------------------------

def test_a_compression_bomb_is_refused_by_what_it_declares(tmp_path, monkeypatch):
    zeros = np.zeros((60_000, 28, 28 * 4), np.uint8)  # 188 MB in 183 kB, where 157 MB are the most
    np.savez_compressed(tmp_path / "fashion_mnist_train.npz", images=zeros)
    monkeypatch.setattr(np, "load", lambda *args, **more: pytest.fail("was read"))
    with pytest.raises(ValueError, match="fashion_mnist_train.npz` must be a whole .npz file: got ValueError .*bytes declared where at most"):
        load("fashion-mnist", root=tmp_path)
