"""Two masks of one image, one for each concept: as few pixels as the price allows, and still enough to read the concept.

A concept may be read with the help of its parents in a graph. Where the tone follows the shape and the graph says so, the tone needs
fewer pixels of its own.
"""
from dataclasses import dataclass

import torch
from latentlab.core.batch import Batch, Context
from latentlab.core.graph import Graph
from latentlab.core.model import Group
from latentlab.core.settings import Range, Settings, setting
from latentlab.core.terms import Terms
from torch import Tensor, nn

CONCEPTS = ("shape", "tone")  # Columns of the labels; each has two classes
HEIGHT, WIDTH = 12, 16  # Of an image, pixels


@dataclass(frozen=True, kw_only=True)
class TonesSettings(Settings):
    "What a model of tones is built from."
    # live: read at every step. A range is drawn for each example, and the masker is told what was drawn
    price: float | Range = setting(Range(0.1, 10.0, "log"), kind="live", low=0.01, high=100, scale="log", unit="nats per share",
                                   reason="one masker for all prices from which both concepts can be read")
    # build: the model is rebuilt. A graph is a small value with a codec of its own
    graph: Graph = setting(Graph(CONCEPTS, (("shape", "tone"),)), kind="build", reason="the tone follows the shape in most images")
    width: int = setting(8, kind="build", low=1, high=64, unit="channels", reason="enough for shapes of five pixels")

    def __post_init__(self):
        super().__post_init__()  # types and bounds of every field
        if set(self.graph.nodes) != set(CONCEPTS):
            raise ValueError(f"`graph` must have the nodes {', '.join(CONCEPTS)}: got {', '.join(self.graph.nodes)}. Change edges only.")


class Tones(nn.Module):
    "A masker, and one reader for each concept."
    units = {"reading": "nats", "area": "share"}  # Of the terms, for axes and reports

    def __init__(
        self,
        settings: TonesSettings,  # Price, graph, width
    ):
        super().__init__()
        self.settings = settings
        self.masker = nn.Sequential(nn.Conv2d(2, settings.width, 5, padding=2), nn.SiLU(),
                                    nn.Conv2d(settings.width, len(CONCEPTS), 5, padding=2))
        nn.init.constant_(self.masker[-1].bias, 2.0)  # begins with nearly everything kept: from "hidden" it may never find its way
        inputs = {name: HEIGHT * WIDTH + len(settings.graph.parents(name)) for name in CONCEPTS}
        self.readers = nn.ModuleList(nn.Sequential(nn.Linear(inputs[name], 32), nn.SiLU(), nn.Linear(32, 2)) for name in CONCEPTS)

    def keep(
        self,
        x: Tensor,  # Images in [0, 1], [batch, 1, height, width]
        price: Tensor,  # Of keeping the whole image, nats, [batch]
    ) -> Tensor:  # [batch, concept, height, width] in [0, 1], 1 = kept
        "One mask for each concept, at the price that each example is told."
        told = price.log10().reshape(-1, 1, 1, 1).expand(-1, 1, *x.shape[-2:])
        return self.masker(torch.cat([x, told], 1)).sigmoid()

    def read(
        self,
        x: Tensor,  # Images in [0, 1], [batch, 1, height, width]
        keep: Tensor,  # [batch, concept, height, width]
        y: Tensor,  # True classes, [batch, concept]
    ) -> Tensor:  # Log-probability of the true class, nats, [batch, concept]
        "How well each concept is read from what its mask keeps, and from its parents in the graph."
        found = []
        for k, (name, reader) in enumerate(zip(CONCEPTS, self.readers, strict=True)):
            parents = [y[:, [CONCEPTS.index(parent)]].to(x.dtype) for parent in self.settings.graph.parents(name)]
            logits = reader(torch.cat([(x[:, 0] * keep[:, k]).flatten(1), *parents], 1))
            found.append(logits.log_softmax(-1).gather(-1, y[:, [k]])[:, 0])
        return torch.stack(found, -1)

    def groups(self) -> tuple[Group, ...]:
        "The readers learn twice as fast and every second step: masks move under a reader that is nearly at rest."
        return (Group(name="masker", parameters=tuple(self.masker.parameters())),
                Group(name="readers", parameters=tuple(self.readers.parameters()), terms=("reading",), rate=2.0, every=2))

    def losses(
        self,
        batch: Batch,  # `x` images, `y` classes; `extra["price"]` where the price is a range
        context: Context,  # `live.price` is then the very same tensor, one price for each example
    ) -> Terms:
        "Per-example terms. Terms that nobody asked for are not computed: the readers do not pay for area."
        keep = self.keep(batch.x, context.live.price.expand(len(batch)))
        terms = {"reading": -self.read(batch.x, keep, batch.y).sum(-1)}
        if context.group != "readers": terms["area"] = keep.mean((1, 2, 3))
        return Terms(terms)

    def weights(self, context: Context) -> dict[str, float | Tensor]: return {"reading": 1.0, "area": context.live.price}

    def after_step(self) -> None: pass
