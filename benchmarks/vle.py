"""Error after each number of tokens at 32 px: variable-length embeddings beside the VAE loop, nested dropout and PCA; and the CIFAR-10 anchor.

python benchmarks/vle.py curves [--sets fashion-mnist cifar10 scenes] [--codes ...] [--seeds 3] [--steps 3000] [--latent 2] [--levels 3] [--store FILE]
python benchmarks/vle.py anchor [--minutes 30] [--store FILE]

Every (set, code, seed) is stored when it is done and not trained again; the anchor stores its state every 500 steps and goes on from there.
`curves` takes about 4 minutes of one core for each set and seed, `anchor` as long as it is told.
"""

import argparse
import json
import time
from pathlib import Path

import torch
from machine import machine

from latentlab.core.runtime import generator
from latentlab.data.sources import open_images
from latentlab.families.vle.evaluate import measure_code
from latentlab.families.vle.model import VLE, VLESettings
from latentlab.families.vle.peers import LoopCode, NestedCode, PrincipalCode, TokenCode, fit_code

CODES = ("VLE", "VAE loop, standardised", "VAE loop, raw", "nested dropout", "PCA")
ANCHOR = (.0084, .0053, .0042, .0033, .0027, .0022, .0018, .0017, .0016, .0015, .0015, .0015)  # A public notebook, 983 epochs of 50,000 images


def make_code(name: str, settings: VLESettings, x: torch.Tensor, seed: int) -> torch.nn.Module:
    "An untrained code; all have the numbers of the embedding's token."
    side, channels = x.shape[-1], x.shape[1]
    small = side // 2 ** (settings.levels - 1)
    floats = settings.latent * small**2 + 2 * channels
    shape = dict(channels=channels, side=side, width=settings.width, levels=settings.levels)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        if name == "VLE":
            return TokenCode(VLE(settings, channels=channels, side=side, generator=generator(seed, "model")), settings.tokens)
        if name == "nested dropout": return NestedCode(floats, settings.tokens, **shape)
        if name == "PCA": return PrincipalCode(x, floats, settings.tokens)
        return LoopCode(floats, standardised=name.endswith("standardised"), **shape)


def row(data: str, name: str, seed: int, a: argparse.Namespace) -> dict:
    "One code, trained and measured on 1,000 test images (as many as there are)."
    train, test = (open_images(data, split, n, side=32) for split, n in (("train", a.images), ("test", 1000)))
    x, held = train.float(), test.float()
    settings = VLESettings(tokens=a.tokens, latent=a.latent, levels=a.levels, width=a.width, memory=a.memory)
    code, begun = make_code(name, settings, x, seed).to(memory_format=torch.channels_last), time.process_time()
    if name != "PCA": fit_code(code, x, steps=a.steps, batch=a.batch, rate=a.rate, seed=seed)
    seconds, n = time.process_time() - begun, a.tokens
    found = measure_code(name, code, held, n, similarity=False)
    mean, harmed = found.mse.mean(1), found.harmed()
    return {"set": data, "code": name, "seed": seed, "floats": found.floats, "weights": found.parameters, "CPU s": round(seconds),
            "median": [round(v, 6) for v in found.mse.median(1).values.tolist()], "mse": [round(v, 6) for v in mean.tolist()],
            "harmed": [round(v, 4) for v in harmed.tolist()], "images": [len(x), len(held)]}


def curves(a: argparse.Namespace) -> None:
    "What is not stored yet, then the table."
    key = f"{a.steps} x {a.batch}, rate {a.rate:g}, latent {a.latent}, levels {a.levels}, width {a.width}, {a.tokens} tokens"
    if a.memory != "none": key += f", memory {a.memory}"
    stored = json.loads(a.store.read_text()) if a.store.exists() else []
    for data in a.sets:
        for seed in range(a.seeds):
            for name in a.codes:
                if any((one["set"], one["code"], one["seed"], one["key"]) == (data, name, seed, key) for one in stored): continue
                if name == "PCA" and seed: continue
                try: stored.append({"key": key, **row(data, name, seed, a)})
                except ValueError as error:
                    print(f"{data}, {name}: {error}")
                    continue
                a.store.write_text(json.dumps(stored).replace('{"key"', '\n{"key"') + "\n")
                print(show(stored[-1]), flush=True)
    print(f"\n{key}\n{machine()}")
    for one in stored:
        if one["key"] == key: print(show(one))


def show(one: dict) -> str:
    "A line of the table: errors in thousandths, ratio of mean errors from the second token on, worst share of harmed images."
    ratios = [b / max(a, 1e-12) for a, b in zip(one["mse"], one["mse"][1:])]
    falls = all(b < a for a, b in zip(one["median"], one["median"][1:]))
    return (f"{one['set']:<14}{one['code']:<24}seed {one['seed']}  {one['floats']} floats, {one['weights']:,} weights, {one['CPU s']} s  "
            f"1000 x MSE {' '.join(f'{1e3 * v:.2f}' for v in one['mse'][1:])}  ratio {' '.join(f'{v:.2f}' for v in ratios)}  "
            f"harmed {100 * max(one['harmed']):.1f} %  median {'falls' if falls else 'DOES NOT FALL'}")


def anchor(a: argparse.Namespace) -> None:
    """12 tokens of 256 numbers and 6 statistics, trained on every prefix: as published, strided convolutions of 8, 16, 32, 64 channels and a
    latent map of 64 x 2 x 2; `--latent 4 --levels 3 --width 16` has as many numbers in a map of 4 x 8 x 8."""
    train, test = (open_images("cifar10", split, None, side=32) for split in ("train", "test"))
    x, held = train.float(), test.float()
    model = VLE(VLESettings(tokens=12, width=a.width, levels=a.levels, latent=a.latent), channels=3, side=32, generator=generator(0, "model"))
    code = TokenCode(model, 12).to(memory_format=torch.channels_last)
    adam, draw = torch.optim.Adam(code.parameters(), lr=a.rate), torch.Generator().manual_seed(0)
    step, spent = 0, 0.0
    if a.store.exists():
        state = torch.load(a.store, weights_only=True)
        code.load_state_dict(state["code"])
        adam.load_state_dict(state["adam"])
        draw.set_state(state["draw"])
        step, spent = state["step"], state["spent"]
    begun, total = time.process_time() - spent, 60 * a.minutes
    part = begun + spent + 60 * a.part
    while (now := time.process_time()) - begun < total and now < part:
        left = 1 - (now - begun) / total  # The rate falls with the processor time that is left
        for group in adam.param_groups: group["lr"] = a.rate * min(1.0, max(2 * left, 0.01))
        error = code.error(x[torch.randint(len(x), (a.batch,), generator=draw)], draw).mean()
        adam.zero_grad()
        error.backward()
        torch.nn.utils.clip_grad_norm_(code.parameters(), 1.0)
        adam.step()
        step += 1
        if step % 500 == 0:
            with torch.no_grad(): found = measure_code("VLE", code, held[:500], 12, similarity=False)
            print(f"step {step}, {(time.process_time() - begun) / 60:.1f} CPU min: "
                  f"{' '.join(f'{v:.4f}' for v in found.mse.mean(1)[1:].tolist())}", flush=True)
            save(a.store, code, adam, draw, step, time.process_time() - begun)
    save(a.store, code, adam, draw, step, time.process_time() - begun)
    found = measure_code("VLE", code, held, 14, trained=12, similarity=False)
    mean = found.mse.mean(1).tolist()
    print(f"\n{machine()}\n{step} steps of {a.batch} of {len(x):,} images ({step * a.batch / len(x):.0f} epochs), "
          f"{(time.process_time() - begun) / 60:.1f} CPU min, {found.parameters:,} weights, {found.floats} floats a token, {len(held):,} test "
          "images, mean MSE of pixels in [0, 1]")
    print("tokens ", " ".join(f"{k:>6}" for k in range(1, 15)))
    print("here   ", " ".join(f"{v:.4f}" for v in mean[1:]))
    print("anchor ", " ".join(f"{v:.4f}" for v in ANCHOR))
    print("ratio  ", " ".join(f"{b / a:>6.2f}" for a, b in zip(mean, mean[1:])))
    print("harmed ", " ".join(f"{v:>6.3f}" for v in found.harmed().tolist()))


def save(path: Path, code: torch.nn.Module, adam: torch.optim.Optimizer, draw: torch.Generator, step: int, spent: float) -> None:
    "All that is needed to go on."
    torch.save({"code": code.state_dict(), "adam": adam.state_dict(), "draw": draw.get_state(), "step": step, "spent": spent},
               path.with_suffix(".new"))
    path.with_suffix(".new").replace(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("curves", "anchor"))
    parser.add_argument("--sets", nargs="+", default=["fashion-mnist", "cifar10", "scenes"])
    parser.add_argument("--codes", nargs="+", default=list(CODES), choices=CODES)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--images", type=int, default=8000, help="of training")
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--batch", type=int, default=None, help="16 for curves, 32 for the anchor")
    parser.add_argument("--rate", type=float, default=None, help="3e-3 for curves, 2e-3 for the anchor; it falls to 0")
    parser.add_argument("--tokens", type=int, default=6)
    parser.add_argument("--latent", type=int, default=None, help="channels of a token's map: 2 for curves, 64 for the anchor")
    parser.add_argument("--levels", type=int, default=None, help="each but the last halves: 3 makes maps of 8 x 8; 3 for curves, 5 for the anchor")
    parser.add_argument("--width", type=int, default=None, help="16 for curves, 8 for the anchor")
    parser.add_argument("--memory", default="none", choices=("none", "encoder", "decoder", "latent"), help="of the embedding")
    parser.add_argument("--minutes", type=float, default=30, help="of processor time, for the anchor")
    parser.add_argument("--part", type=float, default=1e9, help="minutes of processor time after which the anchor stops and can go on")
    parser.add_argument("--store", type=Path, default=None, help="where results, or the anchor's state, are kept")
    a = parser.parse_args()
    torch.set_num_threads(1)
    curved = a.what == "curves"
    a.store = a.store or Path("vle_curves.json" if curved else "vle_anchor.pt")
    a.batch, a.rate = a.batch or (16 if curved else 32), a.rate or (3e-3 if curved else 2e-3)
    a.latent, a.levels, a.width = a.latent or (2 if curved else 64), a.levels or (3 if curved else 5), a.width or (16 if curved else 8)
    curves(a) if curved else anchor(a)


if __name__ == "__main__":
    main()
