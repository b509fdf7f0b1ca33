"""A fake trainer for browser tests: plausible masks that follow a KL scale, at 10 frames a second while somebody looks; and
one for the pictures that answer.
"""

import os
import struct
import time
import zlib
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Literal

import numpy as np

from latentlab.core.settings import Range, Settings, setting
from latentlab.panels.controls import control_values, controls, differences, keep_to_uint8, rank_to_uint8
from latentlab.panels.layout import Brush, Curve, CurvePlot, GraphPicture, Layout, Matrix, Node, Row, Scatter, ScatterPanel, Slider, Strip
from latentlab.panels.pump import FramePump
from latentlab.panels.view import View, image_bytes

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
        "off", kind="live", label="neighbourhood averaging", reason="Averages the mask over a neighbourhood; hides combs rather "
                                                                    "than curing them.")
    complement: float = setting(0.0, kind="live", low=0.0, high=1.0, step=0.01, label="complement weight",
                                reason="How much what is hidden should differ.")
    learning_rate: float = setting(1e-3, kind="live", low=1e-5, high=1e-1, scale="log", step=0.05, label="learning rate", reason="AdamW.")
    mask_bias: float = setting(3.0, kind="build", low=-8.0, high=8.0, step=0.5, label="mask bias at start",
                               reason="+ starts from everything kept.")
    layers: int = setting(3, kind="build", low=1, high=5, reason="Feature maps that the explainer reads.")
    width: int = setting(32, kind="build", low=8, high=64, step=8, reason="Channels of the widest block.")
    price: float | Range = setting(Range(0.01, 0.3, "log"), kind="live", low=1e-3, high=1.0, scale="log",
                                   reason="Drawn for each image from this range.", folded=True)
    widths: tuple[int, ...] = setting((32, 16), kind="build", low=1, reason="Channels, block by block.")
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
          check("border", "border line", "warn", 3.4, 3.0, "Row 27 is kept 3.4 deviations more than "
                                                           "its neighbours.", "Use reflect padding."),
          check("combs", "combs", "ok", 0.017, 0.05, "Moving the mask by a pixel changes little."),
          check("saturation", "saturation", "off", None, None, "Needs 500 steps."),
          check("frozen", "frozen encoder", "ok", None, None, "Weights and statistics are untouched.")]


class Feeder:
    "Owns a View and feeds it as a panel does; answers requests as a trainer would."

    pump = None

    def __init__(self, side=28, channels=1, fps=10.0):
        self.images, columns = pictures(side, channels)
        self.changed = 0
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
        notes = ([dict(text="Neighbourhood averaging is on: the mask you see is smoother than the one that was learnt.", loud=True)]
                 if smooth else [])
        self.view.tell(dict(values=control_values(fields), differs=differences(fields), checks=CHECKS, status=self.status(), notes=notes))

    def status(self): return dict(state=self.state, step=self.step, rate=41.3, device="cpu")

    def receive(self, request):
        self.heard.append(request)
        if request.kind == "set":
            self.run = self.run.replace({request.name: request.value})
        else:
            self.state = dict(run="running", pause="paused", stop="stopped", step="paused", rebuild="running")[request.name]
            if request.name == "rebuild": self.step, self.history = 0, []
            if request.name == "step": self.advance()
        self.changed += 1
        self.tell()

    @property
    def version(self): return (self.changed, int(time.monotonic() * 1000) if self.state == "running" else 0)

    def snapshot(self, timeout): return SimpleNamespace(version=self.version)

    def advance(self):
        self.step += 1 if self.state != "running" else 4

    def push(self):
        if self.state == "running": self.advance()
        if self.step % 40 == 0: self.view.tell(dict(status=self.status()))
        self.draw()

    def draw(self):
        scale = self.run.get("kl_scale")
        early = np.exp(-self.step / 250)
        logits = (7 * self.base - 2.2 * np.log10(scale / 0.01) + 5 * early + self.noise * (0.3 + early)).astype("float32")
        keep = 1 / (1 + np.exp(-logits))
        area = float(keep.mean())
        distance = 0.09 * (1 - area) ** 3 + 0.012 + 0.002 * float(np.sin(self.step / 7))
        hard = distance * 1.07 if self.step % 20 == 0 or not self.history else float("nan")
        row = dict(step=self.step, distance=distance, area=area, kl=9.21 * area * 0.9 - 0.5 * area ** 0.5, distance_hard=hard)
        if not self.history or self.history[-1]["step"] < self.step: self.history.append(row)
        curves = {name: np.array([r[name] for r in self.history]) for name in row}
        table = dict(distance=[distance, distance * 1.07], whitened=[0.21, 0.22], area=[area, area],
                     moved=[distance * 1.04, distance * 1.1])
        arrays = dict(image=image_bytes(self.images), fill=image_bytes(self.fills), keep=keep_to_uint8(keep), rank=rank_to_uint8(logits),
                      **self.more())
        self.view.push(arrays, dict(step=self.step, values=control_values(self.run.fields()), tail=row, table=table), curves)

    def more(self): return {}

    def start(self):
        self.push()
        self.pump = FramePump(self, lambda snapshot: self.push(), fps=self.fps, seen=self.view.seen).start()
        return self


def png(width=900, height=520):
    "A made-up report: a PNG of a colour ramp with bars, written by hand so that nothing is drawn with a plot library."
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


CHANGES = [change("KL scale", 0.1, 0.005), change("fill", "mean", "blur"), change("mask bias at start", 3.0, -2.0),
           change("optional smoothing", False, True), change("seed", 0, 7)]


def earlier(n=12):
    "A table of earlier runs, newest first: each state, few and many changes, notes short, long and hostile."
    row = lambda **more: dict(id=RUN_ID, when="12:05:44", state="running", kept=False, steps=640, seed=0,
                              metrics=dict(loss=0.0412, area=0.31), changes=[], note="",
                              action="load", current=False) | more
    known = [row(current=True, action=""),
             row(id=BEFORE, when="11:52:10", state="done", kept=True, steps=12000, metrics=dict(loss=0.0371, area=0.284),
                 changes=CHANGES[:1], note="sharper at the sleeves"),
             row(id="20261121-113001-nem-<i>x", when="11:30:01", state="failed", steps=31, metrics=dict(loss=None, area=None),
                 changes=CHANGES, action="", note=HTML),
             row(id="20261121-101512-nem-04be77", when="10:15:12", state="lost", steps=4120, seed=3, metrics=dict(loss=0.05, area=0.42),
                 changes=CHANGES[1:4], action="resume"),
             row(id=BEST, when="2026-11-20 18:03", state="interrupted", steps=8800, metrics=dict(loss=0.0333, area=0.25),
                 changes=CHANGES[:4], action="resume",
                 note="Stopped because the masks had settled; the comb at the border is the one of the encoder, see the run before.")]
    seeds = [row(id=f"20261119-0{k % 10}0000-nem-{k:06x}", when=f"2026-11-19 0{k % 10}:00", state="done", steps=1000 * k, seed=k,
                 changes=[change("seed", 0, k)])
             for k in range(1, n - 4)]
    return known + seeds


class JournalFeeder(Feeder):
    "A Feeder with a made-up journal: it hears the wishes and answers as a journal would."

    def __init__(self, recorded=True):
        super().__init__()
        self.table = earlier()
        self.kept = dict(id=RUN_ID, state="running", kept=False, notes=[], previous=dict(id=BEFORE, changes=CHANGES[:2]),
                         best=dict(id=BEST, metric="loss", value=0.0333, changes=CHANGES[:3]),
                         words=["`mask_kl` has weight 0: the mask is free to keep everything."])
        if not recorded: self.kept, self.table = {}, []
        self.words = dict(message="", error="", sweep={})
        self.write()

    def write(self, **words):
        self.words |= words
        self.view.tell(dict(journal=dict(folder="journal", run=self.kept, **self.words), runs=self.table))

    def count(self, done, state="running", **more):
        "A repeat over five seeds with so many runs done."
        self.write(sweep=dict(total=5, done=done, failed=0, running=2, seconds_left=34.0, state=state,
                              sentence=f"repeat of {RUN_ID} with 5 seeds", result="") | more)

    def asked(self): return [[r.name, r.value] for r in self.heard if r.kind == "journal"]

    def receive(self, request):
        if request.kind != "journal": return super().receive(request)
        self.heard.append(request)
        if request.name == "save": self.kept = self.kept | dict(kept=True)
        if request.name == "note": self.kept = self.kept | dict(notes=[*self.kept["notes"], request.value])
        if request.name == "report": self.view.show_report(png(), dict(id=RUN_ID, step=self.step))
        if request.name == "load" and request.value == BEST:
            raise ValueError(f"`value` must be a run that this version can read: got {BEST}. Look at it in a notebook.")
        if request.name == "repeat": return self.count(0, total=request.value, seconds_left=None)
        if request.name == "cancel": return self.count(2, "stopped", result="loss 0.041 ± 0.002 (n = 2)")
        if request.name != "load": self.write()


NODES = [Node(name="light", note="where the lamp hangs", colour="#E69F00"), Node(name="pendulum", colour="#0072B2"),
         Node(name="shadow length", colour="#009E73"), Node(name="shadow position", colour="#CC79A7")]
EDGES = [("light", "shadow length"), ("pendulum", "shadow position"), ("light", "shadow position")]


def answering_plan(columns):
    "A layout with every picture that answers, and two masks in one grid."
    area = CurvePlot(title="Area", terms=[Curve(name="area", label="area kept", unit="share", colour="#E69F00")])
    distance = Curve(name="distance", label="distance", unit="(1 − cos)/2", colour="#0072B2")
    parts = Layout(
        title="Events", question="what comes back from a **picture**?", columns=columns,
        rows=[Row(key="image", label="image", places="owner", words=("left half", "right half")), Row(key="keep", label="kept by one", kind="keep"),
              Row(key="second", label="kept by two", kind="keep", colour="#56B4E9"),
              Row(key="seen2", label="left by two", kind="seen", mask="second", fill="fill2")],
        pictures=[Strip(key="walk", label="Walk", note="along one latent", axis="z", ticks=[-3, -2, -1, 0, 1, 2, 3], scrub=True),
                  Brush(key="painted", title="Brush", note="what must be kept"),
                  Slider(name="tokens", label="tokens", low=1, high=8, value=4, whole=True, unit="tokens", place="right",
                         help="How many are shown."),
                  Slider(name="price", label="price", low=1e-3, high=1.0, value=0.05, scale="log", unit="1/nat", place="right"),
                  GraphPicture(title="Concepts", key="concepts", nodes=NODES, edges=EDGES, editable=True, values="concept_kl", unit="nats",
                        place="right"),
                  Matrix(key="effect", title="Effect", note="of moving a concept", rows=[node.name for node in NODES],
                         columns=["hue", "size", "x", "y"],
                         unit="nats", signed=True, place="right"),
                  Scatter(title="Codes", clicks=True, panels=[ScatterPanel(key="z1", label="z₁", prior="normal")], place="right")],
        plots=[CurvePlot(title="Distance", clicks=True, terms=[distance]), area])
    return parts.plain() | dict(table=plan(columns, "")["table"])


class EventFeeder(Feeder):
    "A Feeder whose pictures answer: it hears every event, paints what was painted and refuses an arrow out of a shadow."

    def __init__(self):
        self.events, self.painted, self.tokens, rng = [], np.zeros((8, 28, 28), np.uint8), 4, np.random.default_rng(3)
        super().__init__()
        self.codes, self.effect = rng.normal(size=(60, 2)).astype("float32"), rng.normal(size=(4, 4)).astype("float32")
        self.view.tell(dict(plan=answering_plan(pictures()[1])))

    def more(self):
        walk = np.stack([np.roll(self.images[:2], 2 * k, -1) * (1 if k < self.tokens else 0.6) for k in range(-3, 4)],
                        1).reshape(14, 1, 28, 28)
        return dict(walk=image_bytes(walk).reshape(2, 7, 28, 28, 1), painted=self.painted, second=self.painted,
                    fill2=image_bytes(1 - self.images), effect=self.effect, z1=self.codes,
                    owner=np.broadcast_to(np.arange(28, dtype=np.uint8) // 14, (8, 28, 28)),
                    concept_kl=np.array([2.1, 1.4, 0.8, 0.1]) + 0.1 * np.sin(self.step / 9))

    def receive(self, request):
        if not hasattr(request, "source"): return super().receive(request)
        if request.type == "edit" and any(edge[0].startswith("shadow") for edge in request.value["edges"]):
            raise ValueError("`edges` must not start at a shadow: got one. Shadows cause nothing here.")
        self.events.append([request.source, request.type, request.value, len(request.buffer)])
        if request.type == "paint": self.painted[request.value] = np.frombuffer(request.buffer, np.uint8).reshape(28, 28)
        if request.source == "tokens": self.tokens = request.value
        self.changed += 1
