"A fake trainer for browser tests: plausible masks that follow a KL scale, pushed from a thread at 10 frames a second."

import os
import struct
import threading
import time
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from latentlab.core.settings import Settings, setting
from latentlab.core.terms import Verdict
from latentlab.panels.controls import control_values, controls, differences, keep_to_uint8, rank_to_uint8
from latentlab.families.hvae.display import HVAELook
from latentlab.panels.panel import Face
from latentlab.panels.view import View, image_bytes
from latentlab.train.history import Curves
from latentlab.train.loop import Snapshot
from latentlab.train.rig import Measure

NAMES = ["T-shirt", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"]


@dataclass(frozen=True, kw_only=True)
class Model(Settings):
    kl_scale: float = setting(0.01, kind="live", low=1e-4, high=1.0, scale="log", step=0.05, unit="1/nat", label="KL scale",
                              reason="Price of one nat of mask. Larger keeps fewer pixels; 0.01 is where Fashion-MNIST keeps a quarter.")
    prior: float = setting(1e-4, kind="live", low=1e-6, high=0.5, scale="log", step=0.1, label="prior p", when=("penalty", "kl"),
                           reason="Share of pixels kept when nothing is known.")
    penalty: Literal["kl", "area"] = setting("kl", kind="live", reason="KL ranks the kept pixels, area only counts them.")
    distance: Literal["half cosine", "cosine", "relative L2", "whitened cosine"] = setting(
        "half cosine", kind="live", reason="(1 - cos)/2: 0 the same, 0.5 orthogonal, 1 opposite.")
    fill: Literal["zero", "mean", "blur", "noise", "mixed"] = setting(
        "mean", kind="live", reason="What stands where nothing is kept. Zero invites dimming.")
    neighbourhood: Literal["off", "train", "always"] = setting(
        "off", kind="live", label="neighbourhood averaging", reason="Averages the mask over a neighbourhood; hides combs rather than curing them.")
    complement: float = setting(0.0, kind="live", low=0.0, high=1.0, step=0.01, label="complement weight", reason="How much what is hidden should differ.")
    learning_rate: float = setting(1e-3, kind="live", low=1e-5, high=1e-1, scale="log", step=0.05, label="learning rate", reason="AdamW.")
    mask_bias: float = setting(3.0, kind="build", low=-8.0, high=8.0, step=0.5, label="mask bias at start", reason="+ starts from everything kept.")
    layers: int = setting(3, kind="build", low=1, high=5, reason="Feature maps that the explainer reads.")
    width: int = setting(32, kind="build", low=8, high=64, step=8, reason="Channels of the widest block.")
    smooth: bool = setting(False, kind="build", label="optional smoothing", reason="Off: it hides artefacts.")
    seed: int = setting(0, kind="build", low=0, reason="Weights, order of the data, jitter.")


@dataclass(frozen=True, kw_only=True)
class Data(Settings):
    name: Literal["fashion-mnist", "mnist", "scenes"] = setting("fashion-mnist", kind="build", label="images", reason="What is explained.")
    encoder: Literal["simclr", "swav", "planted"] = setting("simclr", kind="build", reason="The frozen network that is asked.")


@dataclass(frozen=True, kw_only=True)
class Run(Settings):
    model: Model = Model()
    data: Data = Data()


def pictures(side=28, channels=1, n=8):
    "Real images where a data folder is given, drawn ones elsewhere."
    root = Path(os.environ.get("LATENTLAB_DATA", "nowhere"))
    if channels == 1 and (root / "fashion_mnist_test.npz").exists():
        archive = np.load(root / "fashion_mnist_test.npz")
        images, labels = archive["images"], archive["labels"]
        chosen = [int(np.flatnonzero(labels == k)[3]) for k in (0, 2, 9, 1, 4, 3, 8, 6)]
        return images[chosen].reshape(n, 1, 28, 28) / 255, [NAMES[labels[i]] for i in chosen]
    yy, xx = np.mgrid[0:side, 0:side] / side
    rng = np.random.default_rng(0)
    images = np.zeros((n, channels, side, side))
    for i in range(n):
        images[i] = 0.25 + 0.1 * rng.normal(size=(channels, side // 4, side // 4)).repeat(4, -1).repeat(4, -2)
        for _ in range(3):
            cy, cx, r, colour = *rng.uniform(0.2, 0.8, 2), rng.uniform(0.1, 0.2), rng.uniform(0.2, 1, (channels, 1))
            images[i][:, (yy - cy) ** 2 + (xx - cx) ** 2 < r**2] = colour
    return images.clip(0, 1), [f"scene {i + 1}" for i in range(n)]


def plan(columns, note):
    "What a family would say about its panel."
    distance = dict(name="distance", label="distance", unit="(1 − cos)/2", colour="#0072B2")
    area = dict(name="area", label="area kept", unit="share", colour="#E69F00")
    kl = dict(name="kl", label="mask KL", unit="nats", colour="#CC79A7", dash=True)
    rows = [("image", "image", note), ("keep", "kept", ""), ("seen", "what is left", "for the encoder"), ("rank", "rank", "")]
    series = [dict(label="soft mask", x="area", y="distance", colour="#0072B2"),
              dict(label="hard mask, same area", x="area", y="distance_hard", colour="#D55E00", dash=True)]
    return dict(
        title="NEM", question="what does **SimCLR** see in **Fashion-MNIST**?", columns=columns,
        rows=[dict(key=kind, kind=kind, label=label, note=note) for kind, label, note in rows],
        plots=[dict(kind="curves", title="Terms", terms=[distance, area, kl]),
               dict(kind="path", title="Path", note="distance against area", series=series,
                    x_label="area kept, share of pixels", y_label="distance, (1 − cos)/2")],
        table=dict(columns=["soft", "hard"], rows=[
            distance, dict(name="whitened", label="whitened distance", unit="1 − cos"), area,
            dict(name="moved", label="moved by 1 px", unit="(1 − cos)/2")]))


def check(name, label, level, value, threshold, sentence, remedy=""):
    return dict(name=name, label=label, level=level, value=value, threshold=threshold, sentence=sentence, remedy=remedy)


CHECKS = [check("collapse", "collapse", "ok", 0.26, 0.98, "Between nothing and everything is kept."),
          check("dimming", "dimming", "ok", 1.07, 2, "Hard and soft mask of one area agree."),
          check("border", "border line", "warn", 3.4, 3.0, "Row 27 is kept 3.4 deviations more than its neighbours.", "Use reflect padding."),
          check("combs", "combs", "ok", 0.017, 0.05, "Moving the mask by a pixel changes little."),
          check("saturation", "saturation", "off", None, None, "Needs 500 steps."),
          check("frozen", "frozen encoder", "ok", None, None, "Weights and statistics are untouched.")]


class Feeder:
    "Owns a View and feeds it; answers wishes as a trainer would."

    def __init__(self, side=28, channels=1, fps=10.0):
        self.images, columns = pictures(side, channels)
        self.run, self.fps, self.step, self.state, self.history, self.heard = Run().replace({"kl_scale": 0.1}), fps, 0, "running", [], []
        self.fills = np.broadcast_to(self.images.mean((0, 2, 3), keepdims=True), self.images.shape)
        self.view = View(controls(self.run.fields()), plan(columns, f"{side} × {side}, {'grey' if channels == 1 else 'RGB'}"))
        self.view.on_request(self.receive)
        side = self.images.shape[-1]
        rng, yx = np.random.default_rng(1), np.mgrid[0:side, 0:side] / side
        grey = self.images.mean(1)
        bump = lambda y, x: rng.uniform(0.8, 2) * np.exp(-((yx[0] - y) ** 2 + (yx[1] - x) ** 2) / 0.02)
        self.base = np.stack([1.6 * g + sum(bump(y, x) for y, x in rng.uniform(0.15, 0.85, (4, 2))) for g in grey]) - 1.2
        self.noise = rng.normal(size=self.base.shape)
        self.tell()

    def tell(self):
        fields, smooth = self.run.fields(), self.run.get("neighbourhood") != "off"
        notes = [dict(text="Neighbourhood averaging is on: the mask you see is smoother than the one that was learnt.", loud=True)] if smooth else []
        self.view.tell(dict(values=control_values(fields), differs=differences(fields), checks=CHECKS, status=self.status(), notes=notes))

    def status(self): return dict(state=self.state, step=self.step, rate=41.3, device="cpu")

    def receive(self, request):
        self.heard.append(request)
        if request.kind == "set":
            self.run = self.run.replace({request.name: request.value})
        else:
            self.state = dict(run="running", pause="paused", stop="stopped", step="paused", rebuild="running")[request.name]
            if request.name == "rebuild": self.step, self.history = 0, []
            if request.name == "step": self.push()
        self.tell()

    def push(self):
        self.step += 1 if self.state != "running" else 4
        scale = self.run.get("kl_scale")
        early = np.exp(-self.step / 250)
        logits = (7 * self.base - 2.2 * np.log10(scale / 0.01) + 5 * early + self.noise * (0.3 + early)).astype("float32")
        keep = 1 / (1 + np.exp(-logits))
        area = float(keep.mean())
        distance = 0.09 * (1 - area) ** 3 + 0.012 + 0.002 * float(np.sin(self.step / 7))
        hard = distance * 1.07 if self.step % 20 == 0 or not self.history else float("nan")
        row = dict(step=self.step, distance=distance, area=area, kl=9.21 * area * 0.9 - 0.5 * area ** 0.5, distance_hard=hard)
        self.history.append(row)
        curves = {name: np.array([r[name] for r in self.history]) for name in row}
        table = dict(distance=[distance, distance * 1.07], whitened=[0.21, 0.22], area=[area, area], moved=[distance * 1.04, distance * 1.1])
        arrays = dict(image=image_bytes(self.images), fill=image_bytes(self.fills), keep=keep_to_uint8(keep), rank=rank_to_uint8(logits))
        self.view.push(arrays, dict(step=self.step, values=control_values(self.run.fields()), tail=row, table=table), curves)

    def start(self):
        def work():
            while self.state != "stopped":
                start = time.monotonic()
                if self.state == "running":
                    self.push()
                    if self.step % 40 == 0: self.view.tell(dict(status=self.status()))
                time.sleep(max(0.001, 1 / self.fps - (time.monotonic() - start)))
        threading.Thread(target=work, daemon=True).start()
        return self


def png(width=900, height=520):
    "A made-up card: a PNG of a colour ramp with bars, written by hand so that nothing is drawn with a plot library."
    y, x = np.mgrid[0:height, 0:width]
    bars = (y > height - 60 - 300 * np.abs(np.sin(x // 60))) & (x % 60 > 8) & (y < height - 50)
    grey = np.where(bars[..., None], [0, 114, 178], 250 - 20 * (y / height)[..., None] * np.ones(3)).astype(np.uint8)
    rows = np.concatenate([np.zeros((height, 1), np.uint8), grey.reshape(height, -1)], 1).tobytes()
    chunk = lambda kind, data: struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


RUN_ID, BEFORE, BEST = "20261121-120544-nem-3fa9c2", "20261121-115210-nem-9a1b2c", "20261120-180312-nem-77aa01"
HTML = "<img src=x onerror=\"window.hacked=1\"> the <b>sleeves</b> are lost"


def change(label, old, new): return dict(label=label, old=old, new=new)


CHANGES = [change("KL scale", 0.1, 0.005), change("fill", "mean", "blur"), change("mask bias at start", 3.0, -2.0), change("optional smoothing", False, True), change("seed", 0, 7)]


def earlier(n=12):
    "A table of earlier runs, newest first: each state, few and many changes, notes short, long and hostile."
    row = lambda **more: dict(id=RUN_ID, when="12:05:44", state="running", kept=False, steps=640, seed=0, metrics=dict(loss=0.0412, area=0.31), changes=[], note="",
                              action="load", current=False) | more
    known = [row(current=True, action=""),
             row(id=BEFORE, when="11:52:10", state="done", kept=True, steps=12000, metrics=dict(loss=0.0371, area=0.284), changes=CHANGES[:1], note="sharper at the sleeves"),
             row(id="20261121-113001-nem-<i>x", when="11:30:01", state="failed", steps=31, metrics=dict(loss=None, area=None), changes=CHANGES, action="", note=HTML),
             row(id="20261121-101512-nem-04be77", when="10:15:12", state="lost", steps=4120, seed=3, metrics=dict(loss=0.05, area=0.42), changes=CHANGES[1:4], action="resume"),
             row(id=BEST, when="2026-11-20 18:03", state="interrupted", steps=8800, metrics=dict(loss=0.0333, area=0.25), changes=CHANGES[:4], action="resume",
                 note="Stopped because the masks had settled; the comb at the border is the one of the encoder, see the run before.")]
    seeds = [row(id=f"20261119-0{k % 10}0000-nem-{k:06x}", when=f"2026-11-19 0{k % 10}:00", state="done", steps=1000 * k, seed=k, changes=[change("seed", 0, k)])
             for k in range(1, n - 4)]
    return known + seeds


class JournalFeeder(Feeder):
    "A Feeder with a made-up journal: it hears the wishes and answers as a journal would."

    def __init__(self, recorded=True):
        super().__init__()
        self.table = earlier()
        self.kept = dict(id=RUN_ID, state="running", kept=False, notes=[], previous=dict(id=BEFORE, changes=CHANGES[:2]),
                         best=dict(id=BEST, metric="loss", value=0.0333, changes=CHANGES[:3]), words=["`mask_kl` has weight 0: the mask is free to keep everything."])
        if not recorded: self.kept, self.table = {}, []
        self.words = dict(message="", error="", sweep={})
        self.write()

    def write(self, **words):
        self.words |= words
        self.view.tell(dict(journal=dict(folder="journal", run=self.kept, **self.words), runs=self.table))

    def count(self, done, state="running", **more):
        "A repeat over five seeds with so many runs done."
        self.write(sweep=dict(total=5, done=done, failed=0, running=2, seconds_left=34.0, state=state, sentence=f"repeat of {RUN_ID} with 5 seeds", result="") | more)

    def asked(self): return [[r.name, r.value] for r in self.heard if r.kind == "journal"]

    def receive(self, request):
        if request.kind != "journal": return super().receive(request)
        self.heard.append(request)
        if request.name == "save": self.kept = self.kept | dict(kept=True)
        if request.name == "note": self.kept = self.kept | dict(notes=[*self.kept["notes"], request.value])
        if request.name == "card": self.view.show_card(png(), dict(id=RUN_ID, step=self.step))
        if request.name == "load" and request.value == BEST: raise ValueError(f"`value` must be a run that this version can read: got {BEST}. Look at it in a notebook.")
        if request.name == "repeat": return self.count(0, total=request.value, seconds_left=None)
        if request.name == "cancel": return self.count(2, "stopped", result="loss 0.041 ± 0.002 (n = 2)")
        if request.name != "load": self.write()


@dataclass(frozen=True, kw_only=True)
class Latent(Settings):
    beta: float = setting(1.0, kind="live", low=0.0, high=4.0, step=0.05, reason="1 is the bound; anything else is not.")
    free_nats: float = setting(0.0, kind="live", low=0.0, high=4.0, step=0.1, unit="nats", label="free nats", reason="A layer pays nothing below this.")
    layers: int = setting(2, kind="build", low=1, high=5, reason="Two show what a hierarchy is.")
    likelihood: Literal["gaussian", "fixed"] = setting("gaussian", kind="build", reason="Learns its scale.")
    samples: int = setting(1, kind="live", low=1, high=1024, scale="log", unit="samples", label="samples S", reason="One is the ELBO.")
    latents: str = setting("2", kind="build", suggest=("2", "8", "64"), label="latent sizes", reason="One size for all layers, or one each.")
    seed: int = setting(0, kind="build", low=0, reason="Weights, data, noise.")


@dataclass(frozen=True, kw_only=True)
class LatentRun(Settings):
    model: Latent = Latent()
    data: Literal["moons", "fashion-mnist"] = setting("moons", kind="build", label="data", reason="Its density is known.")


def half_moons(n, noise, rng):
    t = np.linspace(0, np.pi, n // 2)
    points = np.concatenate([np.stack([np.cos(t), np.sin(t)], -1), np.stack([1 - np.cos(t), 0.5 - np.sin(t)], -1)])
    order = rng.permutation(n)
    return (points + noise * rng.normal(size=(n, 2)))[order], (np.arange(n) >= n // 2)[order].astype(int)


def log_mixture(at, points, scale):
    squares = ((at[:, None] - points[None]) ** 2).sum(-1) / (2 * scale**2)
    low = squares.min(1)
    return -low + np.log(np.exp(low[:, None] - squares).mean(1)) - np.log(2 * np.pi * scale**2)


def plane_views(step, layers=2, n=512, seed=0):
    "Moons as a model might see them after so many steps: a blur that sharpens, codes that come apart."
    rng, still = np.random.default_rng(seed + step), np.random.default_rng(seed)
    points, labels = half_moons(n, 0.05, still)
    blur, late = 0.09 + 0.5 * np.exp(-step / 120), 1 - np.exp(-step / 150)
    x, y = np.linspace(-1.6, 2.6, 100), np.linspace(1.6, -1.1, 100)
    nodes = np.stack(np.meshgrid(x, y), -1).reshape(-1, 2)
    shown = points[:: n // 64]
    views = dict(field=log_mixture(nodes, shown, blur).reshape(100, 100) - 0.1, field_oracle=log_mixture(nodes, shown, 0.08).reshape(100, 100), extent=np.array([-1.6, 2.6,
            -1.1, 1.6]),
                 points=points, labels=labels, samples=points[rng.permutation(n)[:300]] + blur * rng.normal(size=(300, 2)), kl=np.array([4.4, 1.2, 0.6, 0.02,
                         0.01])[:layers] * late,
                 active=np.array([2, 2, 1, 0, 0])[:layers], width=np.full(layers, 2), scale=np.full(n, blur))
    angle = np.arctan2(points[:, 1] - 0.25, points[:, 0] - 0.5)
    for k in range(1, layers + 1):
        code = np.stack([late * (2 * labels - 1) * 1.1 / k + 0.5 * np.cos(angle * k), late * np.sin(angle) * 1.4], -1)
        views[f"z{k}"] = code / (1 + 0.2 * k) + (0.9 - 0.65 * late) * rng.normal(size=(n, 2)) * (1 + 0.4 * k)
        views[f"prior{k}"] = rng.normal(size=(400, 2)) if k == layers else views[f"z{k}"][rng.permutation(n)[:400]] + 0.4 * rng.normal(size=(400, 2))
    disc = np.linspace(3, -3, 60)
    views[f"pockets{layers}"] = (((disc[None] + 0.1) ** 2 + (disc[:, None] + 2.0) ** 2 / 0.5) < 0.3).astype(float)
    return {name: np.asarray(value, np.float32) for name, value in views.items()}


def image_views(images, step, layers=3, m=200):
    "Images and scores as a model might give them: reconstructions lose detail layer by layer, the LLR comes apart."
    rng, late, n = np.random.default_rng(step), 1 - np.exp(-step / 150), len(images)
    rough = lambda k: images.reshape(n, 7, 4, 7, 4).mean((2, 4)).repeat(4, 1).repeat(4, 2) if k else images[:, 0]
    views = {f"recon{k}": (late * ((1 - k / layers) * images[:, 0] + k / layers * rough(1)) + (1 - late) * images.mean((0, 1))).clip(0, 1) for k in range(layers)}
    labels = np.arange(m) % 10
    views |= dict(generated=(0.6 * images[::-1, 0] + 0.4 * rough(1)), labels=labels, kl=np.array([18.0, 6.0, 0.9])[:layers] * late, active=np.array([21, 9, 2])[:layers],
                  width=np.array([64, 32, 16])[:layers],
                  in_elbo=rng.normal(235, 35, m), out_elbo=rng.normal(210, 25, m))
    for k in range(1, layers): views |= {f"in_llr{k}": rng.gamma(6, 1.5, m), f"out_llr{k}": rng.gamma(6, 1.5, m) + 12 * late / k}
    for k in range(1, layers + 1):
        views[f"z{k}"] = np.stack([np.cos(labels * 0.628), np.sin(labels * 0.628)], -1) * 1.6 * late / k**0.5 + 0.5 * rng.normal(size=(m, 2))
        views[f"prior{k}"] = rng.normal(size=(m, 2)) * 1.2
    return {name: np.asarray(value, np.float32) for name, value in views.items()}


class LatentFeeder:
    "Made-up snapshots of a hierarchical VAE, through the look and the face of the real panel."

    def __init__(self, data="moons", layers=2, fps=10.0):
        self.run, self.fps, self.step, self.state, self.history, self.measures, self.heard = LatentRun().replace({"data": data, "layers": layers}), fps, 0, "running", [], (), []
        self.images = half_moons(512, 0.05, np.random.default_rng(0))[0].astype("float32") if data == "moons" else pictures()[0].astype("float32")
        self.face = Face(self.snapshot(), HVAELook())
        self.view = self.face.view
        self.view.on_request(self.receive)
        self.face.push(self.snapshot())

    def snapshot(self):
        layers, plane, late = self.run.get("layers"), self.run.get("data") == "moons", 1 - np.exp(-self.step / 150)
        views = plane_views(self.step, layers) if plane else image_views(self.images, self.step, layers)
        level, best = (1.0, 4.9) if plane else (420.0, 180.0)
        nll = level - best * late + 8 * np.exp(-self.step / 25) + 0.05 * np.sin(self.step)
        row = dict(nll=nll, **{f"kl_{i + 1}": float(kl) for i, kl in enumerate(views["kl"])}, elbo=-nll - float(views["kl"].sum()))
        if not self.history or self.history[-1][0] < self.step: self.history.append((self.step, row))
        values = {name: np.array([r[name] for _, r in self.history]) for name in row}
        figures = dict(elbo=row["elbo"], elbo_se=0.04, iw=row["elbo"] + 0.35, iw_se=0.03, samples=10.0, nll=nll, effective=4.2,
                       scale_median=0.05 + 0.4 * np.exp(-self.step / 100), scale_min=0.012 + 0.3 * np.exp(-self.step / 80))
        verdicts = (Verdict(name="collapsed_layer", level="ok" if views["kl"].min() > 0.05 else "warn", value=float(views["kl"].min()), threshold=0.05,
                            sentence="the smallest KL of a layer", remedy="Use free nats."),
                    Verdict(name="pockets", level="warn", value=0.07, threshold=0.05, sentence="7 % of the prior's samples land where no datum does",
                            remedy="Give the data noise."))
        if self.step % 40 == 0: self.measures = (*self.measures, Measure(step=self.step, figures=figures, verdicts=verdicts))
        words = dict(data="moons", noise="0.05", oracle="-0.28", classes="upper | lower") if plane else dict(data="fashion-mnist", outside="mnist", classes=" | ".join(NAMES))
        live = {name: self.run.get(name) for name in ("beta", "free_nats")}
        return Snapshot(version=self.step, step=self.step, seconds=1.0, rate=61.0, state=self.state, notice="", outcomes=(), run=self.run, values=live, images=self.images,
                        info=words | dict(device="cpu"), views=views,
                        curves=Curves(steps=np.array([step for step, _ in self.history]), values=values, stride=1), measures=self.measures)

    def receive(self, request):
        self.heard.append(request)
        if request.kind == "set": self.run = self.run.replace({request.name: request.value})
        else: self.state = dict(run="running", pause="paused", stop="stopped", step="paused", rebuild="running")[request.name]
        self.face.push(self.snapshot())

    def push(self):
        self.step += 4
        self.face.push(self.snapshot())

    def start(self):
        def work():
            while self.state != "stopped":
                if self.state == "running": self.push()
                time.sleep(1 / self.fps)
        threading.Thread(target=work, daemon=True).start()
        return self
