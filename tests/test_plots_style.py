"""Every figure of the package under parameters that somebody else's style has set: the same pixels as under none, and their
parameters are back afterwards.
"""
import ast
import io
import threading
from functools import partial
from pathlib import Path

import latentlab
import matplotlib
import numpy as np
import pytest
from cycler import cycler
from latentlab.core.registry import find_family
from latentlab.facade import make_run
from latentlab.journal import report
from latentlab.journal.journal import Journal
from latentlab.panels.display import Display
from latentlab.panels.panel import Panel
from latentlab.plots import curves, latents, masks, rates, runs, style
from latentlab.train.example import MeanRun
from latentlab.train.trainer import Trainer

HOSTILE = {
    "image.origin": "lower", "image.interpolation": "bilinear", "image.cmap": "jet", "text.usetex": True, "text.color": "lime",
    "font.family": "A Font That Nobody Has", "font.size": 31.0, "mathtext.fontset": "stix", "axes.unicode_minus": False,
    "axes.facecolor": "red", "axes.grid": True, "axes.xmargin": 0.4, "axes.linewidth": 5.0, "axes.prop_cycle": cycler(color=["lime"]),
    "axes.formatter.limits": (0, 0), "figure.facecolor": "blue", "figure.dpi": 37.0, "figure.autolayout": True, "lines.linewidth": 9.0,
    "lines.marker": "x", "xtick.direction": "in", "xtick.labelsize": 3.0, "legend.frameon": True, "legend.fontsize": 29.0,
    "savefig.transparent": True, "savefig.bbox": "tight", "savefig.dpi": 211.0, "savefig.facecolor": "blue", "savefig.format": "svg",
    "svg.fonttype": "none", "path.sketch": (3.0, 40.0, 2.0), "contour.linewidth": 7.0, "patch.force_edgecolor": True,
}
RNG = np.random.default_rng(0)
PICTURES, KEEP, STEPS = RNG.random((3, 1, 8, 8)), RNG.random((3, 8, 8)), np.arange(0, 100, 10)
CODES = {f"{kind}{i}": RNG.normal(size=(40, 2)) for i in (1, 2) for kind in ("z", "prior")}
PLANE = dict(field=RNG.normal(size=(12, 16)), extent=np.array([-2.0, 2.0, -1.0, 2.0]), points=RNG.normal(size=(40, 2)),
             labels=np.arange(40) % 2, kl=np.array([2.0, 0.1]), active=np.full(2, 2), width=np.full(2, 2)) | CODES
CURVE = runs.GroupCurve(name="a", steps=STEPS, values=RNG.random((4, 10)))
FACTS = {"title": "t", "state": "done", "id": "x", "when": "w", "steps": "1", "time": "1 s", "device": "cpu", "seed": 0, "previous": "p",
         "changes": [], "checks": [{"label": "c", "level": "bad", "sentence": "s"}], "error": ""}
FIGURES = {  # Every function of the package that makes a figure
    masks.plot_picture_rows: partial(masks.plot_picture_rows, [np.zeros((3, 4, 4, 1), np.uint8)], "three"),
    masks.draw_mask_rows: partial(masks.draw_mask_rows, [("image", "8 px", PICTURES[:, 0], None)], ("a", "b", "c"), "t", style.LIGHT, 0.9),
    masks.plot_two_masks: partial(masks.plot_two_masks, PICTURES, KEEP, KEEP[::-1], ("one", "two"), columns=("a", "b", "c"), title="t"),
    masks.plot_explanations: partial(masks.plot_explanations, PICTURES, KEEP, PICTURES, KEEP, columns=("a", "b", "c"), title="t"),
    latents.plot_latents: partial(latents.plot_latents, PLANE, title="t"),
    curves.plot_curves: partial(curves.plot_curves, STEPS, {"area": STEPS / 100.0, "loss": STEPS * -1.0}, units={"area": "share of pixels"}),
    curves.plot_run_curves: partial(curves.plot_run_curves, [curves.RunCurves(steps=STEPS, terms={"area": STEPS / 100.0}, events=(30,))]),
    curves.plot_path: partial(curves.plot_path, np.linspace(0.1, 0.9, 9), np.linspace(1, 0, 9), np.linspace(1, 0.1, 9), unit="(1-cos)/2"),
    runs.plot_bands: partial(runs.plot_bands, [CURVE], metric="area"),
    rates.plot_rates: partial(rates.plot_rates, [rates.RateCurve(name="a", rate=np.array([10.0, 20.0]), values=0.1 + RNG.random((2, 9)))],
                              metric="mse"),
    runs.plot_groups: partial(runs.plot_groups, [runs.GroupPoint(x=x, values=RNG.random(4)) for x in (0.1, 1.0)], metric="area"),
    runs.plot_paths: partial(runs.plot_paths, [runs.Path(name="r", x=RNG.random(5), y=RNG.random(5))], x_label="x", y_label="y"),
    report.plot_tiles: partial(report.plot_tiles, {"a": KEEP, "b": PICTURES}),
    report.plot_header: partial(report.plot_header, FACTS, "a note"),
}


def set_by_others(): return matplotlib.rc_context(HOSTILE)


def saved(figure):
    file = io.BytesIO()
    figure.savefig(file, format="png")
    return file.getvalue()


def makers():
    """Functions and methods of the package that call `new_figure`, or a drawing that two figures share, by module and name, and
    whether they do so under our style.
    """
    shared = {"new_figure", "draw_mask_rows"}
    for path in sorted(Path(latentlab.__file__).parent.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.FunctionDef) or node.name == "new_figure": continue
            calls = [c for c in ast.walk(node) if isinstance(c, ast.Call) and getattr(c.func, "id", "") in shared]
            begun = any(c.func.id == "new_figure" for c in calls)
            if calls: yield path.stem, node.name, not begun or any("own_style()" in ast.unparse(one) for one in (*node.decorator_list, *(
                item.context_expr for held in ast.walk(node) if isinstance(held, ast.With) for item in held.items)))


def test_every_maker_of_a_figure_is_drawn_here():
    found = list(makers())
    assert all(own for *_, own in found), [name for name in found if not name[2]]
    assert {name for _, name, _ in found} == {one.__name__ for one in FIGURES} | {"figure", "plot_columns", "draw"}, "families' figures and those over time are drawn elsewhere"


@pytest.mark.parametrize("made", FIGURES.values(), ids=[one.__name__ for one in FIGURES])
def test_a_figure_is_the_same_under_any_parameters(made):
    pixels, file = style.figure_png(made()), saved(made())
    with set_by_others():
        theirs, later = dict(matplotlib.rcParams.copy()), made()
        assert style.figure_png(made()) == pixels, "made and drawn"
        assert saved(made()) == file, "saved by its own method"
        assert dict(matplotlib.rcParams.copy()) == theirs, "their parameters are back"
    assert style.figure_png(later) == pixels, "drawn later"


def test_a_figure_in_a_page_or_a_notebook_is_the_same_too():
    made = FIGURES[curves.plot_curves]
    shown, page = made()._repr_png_(), report.figure_svg(made())
    with set_by_others(): assert made()._repr_png_() == shown and len(report.figure_svg(made())) == len(page), "whose names are random"


def test_a_display_that_draws_nothing_itself():
    display, snapshot = Display(), Trainer(MeanRun()).fit(2, progress=False).snapshot()
    pixels = style.figure_png(display.figure(snapshot))
    with set_by_others(): assert style.figure_png(display.figure(snapshot)) == pixels


@pytest.mark.slow
@pytest.mark.parametrize("name", ["nem", "hvae", "ssl"])
def test_reports_and_pictures_of_families(name, tmp_path):
    settings = {"nem": {"images": 64, "batch": 8}, "hvae": {"data": "moons", "points": 400, "batch": 32},
                "ssl": {"images": 64, "batch": 16}}
    trainer = Trainer(make_run(name, settings[name] | {"steps": 4}), journal=tmp_path).fit(progress=False)
    display, snapshot = find_family(name).load_display(), trainer.snapshot()
    page = lambda: Journal(tmp_path).report(trainer.recorder.id).png
    pixels, whole = style.figure_png(display.figure(snapshot)), page()
    with set_by_others():
        assert style.figure_png(display.figure(snapshot)) == pixels and page() == whole
        panel = Panel(trainer, name="style", threads=1)
        try: assert panel.view._repr_mimebundle_()[0]
        finally: panel.close()


def test_threads_that_draw_at_once_leave_the_parameters_as_they_were():
    "Contexts that are left in another order than they were entered lose what was set before."
    with set_by_others():
        theirs, pictures, made = dict(matplotlib.rcParams.copy()), [], FIGURES[curves.plot_curves]
        threads = [threading.Thread(target=lambda: pictures.append(style.figure_png(made()))) for _ in range(4)]
        for thread in threads: thread.start()
        for thread in threads: thread.join()
        assert len(set(pictures)) == 1 and dict(matplotlib.rcParams.copy()) == theirs
    assert pictures[0] == style.figure_png(made())


def test_an_error_while_drawing_gives_the_parameters_back():
    with set_by_others():
        theirs = dict(matplotlib.rcParams.copy())
        with pytest.raises(ValueError, match="`values` must hold curves"): curves.plot_curves(STEPS, {})
        assert dict(matplotlib.rcParams.copy()) == theirs


def test_the_program_around_a_figure_is_left_alone():
    "The backend of a notebook is neither read nor set."
    assert not any(name.startswith(("backend", "interactive", "toolbar")) for name in style.STYLE)
    with matplotlib.rc_context({"interactive": True}), style.own_style(): assert matplotlib.rcParams["interactive"]
