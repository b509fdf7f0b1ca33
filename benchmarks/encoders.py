"""Encoders of other packages, random weights: are maps and embedding right, does an explainer train on them, and is each sabotage refused?

    python benchmarks/encoders.py               # all that is installed, built for images of 96 px so that one core is enough
    python benchmarks/encoders.py resnet18 swin # those whose names hold one of these
    python benchmarks/encoders.py --native vit  # maps and embedding alone, at the size of the pretrained weights (224 px)

timm, torchvision and transformers are needed for those of their models, and skipped where they are missing. A torchvision of another build than
torch lacks two operators; its models are tried all the same, with those operators declared.
"""
import importlib
import sys
import tempfile
import warnings
from dataclasses import replace

import torch
from latentlab.data.sources import with_images
from latentlab.families.nem.experiment import NEMRun
from latentlab.nn.encoders import FrozenEncoder, apart, wrap_encoder
from latentlab.nn.readers import is_timm, probe_images, takes_pixel_values
from latentlab.train.trainer import Trainer
from torch import nn

warnings.filterwarnings("ignore")
for operator in ("nms", "qnms"):
    try: torch.library.define(f"torchvision::{operator}", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    except Exception: pass


def timm(name, fixed=0, **how):  # `fixed`: pixels of its patches, where it is built for one size
    def make(side):
        sides = side // fixed * fixed if fixed else side
        more = {} if not fixed else {"img_size": (sides, sides * 2 // 3 // fixed * fixed) if name.endswith("!") else sides}
        return importlib.import_module("timm").create_model(name.strip("!"), pretrained=False, **more, **how)

    return make


def vision(name): return lambda side: importlib.import_module("torchvision.models").get_model(name, weights=None)


def vision_transformer(side):
    kind = importlib.import_module("torchvision.models").VisionTransformer
    return kind(image_size=side, patch_size=16, num_layers=6, num_heads=3, hidden_dim=192, mlp_dim=384)


def face(kind, patch=0, **more):
    def make(side):
        package, sized = importlib.import_module("transformers"), {"image_size": side // patch * patch, "patch_size": patch} if patch else {}
        return getattr(package, f"{kind}Model")(getattr(package, f"{kind}Config")(**sized, **more))

    return make


class Plain(nn.Module):
    "A module of nobody's package, with a classifier."

    def __init__(self):
        super().__init__()
        self.stem, self.body = nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1), nn.ReLU()), nn.Sequential(nn.Conv2d(16, 32, 3, 2, 1), nn.ReLU())
        self.head = nn.Linear(32, 10)

    def forward(self, x): return self.head(self.body(self.stem(x)).mean((-2, -1)))


# Residual branches that start from zero leave a random ResNet its strided shortcuts alone, which read one pixel in ten: no image to follow
small = {"hidden_size": 192, "num_hidden_layers": 6, "num_attention_heads": 3}
MODELS = {
    "timm resnet18": timm("resnet18", zero_init_last=False), "timm resnet50": timm("resnet50", zero_init_last=False), "timm densenet121": timm("densenet121"),
    "timm convnext_tiny": timm("convnext_tiny"), "timm efficientnet_b0": timm("efficientnet_b0"),
    "timm mobilenetv3_large_100": timm("mobilenetv3_large_100"), "timm vgg11": timm("vgg11"),
    "timm vit_small_patch16_224": timm("vit_small_patch16_224", 16), "timm vit_small_patch16_224, not square": timm("vit_small_patch16_224!", 16),
    "timm vit_small_patch14_reg4_dinov2": timm("vit_small_patch14_reg4_dinov2", 14), "timm swin_tiny_patch4_window7_224": timm("swin_tiny_patch4_window7_224", 32),
    "torchvision resnet18": vision("resnet18"), "torchvision densenet121": vision("densenet121"), "torchvision convnext_tiny": vision("convnext_tiny"),
    "torchvision efficientnet_b0": vision("efficientnet_b0"), "torchvision mobilenet_v3_small": vision("mobilenet_v3_small"),
    "torchvision vgg11": vision("vgg11"), "torchvision swin_t": vision("swin_t"), "torchvision VisionTransformer, 6 blocks": vision_transformer,
    "Hugging Face ViT, 6 blocks": face("ViT", 16, intermediate_size=384, **small), "Hugging Face Dinov2WithRegisters, 6 blocks": face("Dinov2WithRegisters", 14, **small),
    "Hugging Face ResNet": face("ResNet", depths=[1, 1, 1, 1], hidden_sizes=[32, 64, 96, 128], embedding_size=16, layer_type="basic"),
    "Hugging Face ConvNext": face("ConvNext", depths=[1, 1, 2, 1], hidden_sizes=[32, 64, 96, 128]),
    "Hugging Face Swin": face("Swin", embed_dim=48, depths=[2, 2, 2, 2], num_heads=[3, 3, 6, 12]),
    "Hugging Face CLIPVision, 6 blocks": face("CLIPVision", 16, intermediate_size=384, **small),
    "plain module": lambda side: Plain(),
}


@torch.no_grad()
def reference(model, x):
    "The pooled features by another way than ours: forward_head of forward_features, pooler_output, or torchvision's feature extractor."
    if is_timm(model): return model.forward_head(model.forward_features(x), pre_logits=True)
    if takes_pixel_values(model): return model(pixel_values=x).pooler_output.flatten(1)
    if not type(model).__module__.startswith("torchvision."): return model(x)
    extraction = importlib.import_module("torchvision.models.feature_extraction")
    last = [name for name, sub in model.named_modules() if isinstance(sub, nn.Linear)][-1]
    nodes = extraction.get_graph_node_names(model.eval())[1]
    before = nodes[nodes.index(last) - 1]
    return extraction.create_feature_extractor(model, [before])(x)[before].flatten(1)


class Broken(nn.Module):
    "An encoder with one of its outputs put where a map is expected."

    def __init__(self, inner, change):
        super().__init__()
        self.inner, self.change, self.out = inner, change, nn.Identity()

    def forward(self, x):
        code = self.inner.both(x)
        self.out(self.change(code.maps))
        return code.embedding


def heads(maps):  # [batch, head, token, channel]
    tokens = maps[-1].flatten(2).mT
    return tokens.unflatten(-1, (4, -1)).permute(0, 2, 1, 3) if tokens.shape[-1] % 4 == 0 else tokens[:, None]


def attention(maps):  # [batch, head, token, token]
    tokens = nn.functional.adaptive_avg_pool2d(maps[-1], 7).flatten(2).mT.unflatten(-1, (4, -1)).permute(0, 2, 1, 3)
    return (tokens @ tokens.mT / tokens.shape[-1] ** 0.5).softmax(-1)


def refused(encoder, x):
    "Which sabotages are refused by the name of what is wrong."
    told = {}
    for name, change, words in (("heads", heads, "`out` is none"), ("attention", attention, "`out` is none"),
                                ("channels last", lambda maps: maps[-1].permute(0, 2, 3, 1), "channels come last"),
                                ("constant", None, "must differ between images")):
        try:
            if change is None: FrozenEncoder(Broken(encoder, lambda maps: maps[-1]), ["out"], lambda out: 0 * out + 1 / 49, name="it").check(x)
            else: FrozenEncoder(Broken(encoder, change), ["out"], "output", name="it").check(x)
            told[name] = False
        except ValueError as error: told[name] = words in str(error)
    return told


def trained(encoder):
    "Whether three steps, and two and one after a resume, come to the same bits."
    x = (255 * probe_images(3, (96, 80), 60)).byte()
    run = NEMRun().replace({"data": "scenes", "model.layers": min(3, len(encoder.maps)), "model.width": 4, "train.steps": 3, "train.batch": 2, "train.device": "cpu"})
    run = with_images(run, x)

    def build(run, device):  # one image is measured, for what is asked is whether it trains
        setup = run.build(device, encoder=encoder)
        few = replace(setup.diagnostics, preview=setup.preview[:1], held_out=setup.held_out[:1], shown=(), measured=())
        return replace(setup, diagnostics=few, preview=setup.preview[:1], held_out=setup.held_out[:1])

    state = lambda trainer: [p.clone() for p in trainer.model.unet.parameters()]
    whole = Trainer(run, build=build)
    keep = whole.model.explain(whole.setup.preview[:1]).keep
    whole.fit(3, progress=False)
    with tempfile.TemporaryDirectory() as folder:
        cut = Trainer(run, build=build, folder=folder).fit(2, progress=False)
        cut.checkpoint()
        cut = Trainer(run, build=build, folder=folder).resume().fit(1, progress=False)
    same = all(torch.equal(a, b) for a, b in zip(state(whole), state(cut)))
    return tuple(keep.shape[1:]) == (96, 80), same, whole.setup.info["proof"]


def main(words):
    from importlib.metadata import version

    import latentlab
    found = {}
    for package in ("torch", "timm", "torchvision", "transformers"):
        try: found[package] = version(package)
        except Exception: pass
    print(f"latentlab {latentlab.__version__}, " + ", ".join(f"{name} {one}" for name, one in found.items()) + ", one thread\n")
    native = "--native" in words
    words = [word for word in words if word != "--native"]
    last = "" if native else " 3 steps, resumed | refused |"
    print(f"| encoder | images | maps | least rows, columns | largest crossed | embedding | of its own, relative |{last}\n|" + "---|" * (7 if native else 9))
    torch.set_num_threads(1)
    for name, make in MODELS.items():
        if words and not any(word in name for word in words): continue
        torch.manual_seed(0)
        side = 224 if native else 96
        try: model = make(side).eval()
        except ModuleNotFoundError as error:
            print(f"| {name} | not tried: {error} |")
            continue
        fixed = any(word in name.lower() for word in ("vit", "swin_tiny", "dinov2", "visiontransformer", "clip"))
        encoder = wrap_encoder(model, name=name, size=None if native or fixed else side)
        proof = encoder.check(x := probe_images(3, encoder.size or (side, side), 2))
        places = [place for _, _, place in proof.maps.values()]
        straight = min(min(one.rows, one.columns) for one in places)
        crossed = max(max(abs(one.rows_with_columns), abs(one.columns_with_rows)) for one in places)
        own = apart(reference(model, encoder.prepare(x)), encoder.embed(x))
        sizes = ", ".join(f"{channels} x {height} x {width}{f' {layout}' if layout else ''}" for layout, (channels, height, width), _ in proof.maps.values())
        row = (f"| {name} | {x.shape[-2]} x {x.shape[-1]} | {sizes} | {straight:.3f} | {crossed:.2f} | {proof.latents}, {proof.embedding} | "
               f"{own:.1g} |")
        if not native:
            at_size, same, _ = trained(encoder)
            told = refused(encoder, x)
            row += (f" {'yes, yes' if same and at_size else f'{at_size}, {same}'} | {sum(told.values())} of {len(told)}"
                    f"{'' if all(told.values()) else ' not ' + ', '.join(k for k, v in told.items() if not v)} |")
        print(row, flush=True)


if __name__ == "__main__": main(sys.argv[1:])
