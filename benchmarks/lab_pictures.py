"""The picture that stands below the first panel of each lab until somebody runs it: the settings of its own cell, trained here, drawn by its own display.

    python benchmarks/lab_pictures.py [nem hvae vle csvae compvae ssl]
"""
import base64
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import nbformat
from latentlab.core.registry import find_family
from latentlab.core.runtime import set_threads
from latentlab.facade import make_run
from latentlab.plots.style import figure_png
from latentlab.train.trainer import Trainer

LABS = Path(__file__).resolve().parents[1] / "nbs" / "labs"
STEPS = {"nem": 400, "hvae": 4000, "vle": 900, "csvae": 1200, "compvae": 1500, "ssl": 120}


def asked(cell):
    "Family and settings of the panel that a cell opens."
    calls = []
    exec(cell.source, {"ll": SimpleNamespace(lab=lambda family, **settings: calls.append((family, settings)))})  # our own notebooks
    return calls[0]


def made(name):
    path = LABS / f"{name}.ipynb"
    book = nbformat.read(path, as_version=4)
    cell = next(cell for cell in book.cells if cell.cell_type == "code" and "panel = ll.lab(" in cell.source)
    family, settings = asked(cell)
    settings.pop("journal")
    begun = time.monotonic()
    trainer = Trainer(make_run(family, settings)).fit(STEPS[name], progress=False)
    png = figure_png(find_family(family).load_display().figure(trainer.snapshot()))
    cell.outputs = [nbformat.v4.new_output("display_data", {"image/png": base64.b64encode(png).decode()})]
    nbformat.write(book, path)
    print(f"{name}: {trainer.step_count:,} steps in {time.monotonic() - begun:.0f} s, {len(png) / 1e3:.0f} kB", flush=True)


if __name__ == "__main__":
    set_threads(1)
    for name in sys.argv[1:] or STEPS: made(name)
