"""A laboratory in JupyterLab to see what a latent code holds.

import latentlab as ll

ll.lab("nem", kl_scale=0.02, journal="runs")                                        # a live panel; the notebook stays free
trainer = ll.train("hvae", data="moons", layers=2, steps=4000, journal="runs")     # in the caller, recorded
ll.explain(trainer_of_masks, ll.images("fashion-mnist", "test", limit=8))           # which pixels an encoder depends on
ll.evaluate(trainer, samples=100)                                                   # bounds, in nats
ll.families()                                                                       # what there is

A name is imported when it is first used; `import latentlab` itself imports nothing. The functions are documented in `latentlab.facade`.
"""
import importlib
import sys
import types
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

PLACES = {  # Name here -> where it is defined
    "lab": "latentlab.facade:lab",
    "explain": "latentlab.facade:explain",
    "evaluate": "latentlab.facade:measure_model",
    "images": "latentlab.facade:images",
    "restore": "latentlab.facade:restore",
    "adapt": "latentlab.latents.adapt:adapt",
    "sliders": "latentlab.panels.sliders:LatentSliders",
    "controls": "latentlab.panels.live_controls:LiveControls",
    "encoder": "latentlab.nn.encoders:open_encoder",
    "family": "latentlab.core.registry:find_family",
    "Trainer": "latentlab.train.trainer:Trainer",
    "Journal": "latentlab.journal.journal:Journal",
    "Plan": "latentlab.sweeps.plan:Plan",
    "grid": "latentlab.sweeps.plan:grid",
    "Sweep": "latentlab.sweeps.sweep:Sweep",
}
CALLED = {  # Packages of ours that are called as well -> what a call does
    "train": "latentlab.facade:train",
    "families": "latentlab.core.registry:families",
}
__all__ = ["__version__", *PLACES, *CALLED]

if TYPE_CHECKING:  # What editors and type checkers read
    from latentlab import facade
    from latentlab.core import registry
    from latentlab.journal.journal import Journal as Journal
    from latentlab.latents.adapt import adapt as adapt
    from latentlab.nn import encoders
    from latentlab.panels.live_controls import LiveControls
    from latentlab.panels.sliders import LatentSliders
    from latentlab.sweeps.plan import Plan as Plan
    from latentlab.sweeps.plan import grid as grid
    from latentlab.sweeps.sweep import Sweep as Sweep
    from latentlab.train.trainer import Trainer as Trainer

    lab, train, explain, evaluate, images = facade.lab, facade.train, facade.explain, facade.measure_model, facade.images
    restore = facade.restore
    sliders, controls = LatentSliders, LiveControls
    encoder, family, families = encoders.open_encoder, registry.find_family, registry.families


def load_place(place: str) -> Any:  # "package.module:name" -> what it names
    module, name = place.split(":")
    return getattr(importlib.import_module(module), name)


class CallablePackage(types.ModuleType):
    "A package that can be called: Python has one name for `latentlab.train`, the folder, and `latentlab.train(...)`, the function."

    def __call__(self, *values: Any, **named: Any) -> Any: return load_place(CALLED[self.__name__.rpartition(".")[2]])(*values, **named)

    @property
    def __signature__(self) -> Any:
        import inspect

        return inspect.signature(load_place(CALLED[self.__name__.rpartition(".")[2]]))


def make_callable(name: str) -> None:  # Of a package in CALLED; its own `__init__` says this
    sys.modules[name].__class__ = CallablePackage


def __getattr__(name: str) -> Any:
    "Names are looked up when they are first used (PEP 562)."
    if name in CALLED: return importlib.import_module(f"latentlab.{name}")
    if name not in PLACES: raise AttributeError(f"module 'latentlab' has no attribute {name!r}. It has {', '.join(__all__)}.")
    found = globals()[name] = load_place(PLACES[name])
    return found


def __dir__() -> list[str]: return sorted({*globals(), *__all__})
