"""Bad input as a user meets it, through the run and its trainer: the error names the rule, the value and the remedy, and
nothing is lost.
"""
import copy
import functools
import re
import shutil

import numpy as np
import pytest
import torch
from latentlab.core.settings import Live
from latentlab.data.images import GARMENTS, ImageSet, load
from latentlab.data.scenes import SceneSettings, draw_scenes
from latentlab.data.sources import with_images
from latentlab.families.nem.model import NEM, NEMSettings
from latentlab.families.nem.experiment import NEMRun
from latentlab.nn import encoders as encoders_module
from latentlab.nn.encoders import FrozenEncoder, SmallEncoder, load_encoder, read_encoder
from latentlab.train.trainer import Trainer
from torch import nn

TINY = NEMRun().replace(images=64, batch=8, encoder="untrained", layers=2, width=4, device="cpu", check_every=100)
FORM = re.compile(r"`[^`]+` must .+: (got|found|`.+` returned) .+\. .*[A-Za-z]", re.S)  # rule, value, remedy


def refused(action, *words):
    "The sentence of a refusal, which has the form that all refusals have."
    with pytest.raises((ValueError, FileNotFoundError)) as caught: action()
    sentence = str(caught.value)
    assert FORM.search(sentence), sentence
    for word in words: assert word in sentence, f"{word!r} is not in: {sentence}"
    return sentence


def state_of(trainer):
    state = copy.deepcopy(trainer.session.state())
    return {k: v for k, v in state.items() if k != "seconds"}, trainer.run, list(trainer.changes), trainer.step_count, trainer.state


def same(a, b):
    if isinstance(a, torch.Tensor): return torch.equal(a.nan_to_num(7.0), b.nan_to_num(7.0))
    if isinstance(a, dict): return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)): return len(a) == len(b) and all(map(same, a, b))
    return a == b


@functools.cache
def garments(): return load("fashion-mnist", limit=104)


@pytest.fixture(scope="module")
def trained():
    "One trainer that every refusal of this file must leave as it is."
    trainer = Trainer(TINY).fit(4, progress=False)
    yield trainer
    trainer.stop()


@pytest.fixture
def unharmed(trained):
    "A trainer, and afterwards the proof that nothing of it was lost and it trains on."
    before, model, live = state_of(trained), trained.model, trained._live
    yield trained
    assert same(state_of(trained), before) and trained.model is model and trained._live is live
    pictures = trained.snapshot()
    assert np.isfinite(pictures.views["keep"]).all() and pictures.step == before[3]


@pytest.fixture
def seen_by(trained): return trained.setup.held_out[:6]


def images_of(pixels):
    n = len(pixels)
    return ImageSet(name="own", split="train", images=pixels, labels=torch.arange(n) % 10, classes=GARMENTS, indices=torch.arange(n))


def own(n=64, channels=1, side=28):
    return torch.randint(0, 256, (n, channels, side, side), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


# Images that do not suit --------------------------------------------------------------------------------------------

@pytest.mark.parametrize("changes, words", [
    ({"encoder": "untrained:scenes"}, ("`images` must have 3 channels for this encoder", "got 1", "Choose another encoder")),
    ({"encoder": "planted:red"}, ("must have 3 channels", "got 1")),
])
def test_channels_that_do_not_fit_stop_a_rebuild_and_keep_the_model(unharmed, changes, words):
    refused(lambda: unharmed.rebuild(changes), *words)
    assert "not rebuilt, the old model stays" in unharmed.notice


@pytest.mark.parametrize("shape, words", [
    ((2, 3, 28, 28), ("must have 1 channels", "got 3")), ((2, 1, 33, 33), ("must be 28 x 28 pixels", "got 33 x 33", "Resize them")),
    ((2, 1, 28, 32), ("must be 28 x 28 pixels", "got 28 x 32")),
])
def test_an_explanation_of_other_images_is_refused(unharmed, shape, words):
    refused(lambda: unharmed.model.explain(torch.rand(shape)), *words)


@pytest.mark.parametrize("spoil, words", [
    (lambda x: x[1].fill_(0.3), ("must not be constant", "1 of 6, first at [1]", "Drop them")),
    (lambda x: x.zero_(), ("must not be constant", "6 of 6")),
    (lambda x: x[2, 0, 3, 4].fill_(float("nan")), ("must be finite", "1 of 6, first at [2]", "Drop or repair them")),
    (lambda x: x[0, 0, 0, 0].fill_(float("inf")), ("must be finite", "first at [0]")),
    (lambda x: x.mul_(255), ("must be in [0, 1]", "Divide bytes by 255")), (lambda x: x.sub_(1), ("must be in [0, 1]",)),
])
def test_constant_nan_and_unscaled_images(unharmed, seen_by, spoil, words):
    x = seen_by.clone()
    spoil(x)
    refused(lambda: unharmed.model.explain(x), "`images`", *words)
    settings = NEMSettings(layers=2, width=4)
    refused(lambda: NEM(settings, unharmed.model.encoder, seen_by).explain(x), *words)


@pytest.mark.parametrize("where", ["train", "held"])
def test_constant_images_of_ones_own_are_refused_when_the_run_is_built(unharmed, where):
    pixels = own(104)
    pixels[3 if where == "train" else -3] = 7
    refused(lambda: with_images(TINY, images_of(pixels)).build("cpu"), "`images` must not be constant")


def test_wrong_types_of_images_are_refused(unharmed, unchecked):
    refused(lambda: unharmed.model.explain(own(4)), "`images` must be float", "uint8", "Convert")


def test_a_batch_larger_than_the_images(unharmed):
    refused(lambda: unharmed.rebuild(batch=128), "`batch` must be a whole number from 1 to "
                                                 "the 64 images", "got 128", "Lower it, or load more images")


# Encoders -----------------------------------------------------------------------------------------------------------

def test_a_map_that_is_not_there_names_the_near_ones():
    refused(lambda: FrozenEncoder(SmallEncoder(), ["block1", "blok2"]), "`maps` must name submodules", "got 'blok2'", "Did you mean block2")


def test_a_map_that_is_no_map():
    encoder = FrozenEncoder(nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten(), nn.Linear(4 * 26 * 26, 8)), ["0", "2"])
    refused(lambda: encoder.check(torch.rand(2, 1, 28, 28)), "feature maps [batch, channel, "
                                                             "height, width]", "`2` returned shape (1, 8)", "before the pooling")


@pytest.mark.parametrize("layers", [3, 5])
def test_deeper_than_the_maps_stops_a_rebuild(layers, trained):
    encoder = FrozenEncoder(SmallEncoder(1, generator=torch.Generator().manual_seed(0)), ["block1", "block2"], name="mine")
    trainer = Trainer(with_images(TINY, garments()), build=lambda run, device: run.build(device, encoder=encoder)).fit(2, progress=False)
    before = state_of(trainer)
    refused(lambda: trainer.rebuild(layers=layers), "`layers` must be in 1 to 2, the encoder's feature maps: "
                                                    f"got {layers}.", "Choose fewer layers")
    assert same(state_of(trainer), before) and trainer.fit(1, progress=False).step_count == 3


@pytest.mark.parametrize("name", ["simclr:fashion", "resnet18", "planted:white", "timm:", ""])
def test_unknown_encoders(unharmed, name):
    known = refused(lambda: load_encoder(name), "`name` must be a known encoder", repr(name), "Known: ")
    assert all(each in known for each in ("simclr:fashion-mnist", "swav:scenes", "planted:red", "timm:"))
    if name: refused(lambda: unharmed.rebuild(encoder=name), "`name` must be a known encoder", "Known: ")


def test_a_damaged_weights_file_stops_a_rebuild(unharmed, tmp_path, monkeypatch):
    folder = tmp_path / "weights"
    shutil.copytree(encoders_module.Path(encoders_module.__file__).parents[1] / "weights", folder)
    file = folder / "simclr-fashion-mnist.safetensors"
    whole = file.read_bytes()
    for damage in (whole[:-50], whole[:-50] + bytes(50), b"", b"not a file of weights"):
        file.write_bytes(damage)
        refused(lambda: read_encoder(file), "`path` must", "Restore it" if damage[-50:] != bytes(50) else "restore it")
    with monkeypatch.context() as patch:
        patch.setattr(encoders_module, "__file__", str(tmp_path / "nn" / "encoders.py"))
        refused(lambda: unharmed.rebuild(encoder="simclr"), "`path` must", file.name)


# Data ---------------------------------------------------------------------------------------------------------------

def test_unknown_data_sets(unharmed, unchecked):
    refused(lambda: NEMRun(data="svhn"), "`data` must be one of fashion-mnist, scenes", "or folder:PATH: got 'svhn'", "Name your own")
    refused(lambda: unharmed.rebuild(data="svhn"), "`data` must be one of", "got 'svhn'")
    refused(lambda: load("svhn"), "`name` must be one of fashion-mnist, mnist", "got 'svhn'", "draw_scenes")


@pytest.mark.parametrize("damage", ["truncated", "flipped", "empty", "text", "another set"])
def test_a_damaged_data_file_stops_a_rebuild(unharmed, tmp_path, monkeypatch, damage):
    n = 32
    good = dict(images=own(n)[:, 0].numpy(), labels=np.arange(n) % 10, classes=np.array([str(i) for i in range(10)]), indices=np.arange(n))
    for name in ("mnist_train.npz", "mnist_test.npz"): np.savez_compressed(tmp_path / name, **good)
    file = tmp_path / "mnist_train.npz"
    whole = file.read_bytes()
    assert load("mnist", root=tmp_path).images.shape == (n, 1, 28, 28)
    if damage == "another set": np.savez_compressed(file, **(good | {"images": np.zeros((n, 32, 32, 3), np.uint8)}))
    else:
        middle = bytearray(whole)
        middle[len(whole) // 3] ^= 255
        file.write_bytes({"truncated": whole[:-200], "flipped": bytes(middle), "empty": b"", "text": b"an error page"}[damage])
    monkeypatch.setenv("LATENTLAB_DATA", str(tmp_path))
    refused(lambda: unharmed.rebuild(data="mnist"), str(file), "copy it again, or remove it")
    file.write_bytes(whole)
    assert load("mnist").source.endswith("$LATENTLAB_DATA")  # the remedy works


def test_a_folder_that_is_not_there(unharmed, tmp_path, monkeypatch):
    monkeypatch.setenv("LATENTLAB_DATA", str(tmp_path / "nowhere"))
    with pytest.raises(ValueError, match=r"\$LATENTLAB_DATA must be a folder: got '.*nowhere'. Make it, or leave it out."):
        unharmed.rebuild(data="mnist")


@pytest.mark.parametrize("changes, words", [
    ({"side": 8}, ("`side` must be "
                   "at least 16 px", "got 8")), ({"objects_low": 5}, ("`objects_low` must be at most `objects_high`", "5 and 4")),
    ({"texture": 1.5}, ("`texture` must be at most 1",)),
])
def test_impossible_scenes(changes, words):
    refused(lambda: SceneSettings(**changes), *words)
    refused(lambda: draw_scenes(0, seed=0), "`n` must be a whole number of at least 1", "got 0")


# Settings -----------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("name, value, words", [
    ("kl_scale", 2.0, ("at most 1", "got 2", "The default is 0.005")), ("kl_scale", 0.0, ("at least 0.0001",)),
    ("prior", 0.9, ("at most 0.5 probability",)),
    ("learning_rate", float("nan"), ("must be finite", "got nan")), ("jitter", 9, ("at most 4 px", "got 9")),
    ("fill", "grey", ("'zero', 'mean', 'blur'", "got 'grey'")),
    ("distance", "euclid", ("'half_cosine'", "got 'euclid'")), ("penalty", "l1", ("'kl', 'area'",)),
    ("jitter", 1.5, ("must be a int", "1.5")),
    ("kl_scale", "much", ("must be a float", "'much'")),
    ("kl_scale", None, ("must be a float", "got None")), ("smoothing", True, ("must be a float", "True")),
])
def test_hot_settings_out_of_range(unharmed, name, value, words, unchecked):
    refused(lambda: unharmed.set({name: value}), f"`{name}` must be", *words)
    refused(lambda: unharmed.set({"border_scale": 0.5, name: value}), f"`{name}`")  # not even the good half
    assert unharmed.run.model.border_scale == 0.0


@pytest.mark.parametrize("name, value, words", [
    ("mask_bias", 9.0, ("at most 8 logit", "got 9")), ("layers", 0, ("at least 1 encoder maps",)), ("layers", 6, ("at most 5",)),
    ("width", 3, ("at least 4 channels",)),
    ("seed", -1, ("at least 0", "got -1")), ("images", 10, ("at least 64", "got 10")), ("grid", "1/3", ("'1', '1/2', '1/4'",)),
    ("batch", 0, ("at least 1 images",)),
    ("device", "tpu", ("`device` must be", "'tpu'", "cpu")), ("optimiser", "lion", ("'adamw', 'adam', 'sgd'",)),
])
def test_build_settings_out_of_range(unharmed, name, value, words, unchecked):
    refused(lambda: unharmed.rebuild({name: value}), f"`{name}` must be", *words)


def test_names_that_mean_nothing(unharmed):
    for change in (unharmed.set, unharmed.rebuild):
        refused(lambda change=change: change(kl_scal=0.1), "`kl_scal` must be a field of NEMRun", "Known: ", "model.kl_scale")
    refused(lambda: unharmed.set(layers=4), "`layers` must be a live setting", "got one of kind build", "rebuild(layers=...)")
    with pytest.raises(AttributeError, match="must be a live setting"): getattr(Live(TINY), "layers")  # noqa: B009


# Memory, folders, checkpoints ---------------------------------------------------------------------------------------

@pytest.mark.parametrize("where", ["images", "encoder", "masker"])
def test_a_device_that_is_full_in_a_rebuild_keeps_the_old_model(unharmed, monkeypatch, where):
    full = torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    def none_left(*_, **__): raise full

    from latentlab.families.nem import experiment as nem_run
    monkeypatch.setattr(nem_run, {"images": "open_images", "encoder": "encoder_for", "masker": "NEM"}[where], none_left)
    with pytest.raises(torch.cuda.OutOfMemoryError) as caught: unharmed.rebuild(width=64)
    assert caught.value is full and unharmed.notice == f"not rebuilt, the old model stays: {full}"


def test_a_folder_that_cannot_be_written(unharmed, tmp_path):
    (tmp_path / "taken").write_text("mine")
    refused(lambda: Trainer(TINY, folder=tmp_path
                            / "taken" / "runs"), "`folder` must be writable", "taken", "Choose another folder, or None")
    assert (tmp_path / "taken").read_text() == "mine"


@pytest.mark.parametrize("damage", [lambda data: data[:-9], lambda data: data[:500], lambda data: b"", lambda data: b"PK"
                                    + data, lambda data: data[:-1] + bytes([data[-1] ^ 1])])
def test_a_damaged_checkpoint_of_a_masker(tmp_path, unharmed, damage):
    trainer = Trainer(with_images(TINY.replace(checkpoint_every=3), garments()), folder=tmp_path).fit(6, progress=False)
    path = trainer.checkpoints.path(trainer.run)
    good = path.with_suffix(".previous").read_bytes()
    path.write_bytes(damage(path.read_bytes()))
    refused(lambda: unharmed.resume(path), "`path` must be", path.name)
    refused(lambda: trainer.resume(path), "`path` must be", path.name)
    assert trainer.step_count == 6
    trainer.resume()
    assert (trainer.step_count == 3 and "The one before it was loaded." in trainer.notice
            and path.with_suffix(".previous").read_bytes() == good)
