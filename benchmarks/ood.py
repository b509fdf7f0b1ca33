"""What makes LLR>k tell foreign images apart: hierarchies with one thing changed, on any device, scored against several foreign sets.

python benchmarks/ood.py [--data fashion-mnist] [--ways recipe ...] [--seeds 0 1 2] [--steps 1500] [--width 12] [--out rows.json]
python benchmarks/ood.py --width 32 --batch 256 --steps 7400 --seeds 0 --fade 0.4 --precision bfloat16 --ways recipe --keep .   # keeps weights

Rows are added to the file as they come, and what is there already is not trained again.
"""

import argparse
import json
import sys
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from machine import machine  # noqa: E402

from latentlab.core.runtime import choose_device, generator  # noqa: E402
from latentlab.data.sources import fixed_bits, training_images, trial_images  # noqa: E402
from latentlab.families.hvae.experiment import HVAERun  # noqa: E402
from latentlab.families.hvae.stored import store_hierarchy  # noqa: E402
from latentlab.latents.evaluate import evaluate  # noqa: E402
from latentlab.metrics.ood import auroc  # noqa: E402
from latentlab.metrics.scores import compressed_bits  # noqa: E402
from latentlab.train.trainer import Trainer  # noqa: E402

FOREIGN = {"fashion-mnist": ("mnist", "omniglot", "inverted:fashion-mnist"), "mnist": ("fashion-mnist", "omniglot", "inverted:mnist")}
WAYS = {
    "recipe": {},
    "no free nats": {"free_nats": 0.0, "free_steps": 0},
    "free nats for ever": {"free_steps": 0},
    "z1 a vector": {"maps": 0, "latents": (256, 16, 8), "free_nats": 20.0},
    "no skips": {"skips": False},
}


def run_of(a, way, seed):
    "The settings of one run: the recipe with one thing changed."
    w = a.width
    base = {"data.name": a.data, "data.outside": FOREIGN[a.data][0], "activation": "leaky_relu", "net": "residual", "layers": 3,
            "latents": (8, 16, 8), "hidden": ((w, w), (w, w), (64, 64)), "maps": 1, "skips": True, "free_nats": 0.5,
            "free_steps": round(a.fade * a.steps), "batch": a.batch, "seed": seed, "precision": a.precision, "steps": a.steps,
            "check_every": 10**8, "checkpoint_every": 10**8, "record_every": 100}
    return HVAERun().replace(base | WAYS[way])


def sets_of(run, device, count):
    "1,000 images of each set as the model sees them, drawn once."
    data = run.data
    some = lambda images: images.subset(torch.randperm(len(images), generator=generator(0, "scored"))[:count])
    inside, _ = trial_images(data.name, (), data.outside)
    found = {"in": (some(inside), "test"), "train": (some(training_images(data.name, data.images)), "train")}
    found |= {name: (some(trial_images(data.name, (), name)[1]), "outside") for name in FOREIGN[data.name]}
    return {name: (images.images, fixed_bits(images, data.bits, device, stream)) for name, (images, stream) in found.items()}


@torch.no_grad()
def scores(model, sets, samples):
    "AUROC of each foreign set and of the training images by each score, and mean bounds in nats."
    device, layers = model.steps.device, range(model.settings.layers)
    draws = lambda: generator(5, "scores", device=device)
    bound = {(name, k): evaluate(model, x, generator=draws(), above=k, samples=1 if k else samples) for name, (_, x) in sets.items()
             for k in layers}
    simple = {name: {"PNG bits": compressed_bits(images), "brightness": images.double().flatten(1).mean(1)}
              for name, (images, _) in sets.items()}
    found = {}
    for name in sets:
        if name == "in": continue
        mine = {f"L>{k}": auroc(-bound["in", k].elbo, -bound[name, k].elbo) for k in layers}
        mine |= {f"LLR>{k}": auroc(*(bound[one, 0].iw - bound[one, k].elbo for one in ("in", name))) for k in layers if k}
        mine |= {which: auroc(simple["in"][which], simple[name][which]) for which in simple["in"]}
        found[name] = {which: round(value, 4) for which, value in mine.items()}
    nats = {name: [round(bound[name, k].elbo.mean().item(), 1) for k in layers] for name in sets}
    return {"auroc": found, "nats": nats, "iw": round(bound["in", 0].iw.mean().item(), 2),
            "kl": [round(kl.mean().item(), 1) for kl in bound["in", 0].kl]}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", choices=tuple(FOREIGN), default="fashion-mnist")
    parser.add_argument("--ways", nargs="+", choices=tuple(WAYS), default=list(WAYS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--width", type=int, default=12, help="channels of the residual blocks")
    parser.add_argument("--fade", type=float, default=0.6, help="share of the steps over which the free nats fade to none")
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--samples", type=int, default=10, help="S of the first term of LLR")
    parser.add_argument("--count", type=int, default=1000, help="images of each set")
    parser.add_argument("--out", type=Path, help="a file of rows that is added to")
    parser.add_argument("--keep", type=Path, help="a folder for the weights; only for the structure of the stored hierarchies, width 32")
    a = parser.parse_args()
    torch.set_num_threads(1)
    device = choose_device()
    print(f"device {device}: {machine(device)}", flush=True)
    rows = json.loads(a.out.read_text()) if a.out and a.out.exists() else []
    for seed in a.seeds:
        for way in a.ways:
            key = {"data": a.data, "way": way, "seed": seed, "steps": a.steps, "width": a.width, "batch": a.batch}
            if any(all(row[name] == value for name, value in key.items()) for row in rows): continue
            trainer, begun = Trainer(run_of(a, way, seed)), time.perf_counter()
            trainer.fit(a.steps, progress=False)
            row = key | {"seconds": round(time.perf_counter() - begun), "device": device.type, "samples": a.samples}
            row |= scores(trainer.model, sets_of(trainer.run, device, a.count), a.samples)
            rows.append(row)
            first = row["auroc"][FOREIGN[a.data][0]]
            print(f"{way}, seed {seed}: {row['seconds']} s, bound {row['nats']['in'][0]}, KL {row['kl']}, {FOREIGN[a.data][0]} {first}", flush=True)
            if a.out: a.out.write_text(json.dumps(rows, separators=(",", ":")).replace('{"data"', '\n{"data"') + "\n")
            if a.keep:
                a.keep.mkdir(parents=True, exist_ok=True)
                note = key | {"precision": a.precision, "fade": a.fade, "device": machine(device), "auroc": row["auroc"]}
                store_hierarchy(trainer.model, a.keep / f"hierarchy-{a.data}-{seed}.safetensors", data=a.data, note=note)


if __name__ == "__main__": main()
