"Runs in float64, for tests in processes of their own: they import this module by its name."
from dataclasses import dataclass, replace

import torch
from latentlab.core.settings import Settings
from latentlab.core.terms import Parts


@dataclass(frozen=True)
class Weighed:
    "In place of a probe that works in float32 alone."
    total: float  # Sum of all weights

    def figures(self) -> dict[str, float]: return {"total": self.total}


def build_double(run: Settings, device: torch.device) -> Parts:
    "What a run builds, every floating number of it in float64; from here on new tensors are float64 too, such as live settings."
    torch.set_default_dtype(torch.float32)
    parts = run.build(device)
    images = parts.images if parts.images.is_floating_point() else parts.images.float() / 255
    torch.set_default_dtype(torch.float64)
    model = parts.model.double()
    if hasattr(model, "encoder"): model.encoder.double()  # held, not a part of the model
    if hasattr(model, "fill"): model.fill = type(model.fill).of(images.double())
    model.checks, model.probe = (), lambda x, *, live, generator: Weighed(sum(p.sum().item() for p in model.parameters()))
    return replace(parts, model=model, images=images.double(), probe=parts.probe.double(), watch=parts.watch.double())
