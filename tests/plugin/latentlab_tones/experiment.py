"Images, model and training of one run as settings, and the record by which the family is found."
from dataclasses import dataclass, field

import torch
from latentlab.core.model import Setup
from latentlab.core.registry import Family
from latentlab.core.runtime import stream_seed
from latentlab.core.settings import Settings, setting
from latentlab.data.batches import Batches
from latentlab.train.settings import TrainSettings
from torch import Tensor

from latentlab_tones.diagnostics import TonesDiagnostics
from latentlab_tones.model import HEIGHT, WIDTH, Tones, TonesSettings

FIGURES = (((1, 1, 1, 1, 1), (1, 0, 0, 0, 1), (1, 0, 0, 0, 1), (1, 0, 0, 0, 1), (1, 1, 1, 1, 1)),  # class 0: a box
           ((0, 0, 1, 0, 0), (0, 0, 1, 0, 0), (1, 1, 1, 1, 1), (0, 0, 1, 0, 0), (0, 0, 1, 0, 0)))  # class 1: a cross


def draw_images(
    count: int,  # How many
    link: float,  # Share of images whose tone follows their shape
    seed: int,  # Of the draws
) -> tuple[Tensor, Tensor]:  # uint8 [count, 1, height, width]; classes [count, 2]: shape, tone
    "A box or a cross somewhere at the left, and a bright or a dim spot somewhere at the right."
    stream = torch.Generator().manual_seed(stream_seed(seed, "tones"))
    shape = torch.randint(2, (count,), generator=stream)
    tone = torch.where(torch.rand(count, generator=stream) < link, shape, 1 - shape)
    tops, lefts = (torch.randint(0, n, (count, 2), generator=stream).tolist() for n in (HEIGHT - 5, 4))
    images, figures = torch.zeros(count, 1, HEIGHT, WIDTH, dtype=torch.uint8), torch.tensor(FIGURES, dtype=torch.uint8)
    for i in range(count):
        (top, spot), (left, right) = tops[i], lefts[i]
        images[i, 0, top:top + 5, left:left + 5] = 180 * figures[shape[i]]
        images[i, 0, spot:spot + 3, 9 + right:12 + right] = 90 + 150 * tone[i]
    return images, torch.stack([shape, tone], -1)


@dataclass(frozen=True, kw_only=True)
class TonesRun(Settings):
    """Images, model and training of one run. The class is called after its family, with Run at its end: so the journal calls it.

    setup = TonesRun().replace(price=0.5, link=0.5).build(torch.device("cpu"))
    """

    images: int = setting(512, kind="build", low=64, high=10_000, scale="log", label="training images",
                         reason="drawn in a tenth of a second")
    link: float = setting(0.9, kind="build", low=0.0, high=1.0, unit="share", reason="a tone that follows its shape, but not always")
    model: TonesSettings = field(default_factory=TonesSettings)  # Masker and readers
    train: TrainSettings = field(default_factory=lambda: TrainSettings(learning_rate=5e-3, steps=600, check_every=50, device="cpu"))

    def build(
        self,
        device: torch.device,  # Where model and images go
    ) -> Setup:  # 8 images are shown, 64 measured
        "Everything a trainer needs. What does not fit is refused here, before any time is spent."
        if self.train.batch > self.images:
            raise ValueError(f"`batch` must be at most the number of images: got {self.train.batch} of {self.images}. Lower it.")
        x, y = (part.to(device) for part in draw_images(self.images, self.link, self.train.seed))
        test_x, test_y = (part.to(device) for part in draw_images(72, self.link, 1_000_000 + self.train.seed))
        test_x = test_x.float() / 255
        with torch.random.fork_rng(devices=[]):  # weights depend on the run's seed alone, and the caller's random numbers stay as they were
            torch.manual_seed(stream_seed(self.train.seed, "weights"))
            model = Tones(self.model).to(device)
        diagnostics = TonesDiagnostics(test_x[:8], test_y[:8], test_x[8:], test_y[8:])
        names = [f"{('box', 'cross')[s]}, {('dim', 'bright')[t]}" for s, t in test_y[:8].tolist()]
        info = {"data": "tones", "device": str(device), "columns": " | ".join(names)}
        return Setup(model=model, batches=Batches(x, self.train.batch, self.train.seed, labels=y), diagnostics=diagnostics,
                     preview=test_x[:8], held_out=test_x[8:], info=info)


FAMILY = Family(name="tones", title="Tones: which pixels tell the shape, and which the tone?", experiment=TonesRun,
                display="latentlab_tones.display:TonesDisplay", summary=("held_out/reading", "held_out/area_tone"), lab="tones.ipynb")
