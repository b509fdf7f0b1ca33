"""Encoders of other people: what cannot be proved is refused by name before any time is spent, and what is sound passes. The
modules here stand for a ViT, a Swin, a ConvNeXt and a DenseNet in miniature; each fault was reported by users of some tool.
"""
import sys

import numpy as np
import pytest
import torch
from latentlab.data.images import ImageSet
from latentlab.data.sources import with_images
from latentlab.families.nem.experiment import NEMRun
from latentlab.families.nem.model import NEM, NEMSettings
from latentlab.nn import encoders
from latentlab.nn.encoders import FrozenEncoder, SmallEncoder, load_encoder, read_encoder, save_encoder, suggest_maps
from latentlab.nn.layout import place_maps
from torch import nn

pytestmark = pytest.mark.usefixtures("unchecked")  # the values are of types that a user may hand over, and our annotations do not name


def pictures(n=6, side=32, channels=3):
    coarse = torch.rand(n, channels, 8, 8, generator=torch.Generator().manual_seed(0))
    return nn.functional.interpolate(coarse, side, mode="bilinear")


def net(): return nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 16, 3, 2, 1), nn.ReLU())


def pool(out): return out.mean((-2, -1))


class Around(nn.Module):
    "A small network, with something done before and after."

    def __init__(self, before=lambda x: x, after=lambda out, x: out):
        super().__init__()
        self.net, self.before, self.after, self.last = net(), before, after, nn.Identity()

    def forward(self, x): return self.last(self.after(self.net(self.before(x)), x))


def refusal(module, maps=("net.1", "net.3"), x=None, embed=pool):
    with pytest.raises(ValueError) as error: FrozenEncoder(module, maps, embed, name="theirs").check(pictures() if x is None else x)
    return str(error.value)


def test_a_sound_encoder_passes():
    FrozenEncoder(Around(), ["net.1", "net.3"], pool).check(pictures())


# What training needs ------------------------------------------------------------------------------------------------

class NoGrad(Around):
    @torch.no_grad()
    def forward(self, x): return super().forward(x)


class Inference(Around):
    @torch.inference_mode()
    def forward(self, x): return super().forward(x)


@pytest.mark.parametrize("module", [
    NoGrad, Inference, lambda: Around(after=lambda out, x: out.detach()), lambda: Around(before=lambda x: (9 * x).round()),
    lambda: Around(before=lambda x: torch.from_numpy(x.detach().numpy().copy())), lambda: Around(after=lambda out, x: (out > 0.1).float())])
def test_no_gradient_at_the_pixels(module):
    assert "theirs must have a gradient at the pixels: got none" in refusal(module())


def test_a_gradient_that_is_not_finite():
    module = Around(before=lambda x: (x - x.amin((1, 2, 3), keepdim=True)).sqrt())
    assert "gradient of theirs must be finite" in refusal(module)


def drop(x, p): return nn.functional.dropout2d(x, p, training=True)


class RareDrop(Around):
    "Drops a whole batch now and then, as stochastic depth may."

    def forward(self, x): return super().forward(x) * (torch.rand(()) > 0.5)


@pytest.mark.parametrize("module", [
    lambda: Around(before=lambda x: x * (torch.rand(len(x), 1, 4, 4) < 0.25).float().repeat_interleave(8, 2).repeat_interleave(8, 3)),
    RareDrop, lambda: Around(after=lambda out, x: drop(out, 0.1)), lambda: Around(before=lambda x: x + 0.01 * torch.randn_like(x)),
    lambda: Around(before=lambda x: x * (0.5 + torch.from_numpy(np.random.rand(len(x), 1, 1, 1)).float())),  # noqa: NPY002
])
def test_random_numbers_in_eval_mode(module):
    assert "must give one embedding for one image" in refusal(module())


def test_the_check_leaves_the_random_streams_as_they_were():
    bad, good = Around(before=lambda x: x + torch.randn_like(x)), FrozenEncoder(Around(after=lambda out, x: (torch.rand(3), out)[1]), ["last"], pool)
    before = torch.get_rng_state()
    refusal(bad)
    good.check(pictures())
    assert torch.equal(torch.get_rng_state(), before)


def test_random_numbers_that_change_nothing_are_no_fault():
    FrozenEncoder(Around(before=lambda x: (torch.rand(3), x)[1]), ["net.1", "net.3"], pool).check(pictures())


@pytest.mark.parametrize("module", [lambda: Around(before=lambda x: 0 * x), lambda: Around(after=lambda out, x: 0 * out + 3),
                                    lambda: Around(after=lambda out, x: out - out.detach() + 1)])
def test_an_embedding_that_is_the_same_for_all(module):
    assert "embedding of theirs must differ between images" in refusal(module())


def test_one_image_or_the_same_image_is_no_fault_of_the_encoder():
    frozen = FrozenEncoder(Around(), ["net.1", "net.3"], pool)
    frozen.check(pictures(1))
    frozen.check(pictures(1).expand(5, -1, -1, -1))


@pytest.mark.parametrize("module", [
    lambda: Around(after=lambda out, x: nn.functional.batch_norm(out, None, None, training=True)), lambda: Around(before=lambda x: x - x.mean(0)),
])
def test_an_embedding_that_depends_on_the_other_images(module):
    assert "must not depend on the other images of a batch" in refusal(module())


def test_images_changed_in_place():
    x = pictures()
    assert "change them in place" in refusal(Around(before=lambda x: x.mul_(0.5)), x=x)
    FrozenEncoder(Around(before=lambda x: x.mul_(0.5)), ["net.1", "net.3"], pool, mean=0.5, std=0.5).check(pictures())


# Precision, weights, scripts ----------------------------------------------------------------------------------------

@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_one_precision(dtype):
    said = refusal(Around().to(dtype))
    assert f"must be in float32, as images and masks are: got {dtype} in `net.0.weight`. Call module.float()" in said and "Resize" not in said
    mixed = Around()
    mixed.net[2].to(dtype)
    assert f"got {dtype} in `net.2.weight`" in refusal(mixed)
    said = refusal(Around(), x=pictures().to(dtype))
    assert f"`images` must be float32: got {dtype}. Call images.float()" in said and "Resize" not in said
    assert f"must be float32: got {dtype}" in refusal(Around(after=lambda out, x: out.to(dtype)))


def test_float64_images_are_refused_when_they_are_explained():
    model = NEM(NEMSettings(layers=2), FrozenEncoder(net(), ["1", "3"]), pictures())
    with pytest.raises(ValueError, match="`images` must be float32: got torch.float64"): model.explain(torch.from_numpy(np.random.default_rng(0).random((2, 3, 32, 32))))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite(value):
    module = Around()
    module.net[2].weight.data[0, 0, 0, 0] = value
    said = refusal(module)
    assert "weights of theirs must be finite: got NaN or infinity in `net.2.weight`, and 1 of 4" in said and "earlier checkpoint" in said


def test_a_map_that_is_not_finite_though_the_embedding_is():
    module = Around(after=lambda out, x: nn.functional.avg_pool2d(x, 4))
    module.net[1].forward = lambda x: x / (x - x)
    assert "`maps` must be finite: `net.1` of theirs holds NaN or infinity" in refusal(module, ("net.1", "last"))


def test_weights_that_are_not_there():
    assert "must have its weights: got none for `net.0.weight`" in refusal(Around().to("meta"))
    lazy = nn.Sequential(nn.LazyConv2d(8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 16, 3, 2, 1))
    with pytest.raises(ValueError, match="must have its weights: got none for `0.weight`"): FrozenEncoder(lazy, ["1", "2"])


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_scripted_modules():
    for module in (torch.jit.script(net()), torch.jit.trace(net(), pictures())):
        with pytest.raises(ValueError, match="scripted or traced by TorchScript.*module that it was made from"): FrozenEncoder(module, ["1", "3"])
    inside = nn.Sequential(torch.jit.script(net()), nn.Conv2d(16, 8, 1))
    with pytest.raises(ValueError, match="TorchScript"): FrozenEncoder(inside, ["0.1", "1"])


# Maps ---------------------------------------------------------------------------------------------------------------

class Attention(nn.Module):
    "Self-attention with its keys and its attention matrix as submodules, as timm's has."

    def __init__(self, width=16, heads=4):
        super().__init__()
        self.heads, self.qkv, self.keys, self.matrix, self.out = heads, nn.Linear(width, 3 * width), nn.Identity(), nn.Identity(), nn.Linear(width, width)

    def forward(self, x):
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        mixed = self.matrix((q @ self.keys(k).mT / 2).softmax(-1)) @ v
        return self.out(mixed.transpose(1, 2).flatten(2))


class TokenBlock(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm, self.attn, self.mlp = nn.LayerNorm(16), Attention(), nn.Sequential(nn.LayerNorm(16), nn.Linear(16, 32), nn.GELU(), nn.Linear(32, 16))

    def forward(self, x):
        x = x + self.attn(self.norm(x))
        return x + self.mlp(x)


class ViT(nn.Module):
    "A transformer on patches of 4 px with a class token; it reads 32 px and no other size."

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.patch, self.token, self.place = nn.Conv2d(3, 16, 4, 4), nn.Parameter(torch.randn(1, 1, 16)), nn.Parameter(torch.randn(1, 65, 16))
        self.blocks, self.norm = nn.Sequential(*[TokenBlock() for _ in range(6)]), nn.LayerNorm(16)

    def forward(self, x):
        x = self.patch(x).flatten(2).mT
        return self.norm(self.blocks(torch.cat([self.token.expand(len(x), -1, -1), x], 1) + self.place))[:, 0]


class ChannelsLast(nn.Module):
    "Stages [batch, height, width, channel], as Swin and the insides of ConvNeXt have them."

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.patch, self.stage1 = nn.Conv2d(3, 16, 2, 2), nn.Sequential(nn.LayerNorm(16), nn.Linear(16, 16), nn.GELU())
        self.merge, self.stage2 = nn.Linear(64, 8), nn.Sequential(nn.LayerNorm(8), nn.Linear(8, 8))

    def forward(self, x):
        x = self.stage1(self.patch(x).permute(0, 2, 3, 1))
        x = self.merge(torch.cat([x[:, r::2, c::2] for r in (0, 1) for c in (0, 1)], -1))
        return self.stage2(x).mean((1, 2))


class Dense(nn.Module):
    "Blocks, a last normalisation, and a ReLU in place on it, as in DenseNet."

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.features = nn.Sequential()
        for name, layer in {"block1": nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU()), "block2": nn.Sequential(nn.Conv2d(8, 16, 3, 2, 1), nn.ReLU()),
                            "norm": nn.BatchNorm2d(16)}.items(): self.features.add_module(name, layer)

    def forward(self, x): return pool(nn.functional.relu(self.features(x), inplace=True))


class UpAgain(nn.Module):
    "Down to a small map and up again: the smallest map is not the deepest."

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.down1, self.down2, self.down3 = (nn.Sequential(nn.Conv2d(a, 8, 3, 2, 1), nn.ReLU()) for a in (3, 8, 8))
        self.up = nn.Sequential(nn.Upsample(scale_factor=2), nn.Conv2d(8, 8, 3, 1, 1), nn.ReLU())

    def forward(self, x):
        mid = self.down2(self.down1(x))
        return pool(mid + self.up(self.down3(mid)))


def test_a_transformer_is_explained_by_its_blocks():
    module, x = ViT().eval(), pictures()
    maps = suggest_maps(module, x)
    assert maps == ("blocks.0", "blocks.1", "blocks.3", "blocks.4", "blocks.5")
    frozen = FrozenEncoder(module, maps)
    frozen.check(x)
    before = frozen.embed(x)
    for block in module.blocks: block.mlp[1].weight.mul_(3)
    assert not torch.equal(before, frozen.embed(x))


@pytest.mark.parametrize("name", ["blocks.2.attn.keys", "blocks.2.attn.matrix"])
def test_keys_and_attention_matrices_are_no_maps(name):
    said = refusal(ViT(), (name,), embed=lambda out: out)
    assert f"`{name}` is none, for " in said and "These pass: blocks.0, blocks.1, blocks.3, blocks.4, blocks.5." in said


def test_channels_last_are_named_and_the_names_that_pass_are_said():
    for name in ("stage1", "stage1.1"):
        said = refusal(ChannelsLast(), (name,), embed=lambda out: out)
        assert f"`{name}` is none, for its rows follow the image's columns, so its channels come last" in said and "These pass: patch." in said
    assert suggest_maps(ChannelsLast().eval(), pictures()) == ("patch",)


def square(out): return out.flatten(2).mT.unflatten(1, (8, 8))  # [batch, 8, 8, 8] of an output of 8 channels: no axis can be told by its size


def test_a_cube_of_equal_sides_is_told_by_what_moves():
    plain, turned = (nn.Sequential(nn.Conv2d(3, 8, 4, 4), nn.Identity(), nn.Conv2d(8, 4, 3, 2, 1)) for _ in range(2))
    FrozenEncoder(plain, ["1", "2"]).check(pictures())
    turned[1].forward, turned[2].forward = square, lambda out: nn.functional.avg_pool2d(out, 2)
    assert "so its channels come last" in refusal(turned, ("1", "2"), embed=pool)


@pytest.mark.parametrize("change, word", [(lambda m: m.mT, "exchanged"), (lambda m: m.flip(-1), "mirrored"), (lambda m: m.flip(-2), "mirrored"),
    (lambda m: m.flatten(2).roll(1, -1).view(m.shape), "do not follow"), (lambda m: m.mean((-2, -1), keepdim=True).expand(m.shape), "do not follow")])
def test_other_orders_of_the_cells(change, word):
    module = Around(after=lambda out, x: change(out))
    assert f"`last` is none, for its rows and columns {word}" in refusal(module, ("last",)) or word in refusal(module, ("last",))


def test_what_a_later_layer_overwrites_is_not_proposed():
    module, x = Dense().eval(), pictures()
    maps = suggest_maps(module, x)
    assert maps == ("features.block1", "features.block2")
    FrozenEncoder(module, maps).check(x)
    said = refusal(Dense(), ("features.block1", "features.norm"), embed=lambda out: out)
    assert "`features.norm` is changed in place by a later layer" in said and "These pass: features.block1, features.block2." in said


def test_the_last_proposed_map_is_the_deepest():
    module, x = UpAgain().eval(), pictures()
    maps = suggest_maps(module, x)
    assert maps[-1] == "up" and "down3" not in maps
    FrozenEncoder(module, maps).check(x)


def test_maps_are_named_in_the_order_in_which_they_are_computed():
    assert "Name them as blocks.1, blocks.5" in refusal(ViT(), ("blocks.5", "blocks.1"), embed=lambda out: out)


def test_what_is_no_map_is_refused_with_the_names_that_pass():
    module = nn.Sequential(*net(), nn.Flatten(), nn.Linear(16 * 64, 8))
    said = refusal(module, ("1", "5"), embed=lambda out: out)
    assert "`5` returned shape (1, 8)" in said and "These pass: 1, 3." in said


def test_nothing_passes():
    with pytest.raises(ValueError, match="must have a layer that gives a feature map of the image.*Name the maps yourself"):
        suggest_maps(nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 64), nn.Unflatten(1, (4, 4, 4))), pictures())


@pytest.mark.parametrize("size", [(65, 43), (17, 5), (3, 200), (2, 2), (60, 1)])
def test_odd_sizes_stay_good(size):
    x = torch.rand(3, 3, *size, generator=torch.Generator().manual_seed(0))
    frozen = FrozenEncoder(net(), ["1", "3"])
    frozen.check(x)
    assert NEM(NEMSettings(layers=2), frozen, x).explain(x).keep.shape == (3, *size)


@pytest.mark.slow
def test_compiled_and_parallel_encoders_stay_good():
    x, m, late = pictures(), net(), net()
    plain = FrozenEncoder(m, ["1", "3"]).embed(x)
    late.load_state_dict(m.state_dict())
    late.compile(backend="eager")
    for frozen in (FrozenEncoder(torch.compile(m, backend="eager"), ["_orig_mod.1", "_orig_mod.3"]),
                   FrozenEncoder(nn.DataParallel(m), ["module.1", "module.3"]), FrozenEncoder(late, ["1", "3"])):
        frozen.check(x)
        torch.testing.assert_close(frozen.embed(x), plain, atol=1e-6, rtol=0)


# Time ---------------------------------------------------------------------------------------------------------------

def counted(module):
    calls = []
    module.register_forward_hook(lambda m, i, out: calls.append(len(i[0])) and None)
    return calls


def test_the_proof_is_bounded_and_made_once():
    module = net()
    calls = counted(module)
    frozen = FrozenEncoder(module, ["1", "3"])
    frozen.check(pictures(500, 16))
    first = len(calls)
    assert first <= 40 and sum(calls) <= 100, "passes, and images that went through"
    frozen.check(pictures(500, 16))
    assert len(calls) - first <= 12
    before = len(calls)
    FrozenEncoder(module, ["1"]).check(pictures(4, 16))
    assert set(encoders.PROVED[module]) == {("1", "", (3, 16, 16)), ("3", "", (3, 16, 16))} and len(calls) - before <= 12


def test_what_was_proved_while_maps_were_chosen_is_not_proved_again(monkeypatch):
    made = []
    monkeypatch.setattr(encoders, "place_maps", lambda run, x: made.append(1) or place_maps(run, x))
    module = nn.Sequential(net(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    frozen = encoders.open_encoder(module, size=32, mean=0.5, std=0.25, quiet=True)
    assert made == [1]
    frozen.check(pictures(4, 48))  # resized to what it reads: the same maps
    assert made == [1]
    chosen = dict.fromkeys(frozen.maps, "NHWC")  # and a layout that was not proved is proved, and refused
    with pytest.raises(ValueError, match="is none, for its rows follow the image's columns"):
        FrozenEncoder(module, frozen.maps, "output", size=(32, 32), layouts=chosen, mean=0.5, std=0.25).check(pictures(4, 48))
    assert made[:2] == [1, 1]
    with pytest.raises(ValueError, match="is none"): encoders.open_encoder(module, size=32, maps=chosen, quiet=True)


def test_a_proof_of_one_size_or_module_is_none_for_another(monkeypatch):
    module, made = nn.Sequential(net(), nn.AdaptiveAvgPool2d(1), nn.Flatten()), []
    encoders.open_encoder(module, size=32, quiet=True)
    monkeypatch.setattr(encoders, "place_maps", lambda run, x: made.append(tuple(x.shape[2:])) or place_maps(run, x))
    encoders.open_encoder(module, size=40, quiet=True)
    assert made == [(40, 40)]
    encoders.open_encoder(nn.Sequential(net(), nn.AdaptiveAvgPool2d(1), nn.Flatten()), size=32, quiet=True)
    assert made == [(40, 40), (32, 32)]


def test_our_own_kinds_are_proved_once_in_a_process(monkeypatch):
    load_encoder("simclr:scenes").check(pictures(6, 64))
    monkeypatch.setattr(encoders, "place_maps", lambda *args: pytest.fail("proved again"))
    load_encoder("swav:scenes").check(pictures(6, 64))


def test_right_maps_are_far_from_the_threshold():
    for frozen, x in ((FrozenEncoder(net(), ["1", "3"]), pictures()), (load_encoder("simclr:scenes"), pictures(2, 64))):
        for place in place_maps(lambda z, frozen=frozen: dict(zip(frozen.maps, frozen.features(z))), x[:2]).values():
            assert min(place.rows, place.columns) > 0.97 and max(abs(place.rows_with_columns), abs(place.columns_with_rows)) < 0.1


# Sizes and normalisation --------------------------------------------------------------------------------------------

def test_an_encoder_of_one_size_is_judged_and_built_at_that_size():
    x = pictures()
    frozen = FrozenEncoder(ViT(), ["blocks.1", "blocks.5"])
    frozen.check(x)
    assert NEM(NEMSettings(layers=2), frozen, x).explain(x).keep.shape == (6, 32, 32)
    said = refusal(ViT(), ("blocks.1", "blocks.5"), x=pictures(side=64), embed=lambda out: out)
    assert "`images` must suit the encoder theirs: got (3, 64, 64)" in said


def test_an_outside_encoder_of_one_size_reads_any_and_explains_in_the_images_own_size(monkeypatch):
    monkeypatch.setattr(encoders, "outside_module", lambda kind, model: (ViT(), {}))
    frozen = encoders.load_outside("timm:vit")
    assert frozen.size == (32, 32) and frozen.image_shape is None and frozen.maps[-1] == "blocks.5"
    images = ImageSet(name="own", split="train", images=(255 * pictures(60, 48)).byte())
    setup = with_images(NEMRun().replace({"model.layers": 2, "train.batch": 8}), images).build("cpu", encoder=frozen)
    assert setup.preview.shape == (8, 3, 48, 48) and setup.model.explain(setup.preview).keep.shape == (8, 48, 48)
    monkeypatch.setattr(encoders, "outside_module", lambda kind, model: (net(), {}))
    assert encoders.load_outside("timm:net").size is None


HUB = """from torch import nn
def tiny(): return nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 16, 3, 2, 1), nn.ReLU())
def declares():
    found = tiny()
    found.default_cfg = {"mean": (0.1, 0.2, 0.3), "std": (0.4, 0.5, 0.6)}
    return found
"""


def test_a_hub_entry_is_normalised_only_as_it_declares_or_as_is_said(tmp_path):
    (tmp_path / "hubconf.py").write_text(HUB)
    assert load_encoder(f"hub:{tmp_path}:tiny").mean is None
    assert load_encoder(f"hub:{tmp_path}:declares").std.flatten().tolist() == pytest.approx([0.4, 0.5, 0.6])
    said = load_encoder(f"hub:{tmp_path}:declares", mean=np.full(3, 0.5), std=0.25)
    assert said.mean.flatten().tolist() == [0.5] * 3 and said.std.flatten().tolist() == [0.25]


@pytest.mark.parametrize("given", [{"mean": (0.5,) * 3, "std": (0.5,) * 3}, {"mean": np.full(3, 0.5), "std": np.full(3, 0.5)[::-1]},
                                   {"mean": torch.full((3, 1, 1), 0.5), "std": [np.float32(0.5)] * 3}, {"mean": 0.5, "std": np.float64(0.5)}])
def test_normalisation_of_any_kind(given):
    m = net()
    x, frozen = pictures(), FrozenEncoder(m, ["1", "3"], **given)
    frozen.check(x)
    torch.testing.assert_close(frozen.embed(x), pool(m((x - 0.5) / 0.5)))


@pytest.mark.parametrize("given, rule", [
    ({"mean": (0.5,) * 3}, "got mean alone"), ({"std": (0.5,) * 3}, "got std alone"), ({"mean": (0.5, 0.5), "std": (0.5,) * 3}, "one number for each"),
    ({"mean": (123.7, 116.3, 103.5), "std": (58.4, 57.1, 57.4)}, "Divide by 255"), ({"mean": 0.5, "std": 0.0}, "above 0"),
    ({"mean": 0.5, "std": float("nan")}, "above 0"), ({"mean": "imagenet", "std": "imagenet"}, "`mean` must be an array of numbers")])
def test_normalisation_that_cannot_be_meant(given, rule):
    with pytest.raises(ValueError, match=rule): FrozenEncoder(net(), ["1", "3"], image_shape=(3, 32, 32), **given)


# Files --------------------------------------------------------------------------------------------------------------

def test_weights_of_half_precision_on_disk(tmp_path):
    from safetensors.torch import save_file

    save_file({"w": torch.ones(3, dtype=torch.bfloat16)}, tmp_path / "a.safetensors")
    with pytest.raises(ValueError, match="It is not ours"): read_encoder(tmp_path / "a.safetensors")
    module = SmallEncoder(1).bfloat16()
    back = read_encoder(save_encoder(module, tmp_path / "b.safetensors", name="x", image_shape=(1, 28, 28))).encoder
    assert all(torch.equal(a.float(), b.float()) for a, b in zip(module.state_dict().values(), back.state_dict().values()))
    assert next(back.parameters()).dtype == torch.float32


@pytest.mark.parametrize("about", [
    "{}", "[]", "null", "[" * 5000 + "]" * 5000, '{"architecture": {"channels": 1, "strides": [1], "widths": [1000000000]}, "name": "x"}',
    '{"architecture": {"channels": 1, "strides": [2, 2], "widths": [4, 8], "evil": 1}, "name": "x", "image_shape": [1, 8, 8], "note": {}}',
    '{"architecture": {"channels": 1, "strides": [2, 2], "widths": [4, 8]}, "name": "x", "image_shape": "ab", "note": {}}'])
def test_forged_headers(tmp_path, about):
    from safetensors.torch import save_file

    tensors = SmallEncoder(1, (2, 2), (4, 8)).state_dict()
    save_file(tensors, tmp_path / "a.safetensors", metadata={"about": about, "sha256": encoders.weights_digest(tensors)})
    with pytest.raises(ValueError, match="`path` must hold an encoder and what it is"): read_encoder(tmp_path / "a.safetensors")


@pytest.mark.parametrize("kind", ["timm", "torchvision"])
@pytest.mark.parametrize("build", ["+cpu", ""])
def test_torch_and_torchvision_of_two_builds_are_named(build, kind, monkeypatch, tmp_path):
    "With the command that mends it: the index of the same build, for an upgrade from elsewhere brings 2 GB of CUDA, or finds nothing to do."
    monkeypatch.setattr(torch, "__version__", f"2.13.0{build}")
    (tmp_path / f"{kind}.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, kind, raising=False)
    told = r"needs a torchvision that was built with torch 2\.13\.0.*nms does not exist.*pip install --force-reinstall torch==2\.13\.0 torchvision"
    with pytest.raises(ImportError, match=told + (" --index-url INDEX, where INDEX is that of PyTorch's cpu builds" if build else "$")): load_encoder(f"{kind}:resnet18")
