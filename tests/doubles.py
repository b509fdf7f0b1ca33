"Runs in float64, for tests in processes of their own: they import this module by its name."
from dataclasses import replace

import torch
from latentlab.core.batch import Batch, Context
from latentlab.core.model import Model, Setup
from latentlab.core.settings import Settings
from latentlab.core.snapshot import Measurement


class DoubleBatches:
    "Batches of another source, in float64."

    def __init__(self, batches): self.batches = batches

    def at(self, step: int) -> Batch:
        batch = self.batches.at(step)
        return replace(batch, x=batch.x.double())


class Weighed:
    "In place of diagnostics that work in float32 alone: the sum of all weights."
    checks = ()

    def measure(self, model: Model, context: Context) -> Measurement:
        return Measurement(step=context.step, figures={"total": sum(p.sum().item() for p in model.parameters())}, verdicts=())

    def views(self, model: Model, context: Context) -> dict[str, torch.Tensor]: return {}


def build_double(run: Settings, device: torch.device) -> Setup:
    "What a run builds, every floating number of it in float64; from here on new tensors are float64 too, such as live settings."
    torch.set_default_dtype(torch.float32)
    setup = run.build(device)
    torch.set_default_dtype(torch.float64)
    model = setup.model.double()
    if hasattr(model, "encoder"): model.encoder.double()  # held, not a part of the model
    if hasattr(model, "fill"): model.fill = type(model.fill).of(setup.held_out.double())
    return replace(setup, model=model, batches=DoubleBatches(setup.batches), diagnostics=Weighed(), preview=setup.preview.double(),
                   held_out=setup.held_out.double())
