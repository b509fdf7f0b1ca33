"""Encoders of other people, opened: by their own interface where they have one, else by layers that pass the proof. The models here stand for those of
timm, Hugging Face and torchvision in miniature, with the same interfaces; `benchmarks/encoders.py` goes through the real ones.
"""
import sys
import types
from collections import OrderedDict

import pytest
import torch
from latentlab.data.sources import with_images
from latentlab.families.nem.experiment import NEMRun
from latentlab.nn.encoders import load_encoder, open_encoder, suggest_maps, wrap_encoder
from latentlab.nn.readers import probe_images
from latentlab.train.trainer import Trainer
from torch import nn

pytestmark = pytest.mark.usefixtures("unchecked")  # the values are of types that a user may hand over, and our annotations do not name


def block(width): return nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))


class Tokens(nn.Module):
    "A transformer on patches with any number of extra tokens; timm's interface, and a classifier."

    def __init__(self, size=(32, 32), patch=8, extra=1, depth=6, width=16):
        super().__init__()
        torch.manual_seed(0)
        self.grid, self.num_prefix_tokens = (size[0] // patch, size[1] // patch), extra
        self.pretrained_cfg = {"input_size": (3, *size), "mean": (0.5,) * 3, "std": (0.5,) * 3}
        self.feature_info = [{"module": f"blocks.{i}"} for i in range(depth)]
        self.patch = nn.Conv2d(3, width, patch, patch)
        self.cls_token = nn.Parameter(torch.randn(1, extra, width)) if extra else None
        self.place = nn.Parameter(torch.randn(1, extra + self.grid[0] * self.grid[1], width))
        self.blocks, self.norm, self.head = nn.ModuleList([block(width) for _ in range(depth)]), nn.LayerNorm(width), nn.Linear(width, 10)

    def states(self, x):
        h = self.patch(x).flatten(2).mT
        if self.cls_token is not None: h = torch.cat([self.cls_token.expand(len(x), -1, -1), h], 1)
        found = [h + self.place]
        for one in self.blocks: found.append(found[-1] + one(found[-1] + found[-1].mean(1, keepdim=True)))
        return found

    def forward_features(self, x): return self.norm(self.states(x)[-1])

    def forward_head(self, h, pre_logits=False):
        h = h[:, 0] if self.num_prefix_tokens else h.mean(1)
        return h if pre_logits else self.head(h)

    def forward_intermediates(self, x, indices=None, output_fmt="NCHW"):
        assert output_fmt == "NCHW"
        states = self.states(x)
        take = range(len(self.blocks)) if indices is None else indices
        return self.norm(states[-1]), [states[1 + i][:, self.num_prefix_tokens:].mT.unflatten(2, self.grid) for i in take]

    def forward(self, x): return self.forward_head(self.forward_features(x))


class ModelOutput(OrderedDict):
    "A mapping whose parts are attributes too, as Hugging Face's is."
    __getattr__ = OrderedDict.get


class Pixels(nn.Module):
    "Called with `pixel_values`, returns a `ModelOutput`."

    def __init__(self, pooler=True, **how):
        super().__init__()
        self.inside, self.pooler = Tokens(**how), nn.Linear(16, 16) if pooler else None
        size = self.inside.pretrained_cfg["input_size"][1:]
        self.config = types.SimpleNamespace(image_size=size[0] if size[0] == size[1] else list(size))

    def forward(self, pixel_values, output_hidden_states=False, return_dict=True):
        states = self.inside.states(pixel_values)
        last = self.inside.norm(states[-1])
        found = ModelOutput(last_hidden_state=last)
        if self.pooler: found["pooler_output"] = self.pooler(last[:, 0]).tanh()
        if output_hidden_states: found["hidden_states"] = tuple(states)
        return found


class Stages(nn.Module):
    "Channels last inside, and a classifier: a Swin of torchvision in miniature."

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.patch, self.stage1 = nn.Conv2d(3, 16, 2, 2), nn.Sequential(nn.LayerNorm(16), nn.Linear(16, 16), nn.GELU())
        self.merge, self.stage2, self.head = nn.Linear(64, 8), nn.Sequential(nn.LayerNorm(8), nn.Linear(8, 8)), nn.Linear(8, 10)

    def forward(self, x):
        x = self.stage1(self.patch(x).permute(0, 2, 3, 1))
        x = self.merge(torch.cat([x[:, r::2, c::2] for r in (0, 1) for c in (0, 1)], -1))
        return self.head(self.stage2(x).mean((1, 2)))


def net(): return nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 16, 3, 2, 1), nn.ReLU())


def opened(thing, **how): return wrap_encoder(thing.eval(), **how)


# By their own interface ---------------------------------------------------------------------------------------------

@pytest.mark.parametrize("size, extra", [((32, 32), 1), ((32, 32), 5), ((32, 32), 0), ((48, 32), 1), ((32, 64), 5)])
def test_a_timm_model_by_its_own_maps_and_pooled_features(size, extra):
    model, x = Tokens(size, extra=extra).eval(), probe_images(3, size)
    frozen = opened(model)
    proof = frozen.check(x)
    assert frozen.maps == tuple(f"maps.blocks_{i}" for i in (0, 1, 3, 4, 5)) and frozen.size == size and proof.own < 1e-5
    with torch.no_grad(): last, maps = model.forward_intermediates((x - 0.5) / 0.5)
    torch.testing.assert_close(frozen.embed(x), model.forward_head(last, pre_logits=True))
    torch.testing.assert_close(frozen.features(x)[-1], maps[-1])
    assert all(place.placed and shape == (16, *model.grid) for _, shape, place in proof.maps.values())


@pytest.mark.parametrize("size, extra, pooler", [((32, 32), 1, True), ((32, 32), 0, False), ((48, 32), 1, True), ((32, 32), 5, False), ((64, 48), 5, True)])
def test_a_model_output_and_its_token_grids(size, extra, pooler):
    model, x = Pixels(pooler, size=size, extra=extra).eval(), probe_images(3, size)
    if not extra: model.inside.forward_head = None
    frozen = opened(model, embed=None if pooler else "mean")
    assert frozen.maps == tuple(f"maps.state_{i}" for i in (1, 2, 4, 5, 6)) and frozen.mean is None
    with torch.no_grad(): output = model(x, output_hidden_states=True)
    expected = output.pooler_output if pooler else output.last_hidden_state[:, extra:].mean(1)
    torch.testing.assert_close(frozen.embed(x), expected)
    torch.testing.assert_close(frozen.features(x)[-1], output.hidden_states[-1][:, extra:].mT.unflatten(2, model.inside.grid))


@pytest.mark.parametrize("model", [Tokens(extra=5), Pixels(extra=5)], ids=["timm", "mapping"])
def test_the_embedding_is_chosen(model):
    x, tokens = probe_images(3, (32, 32)), model.eval() if isinstance(model, Tokens) else model.eval().inside
    normal = {} if isinstance(model, Tokens) else {"mean": 0.5, "std": 0.5}
    with torch.no_grad():
        last = tokens.forward_features((x - 0.5) / 0.5)
        torch.testing.assert_close(opened(model, embed="class", **normal).embed(x), last[:, 0])
        torch.testing.assert_close(opened(model, embed="mean", **normal).embed(x), last[:, 5:].mean(1))
    taken = opened(model, embed=lambda out: (out if isinstance(out, torch.Tensor) else out["last_hidden_state"])[:, 1], **normal)
    torch.testing.assert_close(taken.embed(x), last[:, 1])
    if isinstance(model, Tokens):
        torch.testing.assert_close(opened(model, embed="output").embed(x), model((x - 0.5) / 0.5))
        torch.testing.assert_close(opened(model, embed="class:norm").embed(x), last[:, 0])
    else: torch.testing.assert_close(opened(model, embed="pooler", **normal).embed(x), model.pooler(last[:, 0]))
    with pytest.raises(ValueError, match="`maps` must name submodules of .*: got 'poler'"): opened(model, embed="poler")
    with pytest.raises(ValueError, match="without a class token: got class"): opened(Tokens(extra=0), embed="class")
    with pytest.raises(ValueError, match="it returns last_hidden_state, hidden_states. Choose another"): opened(Pixels(pooler=False), embed="pooled")


def test_maps_are_chosen_by_number_by_name_or_by_layer():
    model, x = Tokens().eval(), probe_images(3, (32, 32))
    for maps in ([1, 5], ["blocks.1", "blocks.5"]): assert opened(model, maps=maps).maps == ("maps.blocks_1", "maps.blocks_5")
    layers = opened(model, maps=["patch", "blocks.5.1"])
    assert layers.maps == ("model.patch", "model.blocks.5.1") and layers.sizes(x) == ((16, 4, 4), (32, 4, 4))
    torch.testing.assert_close(layers.embed(x), opened(model).embed(x))
    for wrong, words in ((["block.5"], "Did you mean"), ([7], "It has 0 to 5: blocks.0"), ("blocks.1", "Write .'blocks.1'.")):
        with pytest.raises(ValueError, match=words): opened(model, maps=wrong)


# By their layers ----------------------------------------------------------------------------------------------------

def test_channels_last_maps_are_turned_where_that_is_proved():
    model, x = Stages().eval(), probe_images(3, (64, 64))
    frozen = opened(model, size=64)
    assert frozen.maps == ("stage1", "stage2") and frozen.layouts == {"stage1": "NHWC", "stage2": "NHWC"} and frozen.sizes(x) == ((16, 32, 32), (8, 16, 16))
    assert "stage2: 8 x 16 x 16, NHWC, a map of the image" in str(frozen.check(x))
    assert opened(model, size=64, maps=["patch", "stage2"]).layouts == {"stage2": "NHWC"}
    assert suggest_maps(model, x) == ("patch",)


@pytest.mark.parametrize("maps, words", [({"stage2": "NCHW"}, "`stage2` is none, for its rows follow the image's columns, so its channels come last"),
                                         ({"patch": "NHWC"}, "`patch` is none"), ({"stage2": "NWHC"}, "`layouts` must say NCHW, NHWC, tokens")])
def test_a_layout_that_is_said_is_proved_like_any_other(maps, words):
    with pytest.raises(ValueError, match=words): opened(Stages(), size=64, maps=maps)
    assert opened(Stages(), size=64, maps={"stage2": "NHWC"}).maps == ("stage2",)


def test_the_embedding_of_a_module_without_an_interface():
    model, x = Stages().eval(), probe_images(3, (64, 64))
    output = opened(model, size=64)
    pooled = opened(model, size=64, embed="pooled")
    assert torch.equal(output.embed(x), model(x)) and pooled.embed(x).shape == (4, 8) and pooled.check(x).own < 1e-6
    torch.testing.assert_close(model.head(pooled.embed(x)), model(x))
    assert opened(net(), size=32).embed(probe_images(3, (32, 32))).shape == (4, 16), "a map is pooled"
    with pytest.raises(ValueError, match="must be mean, output or the name of a layer for Sequential: got pooled"): opened(net(), size=32, embed="pooled")


# The proof ----------------------------------------------------------------------------------------------------------

class Sabotaged(Tokens):
    "Its maps as its attention keys, its attention matrix, or channels last; or a constant embedding; or another one than its own."

    def __init__(self, how):
        super().__init__()
        self.how = how

    def forward_intermediates(self, x, indices=None, output_fmt="NCHW"):
        last, maps = super().forward_intermediates(x, indices)
        keys = lambda m: m.flatten(2).mT.unflatten(-1, (4, 4)).permute(0, 2, 1, 3)
        change = {"heads": keys, "attention": lambda m: (keys(m) @ keys(m).mT).softmax(-1), "channels last": lambda m: m.permute(0, 2, 3, 1)}
        return last + 1 if self.how == "other" else last, [change.get(self.how, lambda m: m)(m) for m in maps]

    def forward_head(self, h, pre_logits=False): return 0 * h[:, 0] + 1 / 49 if self.how == "constant" else super().forward_head(h, pre_logits)


@pytest.mark.parametrize("how, words", [
    ("heads", "`maps.blocks_0` is none, for its rows and columns do not follow.*These pass: model.blocks.0, model"),
    ("attention", "`maps.blocks_0` is none.*These pass: model.blocks.0, model"), ("channels last", "`maps.blocks_0` is none, for its rows follow.*channels come last"),
    ("constant", "must differ between images: got the same for all"), ("other", "must be what the model itself returns: got one that differs by")])
def test_a_wrong_layout_or_embedding_is_refused_by_name(how, words):
    with pytest.raises(ValueError, match=words): opened(Sabotaged(how))


def test_the_report_is_printed_and_kept_in_the_run(capsys, tmp_path):
    frozen = open_encoder(Tokens())
    said = capsys.readouterr().out
    assert "Tokens on images of 32 x 32, normalised" in said and "maps.blocks_5: 16 x 4 x 4, a map of the image" in said
    assert "embedding: pooled, 16 numbers, the model's own to" in said and "a step costs about, in the encoder: 4 images" in said
    open_encoder(Tokens(), quiet=True)
    assert capsys.readouterr().out == ""
    setup = with_images(run(), (255 * probe_images(3, (48, 40), 60)).byte()).build("cpu", encoder=frozen)
    assert "Tokens on images of 48 x 40, resized to 32 x 32 for it" in setup.info["proof"] and "own to" in setup.info["proof"]


# What cannot be opened ----------------------------------------------------------------------------------------------

class Two(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = net()

    def forward(self, x, condition): return self.net(x)


class TwoTowers(nn.Module):
    def __init__(self):
        super().__init__()
        self.config, self.vision_model = types.SimpleNamespace(), net()

    def forward(self, input_ids, pixel_values): return self.vision_model(pixel_values)


class Gives(nn.Module):
    "A small network whose output is put into something."

    def __init__(self, change):
        super().__init__()
        self.net, self.change = net(), change

    def forward(self, x): return self.change(self.net(x))


@pytest.mark.parametrize("thing, words", [
    (lambda: Two(), "`thing` must take images alone: got Two.*'condition'.*Wrap it"), (lambda: TwoTowers(), "Hand over its image tower: model.vision_model"),
    (lambda: Gives(lambda out: {"logits": out.mean((-2, -1))}), "got a mapping with logits. Choose one of them: embed=lambda out: out.'logits'."),
    (lambda: Gives(lambda out: (out, out)), "`embed` must return .batch, latent.: got tuple"),
    (lambda: Gives(lambda out: nn.functional.dropout(out.mean((-2, -1)), 0.5, True)), "draws random numbers in eval mode"),
    (lambda: Gives(lambda out: out).double(), "float32.*got torch.float64|reads none of"), (lambda: torch.rand(3), "`thing` must be a torch.nn.Module or a name"),
    (lambda: nn.Sequential(nn.Flatten(), nn.Linear(100, 4)), "reads none of 224 x 224, 64 x 64, 32 x 32, 28 x 28.*Say size="),
    (lambda: torch.jit.script(net()), "TorchScript"), (lambda: nn.Sequential(net(), nn.AdaptiveAvgPool2d(1), nn.Flatten()).to("meta"), "weights|meta")])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_what_cannot_be_opened_is_said(thing, words):
    with pytest.raises(ValueError, match=words): open_encoder(thing(), quiet=True)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_model_of_half_precision_is_read_in_float32_and_stays_as_it_is(dtype, capsys):
    half = Tokens().to(dtype)
    frozen = open_encoder(half)
    assert "of half precision; a copy of it is read in float32" in capsys.readouterr().out
    assert {one.dtype for one in half.parameters()} == {dtype} and {one.dtype for one in frozen.parameters()} == {torch.float32}
    x = probe_images(3, (32, 32))
    plain = opened(Tokens().to(dtype).float())
    assert torch.equal(frozen.embed(x), plain.embed(x)) and frozen.check(x).own <= 1e-5
    mixed = net()
    mixed[2].to(dtype)
    assert opened(mixed, size=32).maps == ("1", "3")


class Overflows(nn.Module):
    "Float32 weights and float32 out, and a layer between that is computed in half precision: finite in float32, and not there."

    def __init__(self, dtype):
        super().__init__()
        self.net, self.large, self.dtype = net(), nn.Identity(), dtype

    def forward(self, x):
        large = self.large((1e7 * self.net(x)).to(self.dtype))
        return large.float().mean((-2, -1)) / 1e7


def test_nan_in_half_precision_alone_is_named_with_its_layer():
    opened(Overflows(torch.float32), size=32)
    with pytest.raises(ValueError, match="must be finite: got NaN or infinity, first after `large`, in torch.float16, which ends at 65,504: compute it in float32"):
        opened(Overflows(torch.float16), size=32, maps=["net.1", "net.3"])


class Elsewhere(nn.Parameter):
    "A weight that says it is on a GPU, as there is none here."
    device = property(lambda self: torch.device("cuda:1"))


def test_a_model_on_two_devices_and_images_on_a_third_are_named():
    split = net()
    split[2].bias = Elsewhere(split[2].bias.data)
    with pytest.raises(ValueError, match=r"must be on one device: got cpu \(`0.weight`\) and cuda:1 \(`2.bias`\). Call module.to\('cpu'\)"): opened(split, size=32)
    frozen = opened(net(), size=32)
    for one in frozen.parameters(): one.__class__ = Elsewhere
    with pytest.raises(ValueError, match=r"`images` must be on the device of the encoder .*: got cpu for cuda:1. Call images.to\('cuda:1'\), or encoder.to\('cpu'\)"):
        frozen.check(probe_images(3, (32, 32)))


@pytest.mark.parametrize("size", [0, "224", (1, 2, 3), True, 2.5, 10**6])
def test_sizes_that_are_none(size):
    with pytest.raises(ValueError, match="`size` must be a number of pixels or"): opened(net(), size=size)


def test_a_mapping_with_a_key_that_is_known():
    frozen = opened(Gives(lambda out: {"x_norm_clstoken": out.mean((-2, -1)), "other": out}), size=32)
    assert frozen.embed(probe_images(3, (32, 32))).shape == (4, 16) and "the part x_norm_clstoken" in str(frozen.check(probe_images(3, (32, 32))))


def test_names_and_frozen_ones_go_through(monkeypatch, capsys):
    frozen = open_encoder("simclr:scenes")
    assert open_encoder(frozen) is frozen and capsys.readouterr().out == ""
    with pytest.raises(ValueError, match="`maps`, `embed` and `size` must be left out for encoders of our own: got some for 'simclr:scenes'"):
        open_encoder("simclr:scenes", size=64)
    with pytest.raises(ValueError, match="must be a known encoder: got 'vit_small'.*timm:, torchvision:, transformers:, hub:"): open_encoder("vit_small")
    module = types.ModuleType("timm")
    module.create_model = lambda name, pretrained: Tokens()
    monkeypatch.setitem(sys.modules, "timm", module)
    assert open_encoder("timm:tokens", quiet=True).maps[-1] == "maps.blocks_5" and load_encoder("timm:tokens").size == (32, 32)


@pytest.mark.parametrize("wrap", [nn.DataParallel, pytest.param(lambda m: torch.compile(m, backend="eager"), marks=pytest.mark.slow)])
def test_wrapped_models_are_opened(wrap):
    assert opened(wrap(net()), size=32).maps == ("1", "3") and opened(wrap(Tokens())).maps[-1] == "maps.blocks_5"


def test_hooks_of_somebody_else_stay():
    model, seen = Tokens().eval(), []
    model.blocks[0].register_forward_hook(lambda m, i, out: seen.append(len(out)))
    opened(model)
    count = len(seen)
    model(probe_images(3, (32, 32)))
    assert count and len(seen) == count + 1 and len(model.blocks[0]._forward_hooks) == 1


# Sizes --------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("height, width", [(48, 40), (20, 36), (32, 32)])
def test_images_are_resized_for_the_encoder_and_the_mask_has_their_size(height, width):
    frozen, x = opened(Tokens()), probe_images(3, (height, width))
    frozen.check(x)
    small = nn.functional.interpolate(x, (32, 32), mode="bilinear", antialias=max(height, width) > 32)
    torch.testing.assert_close(frozen.embed(x), frozen.embed(small))
    setup = with_images(run(), (255 * probe_images(3, (height, width), 60)).byte()).build("cpu", encoder=frozen)
    assert setup.model.explain(setup.preview).keep.shape == (8, height, width)


# Explanations -------------------------------------------------------------------------------------------------------

def run(**more): return NEMRun().replace({"data": "scenes", "model.layers": 2, "model.width": 4, "train.batch": 4, "train.steps": 3, "train.device": "cpu", **more})


@pytest.mark.parametrize("thing", [Tokens, Pixels, lambda: Stages()])
def test_it_trains_resumes_and_is_told_by_its_weights(thing, tmp_path):
    images = (255 * probe_images(3, (40, 48), 60)).byte()
    own, build = with_images(run(), images), lambda run, device: run.build(device, encoder=opened(thing(), size=32))
    whole = Trainer(own, build=build).fit(3, progress=False)
    cut = Trainer(own, build=build, folder=tmp_path).fit(2, progress=False)
    cut.checkpoint()
    cut = Trainer(own, build=build, folder=tmp_path).resume().fit(1, progress=False)
    assert all(torch.equal(a, b) for a, b in zip(whole.model.unet.parameters(), cut.model.unet.parameters()))
    changed = thing()
    next(changed.parameters()).data.mul_(1.5)
    given = [own.build("cpu", encoder=one).given for one in
             (opened(thing(), size=32), opened(changed, size=32), opened(thing(), size=32, embed="mean", **({} if thing is Tokens else {"mean": 0.5, "std": 0.5})))]
    assert given[0] == {name: value for name, value in whole.session.setup.given.items() if name != "data"} and given[1]["encoder"] != given[0]["encoder"] and given[2] != given[0]


def test_many_images_are_read_in_parts(monkeypatch):
    frozen, seen = opened(Tokens()), []
    frozen.module.model.patch.register_forward_hook(lambda m, i, out: seen.append(len(out)))
    x = probe_images(3, (40, 40), 7)
    monkeypatch.setattr("latentlab.nn.encoders.PIXELS_AT_ONCE", 3 * 32 * 32)
    torch.testing.assert_close(frozen.embed_many(x), frozen.embed(x))
    assert seen == [3, 3, 1, 7]


def test_the_short_name_opens_any_encoder():
    import latentlab as ll

    assert ll.encoder is open_encoder


class Shortcuts(nn.Module):
    "A residual network in the manner of timm before training: its branches add nothing, its shortcuts read one pixel in 16."

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.shortcut1, self.branch1 = nn.Conv2d(3, 8, 1, 4), nn.Sequential(nn.Conv2d(3, 8, 3, 4, 1), nn.BatchNorm2d(8))
        self.shortcut2, self.branch2 = nn.Conv2d(8, 8, 1, 4), nn.Sequential(nn.Conv2d(8, 8, 3, 4, 1), nn.BatchNorm2d(8))
        self.stage1, self.stage2 = nn.Identity(), nn.Identity()
        for branch in (self.branch1, self.branch2): nn.init.zeros_(branch[1].weight)

    def forward(self, x):
        x = self.stage1(self.shortcut1(x) + self.branch1(x))
        return self.stage2(self.shortcut2(x) + self.branch2(x)).mean((-2, -1))


def test_residual_branches_that_begin_at_zero_are_named_as_the_reason():
    with pytest.raises(ValueError, match=r"only \d+ % of the image's patches change it.*2 layers of it, as `branch1\.1`, multiply by 0.*zero_init_last=False"):
        opened(Shortcuts(), maps=["stage1", "stage2"], size=32)
