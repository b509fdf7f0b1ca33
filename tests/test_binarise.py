"""Binarisation: a bit is a function of seed, epoch, image and pixel alone, with the right chance and no pattern; sets left
out are whole and of one shape.
"""

import os
import pickle

import numpy as np
import pytest
import torch

from latentlab.data.batches import Batches
from latentlab.data.binarise import (
    FIRST, SECOND, IMAGE_SIDE, bernoulli_bits, check_shape, grey_scenes, image_keys, inverted, make_prepare, ood_set, scramble, threshold,
    without)
from latentlab.data.images import ImageSet, load, places
from latentlab.data.scenes import SceneSettings, draw_scenes

LEVELS = torch.arange(256, dtype=torch.uint8)


@pytest.fixture(scope="module")
def fashion(): return load("fashion-mnist", "test", root=dict(places(None))["the bundle"])


def pictures(n=7, side=28, seed=0):
    return torch.randint(0, 256, (n, 1, side, side), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def python_scramble(x, key):
    x = (x ^ x >> 16) * (FIRST % 2**32) % 2**32 ^ key
    x = (x ^ x >> 15) * (SECOND % 2**32) % 2**32
    return x ^ x >> 16


def python_bits(pixels, index, seed, epoch):
    "One image's bits with Python's integers alone, given the keys."
    before, between = (int(key) % 2**32 for key in image_keys(torch.tensor([index]), seed, epoch))
    bits = []
    for place, value in enumerate(pixels):
        word = python_scramble(place // 2 ^ before, between)
        half = word >> 16 if place % 2 else word & 0xFFFF
        uniform = min(half ^ 0x8000, 65534)  # The sign bit is flipped where the number is read as signed
        bits.append(float(uniform < (65535 if value == 255 else round(65536 * value / 255))))
    return bits


def test_bits_equal_a_reference_without_tensors():
    values = torch.randint(0, 256, (3, 99), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    values[:, :4] = torch.tensor([0, 255, 254, 1], dtype=torch.uint8)
    for index in (0, 1, 59_999, 2**31 - 1):
        for seed, epoch in ((0, 0), (5, 1000), (2**40, None)):
            got = bernoulli_bits(values[:1], torch.tensor([index]), seed=seed, epoch=epoch)
            assert got[0].tolist() == python_bits(values[0].tolist(), index, seed, epoch)


def test_scramble_can_be_undone_for_every_key():
    counter = torch.randint(-2**31, 2**31, (200_000,), generator=torch.Generator().manual_seed(0)).unique().int()
    for key in (0, 1, -2**31, 987654321): assert len(scramble(counter, key).unique()) == len(counter)


def test_scramble_leaves_its_input_alone():
    counter = torch.arange(10, dtype=torch.int32)
    assert not torch.equal(scramble(counter, 3), counter) and torch.equal(counter, torch.arange(10, dtype=torch.int32))


@pytest.mark.parametrize("what", ["pixel pair", "index", "seed", "epoch"])
def test_any_flipped_input_bit_flips_half_of_the_bits(what):
    n = 2000

    def words(pair=0, index=0, seed=3, epoch=5):
        before, between = image_keys(torch.arange(n) ^ index, seed, epoch)
        return scramble((torch.arange(n, dtype=torch.int32) % 392 ^ pair) ^ before[:, 0], between[:, 0])

    flipped = {"pixel pair": [dict(pair=1 << k) for k in range(9)], "index": [dict(index=1 << k) for k in range(17)],
               "seed": [dict(seed=3 ^ 1 << k) for k in range(8)], "epoch": [dict(epoch=5 ^ 1 << k) for k in range(12)]}[what]
    ones = torch.tensor([1 << i if i < 31 else -2**31 for i in range(32)], dtype=torch.int32)
    shares = torch.stack([(((words() ^ words(**change)) & ones[:, None]) != 0).float().mean(-1) for change in flipped])
    assert (shares - 0.5).abs().max() < 5 * 0.5 / n**0.5, "at most 544 shares of 2,000 trials"


def test_no_two_images_of_a_set_share_a_key():
    for epoch in (0, 1, None):
        before, between = image_keys(torch.arange(60_000), 0, epoch)
        assert len(before.unique()) == len(between.unique()) == 60_000
        assert (before == between).sum() < 5, "two streams"


def test_threshold_is_the_rounded_probability():
    t = threshold(LEVELS).long() + 32768
    assert t[0] == 0 and t[255] == 65535 and t[254] < 65535
    error = (t[:255].double() / 65536 - LEVELS[:255].double() / 255).abs()
    assert error.max() < 1e-5
    assert (t[:255] - (65536 * LEVELS[:255].double() / 255).round()).abs().max() <= 1 and (t.diff() > 0).all()


def test_black_is_never_drawn_and_white_always():
    ends = torch.tensor([0, 255], dtype=torch.uint8)[:, None].expand(2, 1_000_000)
    for epoch in range(3): assert bernoulli_bits(ends, torch.arange(2) + 10 * epoch, seed=0, epoch=epoch).mean(1).tolist() == [0.0, 1.0]


@pytest.mark.parametrize("over", ["epochs", "indices", "seeds"])
def test_each_intensity_is_drawn_with_its_chance(over):
    ramp, repeats = LEVELS[:, None].expand(256, 784), 500
    changes = {"epochs": lambda k: dict(index=torch.zeros(256).long(), seed=0,
                                        epoch=k), "indices": lambda k: dict(index=torch.arange(256) + 256 * k, seed=0, epoch=0),
               "seeds": lambda k: dict(index=torch.arange(256), seed=k, epoch=None)}[over]
    total = sum(bernoulli_bits(ramp, **changes(k)).sum(1).double() for k in range(repeats)) / (784 * repeats)
    p = LEVELS.double() / 255
    score = ((total - p) / (p * (1 - p) / (784 * repeats)).sqrt())[1:-1]
    assert score.abs().max() < 4, "254 standard scores; over epochs all rows share their random numbers"
    if over != "epochs": assert 0.8 < score.std() < 1.2


def test_the_share_of_every_pixel_is_fair():
    even = torch.full((1000, 1, 28, 28), 64, dtype=torch.uint8)
    p = 64 / 255
    share = sum(bernoulli_bits(even, torch.arange(1000), seed=1, epoch=e).mean(0) for e in range(5)) / 5
    score = (share - p) / (p * (1 - p) / 5000) ** 0.5
    assert score.abs().max() < 4.5 and 0.9 < score.std() < 1.1, "784 standard scores"


def standard(even, p, first=0, seed=0, epoch=0):
    "Bits of an even grey with mean 0 and variance 1."
    return (bernoulli_bits(even, torch.arange(len(even)) + first, seed=seed, epoch=epoch) - p) / (p * (1 - p)) ** 0.5


def test_neighbours_epochs_images_and_seeds_are_uncorrelated():
    for value in (30, 127, 230):
        even, p = torch.full((1500, 784), value, dtype=torch.uint8), value / 255
        base = standard(even, p)
        shifts = {f"shift {k}": (base[:, :-k], base[:, k:]) for k in (1, 2, 3, 27, 28, 29, 56, 392)}
        same = {"same hash": (base[:, ::2], base[:, 1::2]), "next hash": (base[:, 1:-1:2], base[:, 2::2])}
        changes = (dict(first=1), dict(first=256), dict(first=1500), dict(epoch=1), dict(epoch=2), dict(epoch=None), dict(seed=1))
        others = {str(change): (base, standard(even, p, **change)) for change in changes}
        for what, (one, two) in (shifts | same | others).items():
            assert abs((one * two).mean().item()) * one.numel() ** 0.5 < 4.5, what
        counts = base.gt(0).sum(1).float()
        assert abs(counts.var().item() / (784 * p * (1 - p)) - 1) < 5 * (2 / 1500) ** 0.5, "ones per image vary as independent pixels do"


def test_a_bit_does_not_depend_on_who_asks_and_when():
    x, rows = pictures(20), torch.arange(20) * 31
    whole = bernoulli_bits(x, rows, seed=2, epoch=4)
    assert whole.dtype == torch.float32 and whole.shape == x.shape and set(whole.unique().tolist()) == {0.0, 1.0}
    order = torch.randperm(20, generator=torch.Generator().manual_seed(0))
    assert torch.equal(bernoulli_bits(x[order], rows[order], seed=2, epoch=4), whole[order])
    assert torch.equal(bernoulli_bits(x[5:6], rows[5:6], seed=2, epoch=4), whole[5:6])
    assert torch.equal(bernoulli_bits(x.flatten(1), rows, seed=2, epoch=4), whole.flatten(1))
    assert torch.equal(bernoulli_bits(x.flatten(1)[:, :33], rows, seed=2, epoch=4), whole.flatten(1)[:, :33])
    assert bernoulli_bits(x[:0], rows[:0], seed=2, epoch=4).shape == (0, 1, 28, 28)


def test_torch_s_own_stream_and_the_images_are_left_alone():
    torch.manual_seed(1)
    before, x = torch.rand(1), pictures()
    torch.manual_seed(1)
    bernoulli_bits(x, torch.arange(7), seed=0, epoch=0)
    assert torch.equal(torch.rand(1), before) and torch.equal(x, pictures())


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_the_same_bits_on_a_gpu():
    x, rows = pictures(300), torch.arange(300)
    assert torch.equal(bernoulli_bits(x.cuda(), rows.cuda(), seed=0, epoch=3).cpu(), bernoulli_bits(x, rows, seed=0, epoch=3))


def test_the_four_kinds():
    x, rows = pictures(50), torch.arange(50)
    dynamic, static, deterministic, grey = (make_prepare(kind, 0) for kind in ("dynamic", "static", "deterministic", "grey"))
    draws = [dynamic(x, rows, epoch) for epoch in range(3)]
    assert all(0.2 < (draws[a] != draws[b]).float().mean() < 0.45 for a, b in ((0, 1), (1, 2),
                                                                               (0, 2))), "a third of pixels of even chances, 2 E p (1 - p)"
    assert torch.equal(draws[1], dynamic(x, rows, 1)) and torch.equal(draws[1], bernoulli_bits(x, rows, seed=0, epoch=1))
    assert torch.equal(static(x, rows, 0), static(x, rows, 17))
    assert all((static(x, rows, 0) != draw).float().mean() > 0.2 for draw in draws), "a stream of its own"
    assert (make_prepare("static", 1)(x, rows, 0) != static(x, rows, 0)).float().mean() > 0.2
    assert torch.equal(deterministic(x, rows, 3), (x.float() / 255 >= 0.5).float())
    assert torch.equal(grey(x, rows, 3), x.float() / 255)
    assert [p.pseudo for p in (dynamic, static, deterministic, grey)] == [False, False, False, True]


def test_prepared_objects_are_values():
    x, rows = pictures(), torch.arange(7)
    for kind in ("dynamic", "static", "deterministic", "grey"):
        copy = pickle.loads(pickle.dumps(make_prepare(kind, 3)))
        assert copy == make_prepare(kind, 3) and hash(copy) == hash(make_prepare(kind, 3)) and copy != make_prepare(kind, 4)
        assert torch.equal(copy(x, rows, 2), make_prepare(kind, 3)(x, rows, 2))


def test_points_pass_unchanged_and_grey_floats_too():
    points, x = torch.randn(5, 2), torch.rand(5, 1, 4, 4)
    for kind in ("dynamic", "static", "deterministic", "grey"): assert make_prepare(kind, 0)(points, torch.arange(5), 0) is points
    assert make_prepare("grey", 0)(x, torch.arange(5), 0) is x


def test_batches_redraw_each_epoch_and_replay():
    x = pictures(12)
    one, again = (Batches(x, 4, 0, prepare=make_prepare("dynamic", 9)) for _ in range(2))
    epochs = []
    for epoch in range(4):
        rows = torch.cat([one.rows(3 * epoch + k) for k in range(3)])
        epochs.append(torch.cat([one.at(3 * epoch + k).x for k in range(3)])[rows.argsort()])
        assert torch.equal(epochs[-1], bernoulli_bits(x, torch.arange(12), seed=9, epoch=epoch))
    assert all((a != b).float().mean() > 0.2 for a, b in zip(epochs, epochs[1:]))
    assert torch.equal(again.at(7).x, one.at(7).x), "asked for alone, as after a resumption"


def test_labels_left_out_become_the_other_set(fashion):
    kept, left = without(fashion, [0, 8])
    assert set(kept.labels.tolist()) == {1, 2, 3, 4, 5, 6, 7, 9} and set(left.labels.tolist()) == {0, 8}
    assert sorted(kept.indices.tolist() + left.indices.tolist()) == fashion.indices.tolist()
    for part in (kept, left):
        rows = torch.searchsorted(fashion.indices, part.indices)
        assert (torch.equal(part.images, fashion.images[rows]) and torch.equal(part.labels, fashion.labels[rows])
                and part.classes == fashion.classes)
    assert kept.name == "fashion-mnist without 0, 8" and left.name == "fashion-mnist only 0, 8" and "only labels 0, 8" in left.source
    assert torch.equal(without(fashion, ["Bag", 0, 0]).left_out.indices, left.indices)


def test_names_of_digits_and_their_numbers_mean_the_same_class():
    digits = ImageSet(name="digits", split="train", images=pictures(30), labels=torch.arange(30) % 10, classes=tuple("0123456789"),
                      indices=torch.arange(30))
    assert torch.equal(without(digits, ["4"]).left_out.indices, without(digits, [4]).left_out.indices)


@pytest.mark.parametrize("labels,message", [
    ([10], "`labels` must be a list of class numbers from 0 to 9, or of names "
           "among T-shirt/top"), ([-1], "got [-1]"), (["Scarf"], "got ['Scarf']"), ([True], "got [True]"),
    ([1.5], "got [1.5]"), ([], "got []"), ("Bag", "got 'Bag'"), (list(range(10)), "`labels` must leave something to train on"),
])
def test_wrong_labels_are_refused(fashion, unchecked, labels, message):
    with pytest.raises(ValueError) as caught: without(fashion, labels)
    assert message in str(caught.value)


def test_a_class_without_images_is_refused(fashion):
    with pytest.raises(ValueError, match=r"`labels` must leave no empty class outside: got \[8\], of which fashion-mnist without 8 "
                                         r"has no images"):
        without(without(fashion, [8]).kept, [3, 8])


def test_inversion(fashion):
    other = inverted(fashion)
    assert torch.equal(other.images.int(), 255 - fashion.images.int()) and torch.equal(inverted(other).images, fashion.images)
    assert other.name == "inverted:fashion-mnist" and torch.equal(other.labels, fashion.labels)


@pytest.mark.parametrize("name", ["fashion-mnist", "inverted:fashion-mnist", "scenes", "inverted:scenes"])
def test_ood_sets_have_one_shape(name):
    found = ood_set(name, "test", 9, root=dict(places(None))["the bundle"])
    assert found.images.shape == (9, 1, 28, 28) and found.images.dtype == torch.uint8 and found.name == name
    plain = ood_set(name.removeprefix("inverted:"), "test", 9, root=dict(places(None))["the bundle"])
    assert torch.equal(found.images, plain.images) != name.startswith("inverted:")
    check_shape(found, (1, IMAGE_SIDE, IMAGE_SIDE))


@pytest.mark.parametrize("name", ["mnist", "omniglot", "inverted:omniglot"])
@pytest.mark.skipif(not os.environ.get("LATENTLAB_DATA"), reason="needs the whole data sets")
def test_other_grey_sets_when_they_are_there(name):
    assert ood_set(name, "test", 50).images.shape == (50, 1, 28, 28)


def test_grey_scenes_are_the_luma_of_scenes():
    colour = draw_scenes(3, seed=0, settings=SceneSettings(side=28), start=1_000_000).images.numpy().astype(np.float64)
    grey = grey_scenes(3, "test").images.numpy()
    assert np.abs(grey[:, 0] - (0.299 * colour[:, 0] + 0.587 * colour[:, 1] + 0.114 * colour[:, 2])).max() <= 0.501
    assert not torch.equal(grey_scenes(3, "train").images, grey_scenes(3, "test").images)


@pytest.mark.parametrize("call,message", [
    (lambda: bernoulli_bits(pictures().float(), torch.arange(7), seed=0, epoch=0), "`images` must be bytes: got torch.float32"),
    (lambda: bernoulli_bits(pictures(), torch.arange(6), seed=0, epoch=0), "`index` must have one number per image: got (6,) for 7"),
    (lambda: bernoulli_bits(pictures(), torch.arange(7), seed=-1, epoch=0), "`seed` must be a whole number of at least 0: got -1"),
    (lambda: bernoulli_bits(pictures(), torch.arange(7), seed=0, epoch=-1), "`epoch` must be a whole number of at least 0, or None for a "
                                                                            "static draw: got -1"),
    (lambda: bernoulli_bits(pictures(), torch.arange(7), seed=0, epoch=0.5), "got 0.5"),
    (lambda: make_prepare("random", 0), "`kind` must be one of dynamic, static, deterministic, grey: got 'random'"),
    (lambda: make_prepare("dynamic", -3), "`seed` must be a whole number of at least 0: got -3"),
    (lambda: make_prepare("static", 0)(torch.rand(2, 1, 4, 4), torch.arange(2), 0), "`images` must be bytes to be made static bits: got "
                                                                               "torch.float32 (2, 1, 4, 4)"),
    (lambda: ood_set("cifar10"), "`name` must be a grey set: got 'cifar10', which has 3 channels"),
    (lambda: ood_set("inverted:msrc-objects"), "got 'inverted:msrc-objects'"),
    (lambda: ood_set("letters"), "`name` must be one of"),
    (lambda: ood_set("inverted:inverted:scenes"), "`name` must be one of"),
    (lambda: ood_set("scenes", "valid"), "`split` must be train or test: got 'valid'"),
    (lambda: ood_set("fashion-mnist", "valid"), "`split` must be train or test: got 'valid'"),
    (lambda: ood_set("scenes", limit=0), "`limit` must be a whole number from 1"),
])
def test_refusals(unchecked, call, message):
    with pytest.raises(ValueError) as caught: call()
    assert message in str(caught.value)


def test_another_shape_is_refused(fashion):
    with pytest.raises(ValueError, match="`images` must be 1 x 28 x 28 as the model was built for: got 1 x 32 x 32 in fashion-mnist"):
        check_shape(fashion.resize(32), (1, 28, 28))
