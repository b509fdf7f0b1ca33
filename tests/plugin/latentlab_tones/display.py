"The picture of a run, and what is done when somebody clicks, paints, scrubs, slides or cuts."
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from latentlab.core.graph import Graph
from latentlab.core.snapshot import Snapshot
from latentlab.panels.display import Display
from latentlab.panels.layout import Brush, Curve, CurvePlot, GraphPicture, Layout, Node, Row, Slider, Strip, Table, TableRow
from latentlab.panels.protocol import Event
from latentlab.panels.view import image_bytes
from latentlab.plots.style import new_figure
from latentlab.train.trainer import Rebuild, Trainer
from matplotlib.figure import Figure

from latentlab_tones.diagnostics import PRICES
from latentlab_tones.model import CONCEPTS

BLUE, ORANGE = "#56B4E9", "#E69F00"  # Of the two masks


def as_bytes(share: np.ndarray) -> np.ndarray: return (255 * share).round().clip(0, 255).astype(np.uint8)  # [0, 1] -> 0 to 255


class TonesDisplay(Display):
    "Two masks in one grid, a film over prices, a brush, a slider of its own and the graph of the concepts."
    hidden = (*Display.hidden, "graph")  # it is edited in its picture, so that it needs no control

    def layout(self, snapshot: Snapshot) -> Layout:
        graph = snapshot.run.model.graph
        rows = (Row(key="image", label="image"),
                Row(key="keep_shape", label="shape", kind="keep", note="kept to read it", colour=BLUE),
                Row(key="keep_tone", label="tone", kind="keep", note="kept to read it", colour=ORANGE),
                Row(key="left", label="your paint", kind="seen", mask="painted", note="what it leaves"))
        pictures = (Strip(key="film", label="Mask over prices", axis="price", ticks=PRICES, scrub=True, start=2),
                    Brush(key="painted", title="Brush", note="paint what is needed"),
                    Slider(name="shown_price", label="price of the masks shown", low=PRICES[0], high=PRICES[-1], value=1.0, scale="log",
                           unit="nats per share", place="right"),
                    GraphPicture(key="concepts", title="Concepts", nodes=tuple(Node(name=name) for name in graph.nodes),
                                 edges=graph.edges, editable=True))
        plots = (CurvePlot(title="Reading", terms=(Curve(name="reading", label="training", unit="nats"),
                                                   Curve(name="held_out/reading", label="held out", unit="nats", dash=True))),
                 CurvePlot(title="Area", terms=(Curve(name="held_out/area_shape", label="shape", unit="share", colour=BLUE),
                                                Curve(name="held_out/area_tone", label="tone", unit="share", colour=ORANGE))))
        table = Table(rows=tuple(TableRow(name=name, label=f"{name} from your paint", unit="probability") for name in CONCEPTS))
        return Layout(title="Tones", question="which pixels tell the **shape**, and which the **tone**?", rows=rows, pictures=pictures,
                      plots=plots, table=table, columns=tuple(snapshot.info["columns"].split(" | ")))

    def arrays(self, snapshot: Snapshot) -> Mapping[str, np.ndarray]:
        "By the names that the layout uses. Images are [n, height, width, channel], masks [n, height, width], all bytes."
        views = snapshot.views
        masks = {name: as_bytes(views[name]) for name in ("keep_shape", "keep_tone", "painted")}
        return masks | {"image": image_bytes(snapshot.images), "film": as_bytes(views["film"])[..., None]}

    def table(self, snapshot: Snapshot) -> Mapping[str, Sequence[float]]:
        return {name: [float(sure)] for name, sure in zip(CONCEPTS, snapshot.views["sure"], strict=True)}

    def notes(self, snapshot: Snapshot) -> Sequence[Mapping[str, Any]]:
        concept = CONCEPTS[int(snapshot.views["concept"])]
        return [{"text": f"The film shows the mask of the {concept}. Click another concept in the graph to see its mask."}]

    def figure(self, snapshot: Snapshot) -> Figure:
        "For reports and saved notebooks: images and both masks. A snapshot of a report is made from files, with the same arrays."
        figure = new_figure(8.0, 2.6)
        axes = figure.subplots(3, len(snapshot.images))
        shown_rows = {"image": snapshot.images[:, 0], **{name: snapshot.views[f"keep_{name}"] for name in CONCEPTS}}
        for line, (label, shown) in zip(axes, shown_rows.items(), strict=True):
            for ax, one in zip(line, shown, strict=True):
                ax.imshow(one, cmap="gray", vmin=0, vmax=1)
                ax.set(xticks=[], yticks=[])
            line[0].set_ylabel(label)
        return figure

    def on_event(self, event: Event, trainer: Trainer) -> None:
        """Called between two training steps. Source, type, value and size of the buffer are checked already; a ValueError of ours
        is shown at the picture.
        """
        held = trainer.setup.diagnostics
        match event.source, event.type:
            case "shown_price", "slide": held.price = event.value
            case "film", _: held.price = PRICES[event.value]  # click or scrub: the index of a frame
            case "painted", "paint":
                pixels = np.frombuffer(event.buffer, np.uint8).reshape(held.painted.shape[1:])
                held.painted[event.value] = torch.from_numpy(pixels.copy()).to(held.painted) / 255
            case "concepts", "click": held.concept = CONCEPTS.index(event.value)
            case "concepts", "edit": trainer.submit(Rebuild(changes={"graph": Graph.from_plain(event.value)})).result()
            case _: super().on_event(event, trainer)  # refuses
