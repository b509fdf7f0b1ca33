"What is measured on held-out images, and what is drawn of the preview. It holds both, and what somebody did to the picture."
import torch
from latentlab.core.batch import Context
from latentlab.core.checks import Limit, Verdict, brief, judge, level
from latentlab.core.snapshot import Measurement
from torch import Tensor

from latentlab_tones.model import CONCEPTS, Tones

PRICES = (0.1, 0.3, 1.0, 3.0, 10.0)  # Frames of the film strip, nats per share
EMPTY = Limit(warn=0.9974, bad=0.9995, reason="half a pixel, and a tenth of one, of 12 x 16")


def nothing_kept(
    hidden: float,  # Share of pixels that the emptier mask hides
) -> Verdict:
    "Whether a mask has collapsed. A check is a function of numbers; its name is what the lights and the journal call it."
    sentence = f"the emptier mask keeps {brief(192 * (1 - hidden))} pixels"
    return judge("nothing_kept", level(hidden, EMPTY), hidden, EMPTY, sentence, "lower the price")


class TonesDiagnostics:
    "Held-out images for numbers, preview images for pictures, and the positions of slider, film and brush."
    checks = (nothing_kept,)

    def __init__(
        self,
        preview: Tensor,  # Shown, [preview, 1, height, width]
        preview_y: Tensor,  # Their classes
        held_out: Tensor,  # Measured, [held_out, 1, height, width]
        held_out_y: Tensor,  # Their classes
    ):
        self.preview, self.preview_y, self.held_out, self.held_out_y = preview, preview_y, held_out, held_out_y
        self.price, self.concept = 1.0, 0  # Where the slider stands; which concept the film shows
        self.painted = torch.zeros_like(preview[:, 0])  # What somebody painted, 1 = kept

    def measure(self, model: Tones, context: Context) -> Measurement:
        "Numbers at the middle of the price's range (`context.live` gives that outside of a training step)."
        keep = model.keep(self.held_out, context.live.price.expand(len(self.held_out)))
        nats = -model.read(self.held_out, keep, self.held_out_y)
        figures = {"reading": nats.sum(-1).mean().item()}
        for k, name in enumerate(CONCEPTS):
            figures |= {f"area_{name}": keep[:, k].mean().item(), f"read_{name}": (nats[:, k] < 0.693).float().mean().item()}
        hidden = 1 - min(figures[f"area_{name}"] for name in CONCEPTS)
        return Measurement(step=context.step, figures=figures, verdicts=(nothing_kept(hidden),))

    def views(self, model: Tones, context: Context) -> dict[str, Tensor]:
        "Pictures of the preview at the slider's price; the film of the first image over all prices; what the paint alone tells."
        x, n = self.preview, len(self.preview)
        keep = model.keep(x, x.new_full((n,), self.price))
        film = model.keep(x[:1].expand(len(PRICES), -1, -1, -1), x.new_tensor(PRICES))[:, self.concept]
        painted = self.painted[:, None].expand(-1, len(CONCEPTS), -1, -1)
        return {"keep_shape": keep[:, 0], "keep_tone": keep[:, 1], "painted": self.painted, "film": film,
                "sure": model.read(x, painted, self.preview_y).exp().mean(0), "concept": x.new_tensor(float(self.concept))}
