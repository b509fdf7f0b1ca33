"""How fast latent-variable models train and how good a short training is; each ratio is measured in one run.

`--parts step` trainer's step of a 784-512-512-64 VAE, batch 256, as a share of the float32 matrix rate measured in turns with it, beside a bare loop
    with fused Adam, and pythae's own trainer where it is installed
`--parts bfloat16` the same step in bfloat16 against float32, and the test ELBO of both after one epoch
`--parts frame` one frame of the toy lab: heat map of 100 x 100 points, latents, samples
`--parts mnist` test ELBO after 10 epochs of dynamic MNIST, three seeds (needs $LATENTLAB_DATA with MNIST, as the next two)
`--parts long` the same for 427 epochs with a rate that falls to 1e-5: ELBO and bound of 10 samples (about an hour)
`--parts iwae` 784-200-200-50 with the importance-weighted objective, k = 5, 217 epochs of batches of 100: bound of 1,000 samples (about an hour)
"""
import argparse
import math
import os
import platform
import statistics
import tempfile
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from latentlab.core.runtime import cores, set_threads
from latentlab.data.sources import fixed_bits, trial_images
from latentlab.families.hvae.experiment import HVAERun
from latentlab.latents.evaluate import evaluate
from latentlab.train.trainer import Trainer

SIZES = ((784, 512), (512, 512), (512, 128), (64, 512), (512, 512), (512, 784))
BATCH = 256
FLOP = 6 * BATCH * sum(a * b for a, b in SIZES) - 2 * BATCH * 784 * 512  # Forward, two products backward, none for the data's gradient


def machine():
    known = Path("/proc/cpuinfo")
    lines = known.read_text().splitlines() if known.exists() else []
    name = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor())
    return (f"{name}, {cores()} cores, load {os.getloadavg()[0]:.1f}; Python {platform.python_version()}, torch {torch.__version__}, "
            f"{torch.get_num_threads()} thread(s)")


def vae_run(device, **changes):
    data = {"data.name": "mnist" if os.environ.get("LATENTLAB_DATA") else "fashion-mnist", "data.outside": "inverted:fashion-mnist"}
    model = {"hidden": (512, 512), "latents": (64,), "activation": "leaky_relu"}
    return HVAERun().replace({**data, **model, "train.device": device, "train.check_every": 10**6, "train.checkpoint_every": 10**6,
                              **changes})


def waited(device):
    if device == "cuda": torch.cuda.synchronize()
    return time.perf_counter()


def matrix_rate(device, seconds=0.5):
    "Floating-point operations per second of a product with the shape of the hidden layers."
    a, b = torch.randn(BATCH, 512, device=device), torch.randn(512, 512, device=device)
    done, begun = 0, waited(device)
    while waited(device) - begun < seconds:
        for _ in range(20): a @ b
        done += 20
    return 2 * BATCH * 512 * 512 * done / (waited(device) - begun)


def bare_loop(x, device):
    "A hand-written loop of the same network: what a script would do."
    layers = [torch.nn.Linear(a, b, device=device) for a, b in SIZES]
    optimiser = torch.optim.Adam([p for layer in layers for p in layer.parameters()], 1e-3, fused=True)

    def step(i):
        bits = torch.bernoulli(x[torch.randint(len(x), (BATCH,), device=device)])
        h = F.leaky_relu(layers[1](F.leaky_relu(layers[0](bits))))
        loc, raw = layers[2](h).chunk(2, -1)
        scale = F.softplus(raw) + 1e-5
        z = loc + scale * torch.randn_like(loc)
        logits = layers[5](F.leaky_relu(layers[4](F.leaky_relu(layers[3](z)))))
        loss = (F.binary_cross_entropy_with_logits(logits, bits, reduction="none").sum(-1)
                + (0.5 * (loc**2 + scale**2 - 1) - scale.log()).sum(-1)).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()

    return step


def pythae_epoch(x, device, steps):
    "One epoch of pythae's trainer on as many batches of grey images; None where it is not installed."
    try:
        from pythae.data.datasets import BaseDataset
        from pythae.models import VAE, VAEConfig
        from pythae.models.base.base_utils import ModelOutput
        from pythae.models.nn import BaseDecoder, BaseEncoder
        from pythae.trainers import BaseTrainer, BaseTrainerConfig
    except ImportError: return None
    line = lambda *sizes: [part for a, b in zip(sizes, sizes[1:]) for part in (torch.nn.Linear(a, b), torch.nn.LeakyReLU())]

    class Encoder(BaseEncoder):
        def __init__(self):
            super().__init__()
            self.net, self.loc, self.log_var = torch.nn.Sequential(*line(784, 512, 512)), torch.nn.Linear(512, 64), torch.nn.Linear(512, 64)

        def forward(self, x):
            h = self.net(x.flatten(1))
            return ModelOutput(embedding=self.loc(h), log_covariance=self.log_var(h))

    class Decoder(BaseDecoder):
        def __init__(self):
            super().__init__()
            self.net = torch.nn.Sequential(*line(64, 512, 512), torch.nn.Linear(512, 784), torch.nn.Sigmoid())

        def forward(self, z): return ModelOutput(reconstruction=self.net(z).unflatten(1, (1, 28, 28)))

    images = x[:steps * BATCH] if len(x) >= steps * BATCH else x.repeat(-(-steps * BATCH // len(x)), 1)[:steps * BATCH]
    model = VAE(VAEConfig(input_dim=(1, 28, 28), latent_dim=64, reconstruction_loss="bce"), encoder=Encoder(), decoder=Decoder())
    config = BaseTrainerConfig(output_dir=tempfile.mkdtemp(), per_device_train_batch_size=BATCH, learning_rate=1e-3, num_epochs=1,
                               no_cuda=device == "cpu")
    trainer = BaseTrainer(model, BaseDataset(images.unflatten(1, (1, 28, 28)), torch.zeros(len(images))), training_config=config)
    trainer.prepare_training()
    return lambda i: trainer.train_step(1)


def timed(work, steps, device):
    begun = waited(device)
    for i in range(steps): work(i)
    return (waited(device) - begun) / steps


def timed_fit(trainer, steps, device):
    "Seconds of a step, and of what a `fit` does around its steps (held-out figures at its end): from a long and a short one."
    short, whole = (timed(lambda i, n=n: trainer.fit(n, progress=False), 1, device) for n in (1, steps + 1))
    return (whole - short) / steps, short - (whole - short) / steps


def step(device, rounds=8, steps=60):
    trainer = Trainer(vae_run(device)).fit(10, progress=False)
    x = trainer.setup.batches.images.flatten(1).float() / 255
    bare, peer, shares, around = bare_loop(x, device), pythae_epoch(x, device, steps), {"trainer": [], "bare loop": []}, []
    timed(bare, 10, device)
    if peer is not None: timed(peer, 1, device)
    for _ in range(rounds):
        before = matrix_rate(device)
        (ours, end), theirs = timed_fit(trainer, steps, device), timed(bare, steps, device)
        around.append(end)
        rate = (before + matrix_rate(device)) / 2
        for name, seconds in (("trainer", ours), ("bare loop", theirs)): shares[name].append(FLOP / seconds / rate)
        if peer is not None: shares.setdefault("pythae", []).append(FLOP / (timed(peer, 1, device) / steps) / rate)
    for name, found in shares.items():
        middle = f"median {statistics.median(found):.2f} ({min(found):.2f} to {max(found):.2f}, {rounds} rounds)"
        print(f"step of a 784-512-512-64 VAE, batch {BATCH}, {name:10s} share of the matrix rate: {middle}")
    for name in list(shares)[1:]:
        found = [theirs / ours for ours, theirs in zip(shares["trainer"], shares[name])]  # of the rate: the inverse of the times
        print(f"the trainer takes {statistics.median(found):.2f} of the time of {name} ({min(found):.2f} to {max(found):.2f}, in turns)")
    print(f"matrix rate {rate / 1e9:.0f} GFLOP/s, step {1e3 * ours:.1f} ms in the last round; held-out figures at the end of a fit "
          f"{1e3 * statistics.median(around):.0f} ms, not in a step")


def bfloat16(device, rounds=5, steps=30):
    runs = {name: Trainer(vae_run(device, precision=name)).fit(10, progress=False) for name in ("float32", "bfloat16")}
    ratios = [timed_fit(runs["float32"], steps, device)[0] / timed_fit(runs["bfloat16"], steps, device)[0] for _ in range(rounds)]
    print(f"bfloat16: {statistics.median(ratios):.2f} times as fast as float32 ({min(ratios):.2f} to {max(ratios):.2f}, {rounds} rounds)")
    run = vae_run(device)
    x = fixed_bits(trial_images(run.data.name, outside=run.data.outside).kept, "dynamic", torch.device(device), "test")
    for name, trainer in runs.items():
        trainer.fit(234, progress=False)
        found = evaluate(trainer.model, x, generator=torch.Generator(device=device).manual_seed(0)).figures()
        print(f"  {name}: test ELBO (S = 1, {len(x):,} images) after one epoch and the timing above {found['elbo']:.2f} ± "
              f"{found['elbo_se']:.2f} nats")


def frame(device, rounds=20):
    trainer = Trainer(HVAERun().replace({"layers": 2, "train.device": device})).fit(50, progress=False)
    times = [timed(lambda i: trainer.snapshot(), 1, device) for _ in range(rounds)]
    middle = statistics.median(times)
    spread = f"{1e3 * min(times):.0f} to {1e3 * max(times):.0f}"
    print(f"frame of the toy lab, 100 x 100 heat map included: median {1e3 * middle:.0f} ms ({spread}): {1 / middle:.0f} a second "
          "without training")


def mnist(device):
    for seed in range(3):
        run = vae_run(device, seed=seed)
        x = fixed_bits(trial_images(run.data.name, outside=run.data.outside).kept, "dynamic", torch.device(device), "test")
        trainer, found = Trainer(run), []
        for epochs in (1, 9):
            trainer.fit(234 * epochs, progress=False)
            found.append(evaluate(trainer.model, x, generator=torch.Generator(device=device).manual_seed(0)).figures())
        first, last = found
        print(f"{run.data.name}, seed {seed}: test ELBO (S = 1, {len(x):,} images) {first['elbo']:.2f} after 1 epoch, {last['elbo']:.2f} ± "
              f"{last['elbo_se']:.2f} after 10")


def annealed(run, leg, device):
    "Trains to the end, the learning rate on a cosine from its value to 1e-5, moved once a leg; held-out images as well."
    trainer, rate, whole = Trainer(run), run.train.learning_rate, run.train.steps
    while trainer.step_count < whole:
        trainer.fit(min(leg, whole - trainer.step_count), progress=False)
        trainer.set(learning_rate=max(1e-5, 0.5 * rate * (1 + math.cos(math.pi * trainer.step_count / whole))))
    return trainer, fixed_bits(trial_images(run.data.name, outside=run.data.outside).kept, "dynamic", torch.device(device), "test")


def said(trainer, x, samples, device):
    found = evaluate(trainer.model, x, samples=samples, generator=torch.Generator(device=device).manual_seed(3), tile=50,
                     chunk=100).figures()
    bounds = f"ELBO {found['elbo']:.2f} ± {found['elbo_se']:.2f}, IW bound of {samples:,} {found['iw']:.2f} ± {found['iw_se']:.2f} nats"
    print(f"{trainer.step_count:,} steps, {len(x):,} test images: {bounds}")


def long(device, steps=100_000):
    trainer, x = annealed(vae_run(device, steps=steps, kl="analytic"), 2340, device)
    said(trainer, x, 10, device)


def iwae(device, steps=130_000):
    k5 = dict(hidden=(200, 200), latents=(50,), activation="tanh", objective="iw", samples=5, gradient="dreg", batch=100)
    trainer, x = annealed(vae_run(device, steps=steps, **k5), 6000, device)
    said(trainer, x, 1000, device)


PARTS = {part.__name__: part for part in (step, bfloat16, frame, mnist, long, iwae)}

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=["step", "bfloat16", "frame"])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=1)
    asked = parser.parse_args()
    set_threads(asked.threads)
    print(machine(), asked.device)
    for part in asked.parts: PARTS[part](asked.device)
