"A fake hierarchical VAE for browser tests: snapshots without a trainer, through the display of the family."

import threading
import time
from dataclasses import dataclass
from typing import Literal

import numpy as np
from browser.feeder import NAMES, pictures

from latentlab.core.checks import Verdict
from latentlab.core.settings import Settings, setting
from latentlab.core.snapshot import Curves, Measurement, Snapshot
from latentlab.families.hvae.display import HVAEDisplay
from latentlab.panels.controls import control_values, controls, differences
from latentlab.panels.display import curve_columns, lights
from latentlab.panels.panel import ToldWords
from latentlab.panels.view import View


@dataclass(frozen=True, kw_only=True)
class Latent(Settings):
    beta: float = setting(1.0, kind="live", low=0.0, high=4.0, step=0.05, reason="1 is the bound; anything else is not.")
    free_nats: float = setting(0.0, kind="live", low=0.0, high=4.0, step=0.1, unit="nats", label="free nats",
                               reason="A layer pays nothing below this.")
    layers: int = setting(2, kind="build", low=1, high=5, reason="Two show what a hierarchy is.")
    likelihood: Literal["gaussian", "fixed"] = setting("gaussian", kind="build", reason="Learns its scale.")
    samples: int = setting(1, kind="live", low=1, high=1024, scale="log", unit="samples", label="samples S", reason="One is the ELBO.")
    latents: str = setting("2", kind="build", suggest=("2", "8", "64"), label="latent sizes",
                           reason="One size for all layers, or one each.")
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
    views = dict(field=log_mixture(nodes, shown, blur).reshape(100, 100) - 0.1,
                 field_oracle=log_mixture(nodes, shown, 0.08).reshape(100, 100), extent=np.array([-1.6, 2.6,
            -1.1, 1.6]),
                 points=points, labels=labels, samples=points[rng.permutation(n)[:300]] + blur * rng.normal(size=(300, 2)),
                 kl=np.array([4.4, 1.2, 0.6, 0.02,
                         0.01])[:layers] * late,
                 active=np.array([2, 2, 1, 0, 0])[:layers], width=np.full(layers, 2), scale=np.full(n, blur))
    angle = np.arctan2(points[:, 1] - 0.25, points[:, 0] - 0.5)
    for k in range(1, layers + 1):
        code = np.stack([late * (2 * labels - 1) * 1.1 / k + 0.5 * np.cos(angle * k), late * np.sin(angle) * 1.4], -1)
        views[f"z{k}"] = code / (1 + 0.2 * k) + (0.9 - 0.65 * late) * rng.normal(size=(n, 2)) * (1 + 0.4 * k)
        views[f"prior{k}"] = rng.normal(size=(400, 2)) if k == layers else views[f"z{k}"][rng.permutation(n)[:400]] + 0.4 * rng.normal(
            size=(400, 2))
    disc = np.linspace(3, -3, 60)
    views[f"pockets{layers}"] = (((disc[None] + 0.1) ** 2 + (disc[:, None] + 2.0) ** 2 / 0.5) < 0.3).astype(float)
    return {name: np.asarray(value, np.float32) for name, value in views.items()}


def image_views(images, step, layers=3, m=200):
    "Images and scores as a model might give them: reconstructions lose detail layer by layer, the LLR comes apart."
    rng, late, n = np.random.default_rng(step), 1 - np.exp(-step / 150), len(images)
    rough = lambda k: images.reshape(n, 7, 4, 7, 4).mean((2, 4)).repeat(4, 1).repeat(4, 2) if k else images[:, 0]
    views = {f"recon{k}": (late * ((1 - k / layers) * images[:, 0] + k / layers * rough(1)) + (1 - late) * images.mean((0, 1))).clip(0, 1)
             for k in range(layers)}
    labels = np.arange(m) % 10
    views |= dict(generated=(0.6 * images[::-1, 0] + 0.4 * rough(1)), labels=labels, kl=np.array([18.0, 6.0, 0.9])[:layers] * late,
                  active=np.array([21, 9, 2])[:layers],
                  width=np.array([64, 32, 16])[:layers],
                  in_elbo=rng.normal(235, 35, m), out_elbo=rng.normal(210, 25, m))
    for k in range(1, layers): views |= {f"in_llr{k}": rng.gamma(6, 1.5, m), f"out_llr{k}": rng.gamma(6, 1.5, m) + 12 * late / k}
    for k in range(1, layers + 1):
        views[f"z{k}"] = np.stack([np.cos(labels * 0.628), np.sin(labels * 0.628)],
                                  -1) * 1.6 * late / k**0.5 + 0.5 * rng.normal(size=(m, 2))
        views[f"prior{k}"] = rng.normal(size=(m, 2)) * 1.2
    return {name: np.asarray(value, np.float32) for name, value in views.items()}


class LatentFeeder:
    "Made-up snapshots of a hierarchical VAE, shown by the family's display in a view."

    def __init__(self, data="moons", layers=2, fps=10.0):
        self.run, self.fps, self.step, self.state, self.history, self.measurements, self.heard = LatentRun().replace(
            {"data": data, "layers": layers}), fps, 0, "running", [], (), []
        self.images = (half_moons(512, 0.05, np.random.default_rng(0))[0].astype("float32") if data == "moons"
                       else pictures()[0].astype("float32"))
        self.display, self.view = HVAEDisplay(), View()
        self.words = ToldWords(self.view)
        self.view.on_request(self.receive)
        self.show()

    def show(self):
        self.last = now = self.snapshot()
        layout, fields, columns = self.display.layout(now), now.run.fields(), curve_columns(now)
        values, tail = {**control_values(fields), **now.values}, {name: float(column[-1]) for name, column in columns.items()}
        self.words.tell(plan=layout.plain(), schema=controls(fields, hidden=layout.hidden))
        self.view.push(self.display.arrays(now), dict(step=now.step, values=values, tail=tail, table=self.display.table(now)), columns)
        status = dict(state=now.state, rate=now.rate, device="cpu", message="", pending=[])
        self.words.tell(checks=lights(now), notes=list(self.display.notes(now)), values=values, differs=differences(fields), status=status)

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
        verdicts = (Verdict(name="collapsed_layer", level="ok" if views["kl"].min() > 0.05 else "warn", value=float(views["kl"].min()),
                            threshold=0.05,
                            sentence="the smallest KL of a layer", remedy="Use free nats."),
                    Verdict(name="pockets", level="warn", value=0.07, threshold=0.05,
                            sentence="7 % of the prior's samples land where no datum does",
                            remedy="Give the data noise."))
        if self.step % 40 == 0: self.measurements = (*self.measurements, Measurement(step=self.step, figures=figures, verdicts=verdicts))
        words = (dict(data="moons", noise="0.05", oracle="-0.28", classes="upper | lower") if plane
                 else dict(data="fashion-mnist", outside="mnist", classes=" | ".join(NAMES)))
        live = {name: self.run.get(name) for name in ("beta", "free_nats")}
        return Snapshot(version=self.step, step=self.step, seconds=1.0, rate=61.0, state=self.state, notice="", run=self.run,
                        values=live, images=self.images,
                        info=words | dict(device="cpu"), views=views,
                        curves=Curves(steps=np.array([step for step, _ in self.history]), values=values, stride=1),
                        measurements=self.measurements)

    def receive(self, request):
        self.heard.append(request)
        if request.kind == "set": self.run = self.run.replace({request.name: request.value})
        else: self.state = dict(run="running", pause="paused", stop="stopped", step="paused", rebuild="running")[request.name]
        self.show()

    def push(self):
        self.step += 4
        self.show()

    def start(self):
        def work():
            while self.state != "stopped":
                if self.state == "running": self.push()
                time.sleep(1 / self.fps)
        threading.Thread(target=work, daemon=True).start()
        return self
