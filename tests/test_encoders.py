"""Frozen encoders: the promises, the refusals, threads, copies, files and loaders; and the planted encoder's truth."""
import copy
import gc
import json
import sys
import threading
import types
from pathlib import Path

import pytest
import torch
from latentlab.data.scenes import SceneSettings, draw_scenes
from latentlab.losses.distances import half_cosine_distance, relative_l2
from latentlab.nn import encoders
from latentlab.nn.encoders import FrozenEncoder, SmallEncoder, load_encoder, read_encoder, save_encoder, suggest_maps
from latentlab.nn.planted import PLANTED, PlantedEncoder
from torch import nn


def seeded(seed=0): return torch.Generator().manual_seed(seed)


def small(channels=1, strides=(1, 2, 2, 2, 1)): return SmallEncoder(channels, strides, generator=seeded())


def trained_statistics(module):
    "Batch normalisation with statistics that a pass in training mode would move."
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_mean.uniform_(-0.1, 0.1, generator=seeded())
            layer.running_var.uniform_(0.5, 2, generator=seeded())
    return module


class Residual(nn.Module):
    "A small residual network in torchvision's manner: in-place ReLUs, a classifier at the end."

    def __init__(self):
        super().__init__()
        self.conv1, self.bn1, self.relu = nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU(inplace=True)
        self.layer1, self.layer2 = nn.Conv2d(8, 16, 3, 2, 1), nn.Conv2d(16, 32, 3, 2, 1)
        self.avgpool, self.fc = nn.AdaptiveAvgPool2d(1), nn.Linear(32, 10)

    def forward(self, x):
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.relu(self.layer1(x))
        x = self.relu(self.layer2(x))
        return self.fc(self.avgpool(x).flatten(1))


# The small encoder --------------------------------------------------------------------------------------------------

@pytest.mark.parametrize(("channels", "strides", "side", "sizes"), [
    (1, (1, 2, 2, 2, 1), 28, (28, 14, 7, 4, 4)),
    (3, (2, 2, 2, 2, 1), 64, (32, 16, 8, 4, 4)), (3, (2, 2, 2, 2, 1), 60, (30, 15, 8, 4, 4))])
def test_shapes(channels, strides, side, sizes):
    for batch in [1, 3]:
        frozen = FrozenEncoder(small(channels, strides), [f"block{k}" for k in range(1, 6)])
        x = torch.rand(batch, channels, side, side)
        encoding = frozen.both(x)
        assert tuple(m.shape[-1] for m in encoding.maps) == sizes and [size[0] for size in frozen.sizes(x)] == [8, 16, 32, 64, 128]
        assert encoding.embedding.shape == (batch, 128) and (encoding.embedding >= 0).all()


def test_own_weights_do_not_depend_on_the_global_seed():
    torch.manual_seed(1)
    first = small()
    torch.manual_seed(2)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), small().parameters()))


# Frozen -------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("disturb", [
    lambda frozen: frozen.train(),
    lambda frozen: frozen.module.train(),
    lambda frozen: nn.Sequential(frozen, nn.Linear(128, 2)).train(),
    lambda frozen: nn.ModuleDict({"encoder": frozen}).train(True),
])
def test_nothing_changes_however_training_is_switched_on(disturb):
    frozen = FrozenEncoder(trained_statistics(small()), ["block2", "block5"])
    x = torch.rand(6, 1, 28, 28, generator=seeded(), requires_grad=True)
    expected, before = frozen.embed(x).detach(), copy.deepcopy(frozen.state_dict())
    disturb(frozen)
    encoding = frozen.both(x)
    (encoding.embedding.sum() + sum(m.sum() for m in encoding.maps)).backward()
    assert torch.equal(encoding.embedding, expected)
    assert all(torch.equal(before[k], v) for k, v in frozen.state_dict().items())
    assert all(p.grad is None for p in frozen.parameters())
    assert x.grad.isfinite().all() and x.grad.abs().sum() > 0


def test_an_optimiser_finds_nothing_to_move():
    frozen = FrozenEncoder(small(), ["block5"])
    assert [p for p in frozen.parameters() if p.requires_grad] == []


def test_gradient_through_it_is_that_of_the_module():
    plain, frozen = trained_statistics(small()).eval(), FrozenEncoder(trained_statistics(small()), ["block1", "block5"])
    x, y = (torch.rand(2, 1, 28, 28, generator=seeded()).requires_grad_() for _ in range(2))
    assert torch.equal(torch.autograd.grad(plain(x).square().sum(), x)[0], torch.autograd.grad(frozen.embed(y).square().sum(), y)[0])


def test_a_pass_leaves_nothing_behind():
    frozen = FrozenEncoder(small(), ["block1"])
    x = torch.rand(1, 1, 28, 28, requires_grad=True)
    kept = frozen.both(x)
    import weakref
    watched = weakref.ref(kept.maps[0])
    del kept
    gc.collect()
    assert watched() is None and frozen.taps.catch.found is None


def test_an_error_inside_the_module_leaves_nothing_behind():
    frozen = FrozenEncoder(small(), ["block1"])
    with pytest.raises(RuntimeError): frozen.embed(torch.rand(1, 3, 28, 28))
    assert frozen.taps.catch.found is None
    assert frozen.embed(torch.rand(1, 1, 28, 28)).shape == (1, 8)


def test_wrapping_again_does_not_pile_up_taps():
    module = small()
    for _ in range(20): FrozenEncoder(module, ["block1", "block5"]).embed(torch.rand(1, 1, 28, 28))
    gc.collect()
    assert len(module.block1._forward_hooks) == 0
    one, two = FrozenEncoder(module, ["block1", "block5"]), FrozenEncoder(module, ["block2"])
    assert len(one.features(torch.rand(1, 1, 28, 28))) == 2 and len(two.features(torch.rand(1, 1, 28, 28))) == 1


def test_copies_work_alone():
    frozen = FrozenEncoder(small(), ["block1", "block5"], mean=(0.5,), std=(0.25,))
    x = torch.rand(2, 1, 28, 28)
    twin = copy.deepcopy(frozen)
    expected = frozen.both(x)
    del frozen
    gc.collect()
    got = twin.both(x)
    assert torch.equal(got.embedding, expected.embedding) and torch.equal(got.maps[0], expected.maps[0])
    twin.module.block1[0].weight.mul_(2)
    assert not torch.equal(twin.both(x).maps[0], expected.maps[0])


def test_two_threads_do_not_see_each_others_maps():
    frozen = FrozenEncoder(small(), ["block1", "block5"])
    inputs = [torch.rand(k + 1, 1, 28, 28, generator=seeded(k)) for k in range(4)]
    with torch.no_grad(): expected = [frozen.both(x) for x in inputs]
    wrong = []

    def work(k):
        with torch.no_grad():
            for _ in range(20):
                got = frozen.both(inputs[k])
                if got.maps[0].shape != expected[k].maps[0].shape or not torch.equal(got.maps[0], expected[k].maps[0]): wrong.append(k)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
    assert wrong == []


def test_normalisation_is_part_of_the_encoder():
    plain, frozen = small(3).eval(), FrozenEncoder(small(3), ["block5"], mean=(0.4, 0.5, 0.6), std=(0.2, 0.2, 0.2))
    x = torch.rand(2, 3, 28, 28)
    expected = plain((x - torch.tensor([0.4, 0.5, 0.6])[:, None, None]) / 0.2)
    torch.testing.assert_close(frozen.embed(x), expected)


def test_own_embedding_function():
    module = Residual()
    frozen = FrozenEncoder(module, ["relu", "layer2"][1:], embed=lambda output: output)
    assert frozen.embed(torch.rand(2, 3, 64, 64)).shape == (2, 10)


# Refusals -----------------------------------------------------------------------------------------------------------

GOOD = torch.rand(4, 1, 28, 28, generator=seeded())


def spoilt(index, value):
    images = GOOD.clone()
    images[index] = value
    return images


@pytest.mark.parametrize(("images", "sentence"), [
    (GOOD.expand(4, 3, 28, 28), "must have 1 channels for this encoder: got 3"),
    (GOOD[..., :14, :14], "must be 28 x 28 pixels for this encoder: got 14 x 14"),
    (spoilt((1, 0, 5, 5), float("nan")), "must be finite: got NaN or infinity in 1 of 4, first at [1]"),
    (spoilt((2, 0, 5, 5), float("inf")), "must be finite"),
    (spoilt(3, 0.0), "must not be constant: got 1 of 4, first at [3]"),
    (GOOD * 255, "must be in [0, 1]"),
    (GOOD - 0.5, "must be in [0, 1]"),
])
def test_images_that_cannot_be_explained(images, sentence):
    frozen = FrozenEncoder(small(), ["block1", "block5"], image_shape=(1, 28, 28))
    with pytest.raises(ValueError) as error: frozen.check(images)
    assert sentence in str(error.value)
    frozen.check(GOOD)


@pytest.mark.parametrize("images", [(GOOD * 255).byte(), GOOD[:, 0]])
def test_images_of_another_type_or_rank(images, unchecked):
    with pytest.raises(ValueError, match="must be float"): FrozenEncoder(small(), ["block1"]).check(images)


@pytest.mark.parametrize(("maps", "sentence"), [
    (["layer1"], "Available: block1"),
    (["blok5"], "Did you mean block5"),
    ([], "at least one"),
])
def test_unknown_maps(maps, sentence):
    with pytest.raises(ValueError, match=sentence): FrozenEncoder(small(), maps)


def test_maps_in_the_wrong_order_or_overwritten_or_flat():
    x = torch.rand(2, 3, 64, 64)
    with pytest.raises(ValueError, match="Name them as conv1, layer1"): FrozenEncoder(Residual(), ["layer1", "conv1"]).sizes(x)
    with pytest.raises(ValueError, match="`bn1` is changed in place"): FrozenEncoder(Residual(), ["bn1", "layer1"]).check(x)
    with pytest.raises(ValueError, match="`fc` returned shape"): FrozenEncoder(Residual(), ["fc"]).features(x)
    FrozenEncoder(Residual(), ["conv1", "avgpool"]).check(x)


def test_a_submodule_that_never_runs():
    module = Residual()
    module.idle = nn.Conv2d(3, 3, 1)
    with pytest.raises(ValueError, match="`idle` was not called"):
        FrozenEncoder(module, ["conv1", "idle"]).features(torch.rand(1, 3, 64, 64))


def test_images_too_small_for_the_module():
    class Valid(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Conv2d(1, 4, 9), nn.Conv2d(4, 4, 9)

        def forward(self, x): return self.b(self.a(x))

    with pytest.raises(ValueError, match="must suit the encoder tiny: got \\(1, 12, 12\\)"):
        FrozenEncoder(Valid(), ["a", "b"], name="tiny").check(torch.rand(2, 1, 12, 12))


def test_an_embedding_that_is_not_finite():
    module = small()
    module.block5[1].weight.data.fill_(float("nan"))
    with pytest.raises(ValueError, match="must be finite"):
        FrozenEncoder(module, ["block1", "block4"], embed=lambda output: output).check(GOOD)


def test_token_grids():
    for tokens, side in [(16, 4), (17, 4), (21, 4), (196, 14), (197, 14)]:
        x = torch.arange(tokens * 2.0).reshape(1, tokens, 2)
        grid = encoders.as_map("t", x)
        assert grid.shape == (1, 2, side, side)
        assert torch.equal(grid.flatten(2).mT, x[:, tokens - side * side:])


def test_tokens_without_a_grid():
    for tokens in [1, 22, 23]:
        with pytest.raises(ValueError, match="return feature maps"): encoders.as_map("t", torch.rand(1, tokens, 2))


# Files --------------------------------------------------------------------------------------------------------------

@pytest.fixture
def saved(tmp_path):
    return save_encoder(trained_statistics(small()), tmp_path / "e.safetensors", name="test", image_shape=(1, 28, 28),
                        note={"steps": 3, "words": "é"})


def test_round_trip(saved):
    back = read_encoder(saved)
    assert back.name == "test" and back.image_shape == (1, 28, 28) and back.note == {"steps": 3, "words": "é"}
    expected = trained_statistics(small())
    assert all(torch.equal(v, back.encoder.state_dict()[k]) for k, v in expected.state_dict().items())
    assert [p.name for p in saved.parent.iterdir()] == ["e.safetensors"]


@pytest.mark.parametrize("damage", [
    lambda whole: b"",
    lambda whole: whole[:7],
    lambda whole: whole[: len(whole) // 2],
    lambda whole: whole[:-1],
    lambda whole: whole[:-1] + bytes([whole[-1] ^ 1]),
    lambda whole: whole[:20] + b"\0\0\0" + whole[23:],
    lambda whole: b"not a safetensors file at all",
])
def test_damaged_files(saved, damage):
    saved.write_bytes(damage(saved.read_bytes()))
    with pytest.raises(ValueError, match="`path` must"): read_encoder(saved)


def test_a_foreign_safetensors_file(tmp_path):
    from safetensors.torch import save_file

    save_file({"w": torch.rand(3)}, tmp_path / "foreign.safetensors")
    with pytest.raises(ValueError, match="It is not ours"): read_encoder(tmp_path / "foreign.safetensors")


def test_the_last_good_file_stays_when_writing_fails(saved, monkeypatch):
    import safetensors.torch

    def broken(*args, **kwargs): raise OSError("no space left on device")

    monkeypatch.setattr(safetensors.torch, "save_file", broken)
    with pytest.raises(OSError): save_encoder(small(), saved, name="other", image_shape=(1, 28, 28))
    assert read_encoder(saved).name == "test"


# Loaders ------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("name", ["untrained:fashion-mnist", "untrained:scenes", *(f"planted:{c}" for c in PLANTED), *encoders.BUNDLED])
def test_every_known_name_loads_and_suits_its_images(name):
    frozen = load_encoder(name)
    assert frozen.name == name and len(frozen.maps) == 5
    images = draw_scenes(4, seed=0).float() if frozen.image_shape[0] == 3 else GOOD
    frozen.check(images)
    assert frozen.embed(images).isfinite().all() and not frozen.training


@pytest.mark.parametrize("name", encoders.BUNDLED)
def test_bundled_files_are_small_and_say_how_they_were_made(name):
    path = Path(encoders.__file__).parents[1] / "weights" / f"{name.replace(':', '-')}.safetensors"
    assert path.stat().st_size < 1_000_000
    saved = read_encoder(path)
    assert (saved.name == name and saved.note["steps"] > 0
            and json.loads(saved.note["run"])["settings"]["model"]["method"] == name.split(":")[0])


def test_unknown_names():
    for name in ["", "simclr", "simclr:", "nothing:scenes", "planted:pink", "untrained:cifar10", "timm:"]:
        with pytest.raises(ValueError, match="Known: simclr:fashion-mnist"): load_encoder(name)


def fake_package(monkeypatch, name, **contents):
    module = types.ModuleType(name)
    for key, value in contents.items(): setattr(module, key, value)
    monkeypatch.setitem(sys.modules, name, module)
    return module


def test_timm_names(monkeypatch):
    asked = []

    def create_model(name, pretrained):
        asked.append((name, pretrained))
        module = Residual()
        module.pretrained_cfg = {"mean": (0.1, 0.2, 0.3), "std": (0.5, 0.5, 0.5)}
        return module

    fake_package(monkeypatch, "timm", create_model=create_model)
    frozen = load_encoder("timm:resnet18")
    assert asked == [("resnet18", True)] and frozen.mean.flatten().tolist() == pytest.approx([0.1, 0.2, 0.3])
    frozen.check(draw_scenes(3, seed=0).float())
    assert frozen.name == "timm:resnet18" and all(not p.requires_grad for p in frozen.parameters())


def test_torchvision_names(monkeypatch):
    asked = []
    fake_package(monkeypatch, "torchvision")
    fake_package(monkeypatch, "torchvision.models", get_model=lambda name, weights: asked.append((name, weights)) or Residual())
    frozen = load_encoder("torchvision:resnet50")
    assert asked == [("resnet50", "DEFAULT")] and frozen.mean.flatten().tolist() == pytest.approx([0.485, 0.456, 0.406])
    frozen.check(draw_scenes(3, seed=0).float())


def test_hub_names_from_a_folder(tmp_path):
    (tmp_path / "hubconf.py").write_text("from torch import nn\ndef tiny(): return nn.Sequential(nn.Conv2d(3, 4, 3, 2), nn.ReLU(), "
                                         "nn.Conv2d(4, 8, 3, 2))\n")
    frozen = load_encoder(f"hub:{tmp_path}:tiny")
    assert [size[0] for size in frozen.sizes(torch.rand(1, 3, 64, 64))] == [4, 8] and frozen.mean is None
    with pytest.raises(ValueError, match="that hub can load"): load_encoder(f"hub:{tmp_path}:absent")
    with pytest.raises(ValueError, match="hub:owner/repo:model"): load_encoder("hub:tiny")


@pytest.mark.parametrize("package", ["timm", "torchvision"])
def test_packages_that_are_not_installed(package, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)  # what Python looks up first; None means not there
    with pytest.raises(ModuleNotFoundError, match=f"needs the package {package}, which is not installed"):
        load_encoder(f"{package}:resnet18")


def test_a_name_the_package_does_not_know(monkeypatch):
    def create_model(name, pretrained): raise RuntimeError(f"Unknown model ({name})")

    fake_package(monkeypatch, "timm", create_model=create_model)
    with pytest.raises(ValueError, match="something that timm can load: got 'timm:resnot'.*Unknown model"): load_encoder("timm:resnot")


def test_suggested_maps_are_whole_blocks_and_the_last_of_each_resolution():
    module, pictures = Residual().train(), torch.rand(2, 3, 64, 64)
    assert suggest_maps(module, pictures) == ("conv1", "relu")  # bn1 and layer1 are overwritten in place; relu last ran at 8 x 8
    assert module.training and all(len(sub._forward_hooks) == 0 for sub in module.modules())
    assert suggest_maps(small(3, (2, 2, 2, 2, 1)), pictures) == ("block1", "block2", "block3", "block5")


# Planted ------------------------------------------------------------------------------------------------------------

def test_the_cause_is_the_drawn_mask():
    for colour in list(PLANTED):
        scenes = draw_scenes(150, seed=11, settings=SceneSettings(must_have=colour))
        assert torch.equal(PlantedEncoder(colour).cause(scenes.float()), scenes.colour_mask(colour))


@pytest.mark.parametrize("colour", list(PLANTED))
def test_only_the_cause_matters_and_all_of_it_does(colour):
    scenes, encoder = draw_scenes(20, seed=12, settings=SceneSettings(must_have=colour)), PlantedEncoder(colour)
    x, cause = scenes.float().requires_grad_(), scenes.colour_mask(colour)
    encoding = load_encoder(f"planted:{colour}").both(x)
    slope = torch.autograd.grad(encoding.embedding.sum() + sum(m.sum() for m in encoding.maps), x)[0].abs().amax(1)
    assert (slope[~cause] == 0).all() and (slope[cause] > 0).all()
    greys = torch.rand(20, 1, 64, 64, generator=seeded()).expand(20, 3, 64, 64)
    assert torch.equal(encoder(torch.where(cause[:, None], x, greys)), encoder(x))
    per_pixel = torch.autograd.grad(encoder(scenes.float().requires_grad_()).sum(), x, allow_unused=True)[0]
    assert per_pixel is None or per_pixel.isfinite().all()


@pytest.mark.parametrize("distance", [half_cosine_distance, relative_l2])
def test_hiding_more_of_the_cause_is_further_away(distance):
    for colour in ["red", "cyan"]:
        scenes, encoder = draw_scenes(30, seed=13, settings=SceneSettings(must_have=colour)), PlantedEncoder(colour)
        x, cause = scenes.float(), scenes.colour_mask(colour)[:, None]
        order = torch.rand(cause.shape, generator=seeded())
        steps = torch.stack([distance(encoder(x), encoder(torch.where(cause & (order < s), 0.5, x))) for s in torch.linspace(0, 1, 6)])
        assert (steps.diff(dim=0) > 0).all() and steps[0].abs().max() < 1e-6
        outside = distance(encoder(x), encoder(torch.where(cause, x, torch.tensor(0.5))))
        assert outside.abs().max() < 1e-6


def test_every_pixel_of_the_cause_weighs_the_same():
    "A uniform object: all its pixels have one slope, whichever row or column the strides fall on."
    x = torch.full((1, 3, 64, 64), 0.4)
    x[0, :, 7:30, 9:28] = torch.tensor([0.9, 0.05, 0.05])[:, None, None]
    x.requires_grad_()
    encoder = PlantedEncoder("red")
    slope = torch.autograd.grad(encoder(x).sum(), x)[0][0, 0]
    torch.testing.assert_close(slope[7:30, 9:28], slope[7, 9].expand(23, 19))


def test_planted_without_its_colour():
    x = torch.full((2, 3, 64, 64), 0.5)
    encoder = PlantedEncoder("red")
    assert not encoder.cause(x).any() and torch.equal(encoder(x), torch.cat([torch.zeros(2, 16), torch.ones(2, 1)], 1))
    with pytest.raises(ValueError, match="`colour` must be one of"): PlantedEncoder("pink")
