"What is seen at once in a laptop's window, after Run all, and in a saved notebook whose kernel is gone."

import json
from pathlib import Path

import nbformat
import pytest

pytestmark = pytest.mark.browser

LABS = Path(__file__).resolve().parents[2] / "nbs" / "labs"
HERE = """(selectors) => { const scroller = document.querySelector('.jp-WindowedPanel-outer').getBoundingClientRect();
    return selectors.filter((selector) => { const found = [...document.querySelectorAll(selector)].filter((e) => e.offsetParent !== null);
        return !found.length || found.some((e) => { let box = e.getBoundingClientRect(), left = box.width * box.height;
            for (let around = e.parentElement; around && !around.classList.contains('ll'); around = around.parentElement) { // what a part that scrolls does not show is not seen
                if (getComputedStyle(around).overflowY === 'visible') continue;
                const b = around.getBoundingClientRect(); if (box.top < b.top - 1 || box.bottom > b.bottom + 1) return true; }
            return !left || box.top < scroller.top - 1
                || box.bottom > Math.min(scroller.bottom, innerHeight) + 1 || box.left < 0 || box.right > innerWidth; }); }); }"""  # Those of which a part is not seen
ALWAYS = [".ll-pill", ".ll-verdict", ".ll-group.live > .ll-control", ".ll-plot.curves:first-child canvas", ".ll-tab"]
PICTURES = {"nem": [".ll-strip canvas", ".ll-card"], "hvae": [".ll-sheet.field", ".ll-sheet.scatter", ".ll-barrow > *", ".ll-card"]}


def lab_cells(name: str) -> list[str]:
    "The code cells of a lab up to its panel, and a cell after it."
    cells = ["".join(c["source"]) for c in json.loads((LABS / f"{name}.ipynb").read_text())["cells"] if c["cell_type"] == "code"]
    return [*cells[:2], *["print('a cell below')"] * 30]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["nem", "hvae"])
def test_all_that_counts_is_seen_at_once_on_a_laptop(open_notebook, name):
    """1280 x 900 with the file sidebar open, straight after Run all: state, worst check, pictures, controls of the first group
    and a curve lie whole within the window, in both themes.
    """
    notebook = open_notebook(lab_cells(name), name=f"sight-{name}", run=False, width=1280, height=900)
    if not notebook.page.locator("#jp-left-stack").is_visible(): notebook.command("application:toggle-left-area")
    notebook.command("notebook:run-all-cells")
    notebook.page.wait_for_selector(".ll", timeout=120_000)
    notebook.page.wait_for_function("() => Number(document.querySelector('.ll').dataset.step) > 25", timeout=120_000)  # nothing scrolls there but the panel
    notebook.page.wait_for_function("() => document.querySelector('.ll-verdict').dataset.level !== 'off'", timeout=60_000)
    wanted = [*ALWAYS, *PICTURES[name]]
    for theme in ("light", "dark"):
        notebook.command("apputils:change-theme", {"theme": f"JupyterLab {theme.title()}"})
        notebook.page.wait_for_function(f"() => document.querySelector('.ll').classList.contains('dark') === {str(theme == 'dark').lower()}", timeout=60_000)
        notebook.page.wait_for_timeout(700)
        assert notebook.page.evaluate(HERE, wanted) == []
        notebook.shot(f"sight-{name}-{theme}")
    notebook.command("apputils:change-theme", {"theme": "JupyterLab Light"})
    assert notebook.page.locator("#jp-left-stack").is_visible() and not notebook.errors
    notebook.execute("panel.close()")


@pytest.fixture(scope="module")
def fed(open_notebook):
    "A fake trainer whose checks can be told."
    notebook = open_notebook(["from feeder import Feeder\nfeeder = Feeder().start()\nfeeder.view"], name="sight", width=1280, height=900)
    notebook.wait_data("Number(d.painted) > 3")
    notebook.execute("tell = feeder.view.tell\nfeeder.view.tell = lambda words: tell({k: v for k, v in words.items() if k != 'checks'})")
    return notebook


def verdict(name, level, step=12_100, sentence="", remedy=""):
    return dict(name=name, label=name, level=level, value=0.0, threshold=0.02, sentence=sentence or f"{name} says {level}", remedy=remedy, step=step)


def test_a_collapse_is_not_under_a_green_state(fed):
    "The worst check stands in the top line with its sentence and its step; the state is no longer green; a click leads to the lights."
    checks = [verdict("combs", "warn"), verdict("collapse", "bad", sentence="Trouser keeps 2.1e-19 of its pixels", remedy="Lower KL scale."), verdict("line", "ok")]
    green = fed.page.locator(".ll-pill").evaluate("(e) => getComputedStyle(e).backgroundColor")
    fed.execute(f"tell({{'checks': {checks!r}}})")
    fed.page.wait_for_function("() => document.querySelector('.ll-verdict').dataset.level === 'bad'", timeout=60_000)
    words = fed.page.locator(".ll-header .ll-verdict")
    assert "Trouser keeps 2.1e-19 of its pixels" in words.inner_text() and "at step 12,100" in words.inner_text() and "! 1" in words.inner_text()
    assert fed.page.locator(".ll-pill").evaluate("(e) => getComputedStyle(e).backgroundColor") != green
    assert fed.page.locator(".ll-tab[data-dock=checks] .ll-tally.bad").inner_text() == "✕ 1"
    assert not fed.page.locator(".ll-lights").is_visible()
    words.click()
    assert fed.page.locator(".ll-lights").is_visible() and "Lower KL scale." in fed.page.locator(".ll-details").inner_text()
    assert fed.page.evaluate("document.activeElement.dataset.check") == "collapse"
    assert {stamp for stamp in fed.page.locator(".ll-stamp:visible").all_inner_texts() if stamp.startswith("at")} == {"at step 12,100"}
    fed.shot("sight-collapse")
    fed.execute(f"tell({{'checks': {[verdict('line', 'ok')]!r}}})")
    fed.page.wait_for_function("() => document.querySelector('.ll-verdict').dataset.level === 'ok'", timeout=60_000)
    assert "1 check well" in words.inner_text()
    fed.page.locator(".ll-tab[data-dock=plots-0]").click()


def test_help_says_what_a_control_does_and_then_why_it_starts_there(fed):
    "With the pointer and with the keyboard; Escape and a move of the slider close it; a reset arrow takes no room from the label."
    fed.execute("feeder.view.tell({'schema': [c | ({'what': 'price of one nat of mask'} if c['name'] == 'kl_scale' else {}) for c in feeder.view.schema]})")
    fed.page.wait_for_timeout(600)
    tip, label = fed.page.locator(".ll-help"), fed.page.locator("[data-name=kl_scale] label")
    label.hover()
    tip.wait_for(state="visible", timeout=60_000)
    lines = tip.inner_text().splitlines()
    assert lines[0] == "KL scale" and lines[1] == "Price of one nat of mask." and lines[2].startswith("Default 0.01: Price of one nat of mask. Larger keeps fewer")
    inside, panel = tip.bounding_box(), fed.page.locator(".ll-box").first.bounding_box()
    assert panel["y"] <= inside["y"] and inside["y"] + inside["height"] <= panel["y"] + panel["height"] and inside["x"] >= panel["x"]
    fed.page.locator(".ll-title").hover()
    tip.wait_for(state="hidden", timeout=60_000)
    slider = fed.page.locator("[data-name=kl_scale] input[type=range]")
    slider.focus()
    slider.press("ArrowRight")
    fed.page.keyboard.press("Shift+Tab"), fed.page.keyboard.press("Tab")
    tip.wait_for(state="visible", timeout=60_000)
    assert slider.get_attribute("aria-describedby") == tip.get_attribute("id")
    reset = fed.page.locator("[data-name=kl_scale] .ll-reset")
    assert reset.is_visible() and reset.bounding_box()["x"] + reset.bounding_box()["width"] <= label.bounding_box()["x"] + 1
    assert label.evaluate("(e) => e.scrollWidth <= e.clientWidth")
    for key in ("ArrowRight", "Escape"):  # a hand that moves the slider wants to see the picture below
        tip.wait_for(state="visible", timeout=60_000)
        slider.press(key)
        tip.wait_for(state="hidden", timeout=60_000)
        fed.page.keyboard.press("Shift+Tab"), fed.page.keyboard.press("Tab")
    fed.page.locator(".ll-title").click()


def test_two_units_never_share_an_axis(fed):
    "A plot that begins at a step draws nothing before it, and says so."
    fed.execute("plan = feeder.view.plan\ntell({'plan': plan | {'plots': [plan['plots'][0] | {'since': 10**9}, *plan['plots'][1:]]}})")
    fed.page.wait_for_function("() => document.querySelector('.ll-plot.curves .ll-note').innerText.startsWith('from step')", timeout=60_000)
    fed.page.wait_for_timeout(700)
    assert set(fed.page.locator(".ll-plot.curves .ll-legend-item b").all_inner_texts()) == {"–"}
    fed.execute("tell({'plan': plan})")
    fed.page.wait_for_function("() => !document.querySelector('.ll-plot.curves .ll-legend-item b').innerText.includes('–')", timeout=60_000)


def test_a_curve_begins_where_its_ruler_came_into_force(fed):
    "One of three curves is on another ruler from a step on: it alone begins there, with a line at the step, and the plot says so."
    fed.execute("""plan = feeder.view.plan
late = [term | ({'since': 10**9} if term['name'] == 'kl' else {}) for term in plan['plots'][0]['terms']]
path = [one | ({'since': 10**9} if one['y'] == 'distance_hard' else {}) for one in plan['plots'][1]['series']]
tell({'plan': plan | {'plots': [plan['plots'][0] | {'terms': late}, plan['plots'][1] | {'series': path}]}})""")
    fed.page.wait_for_function("() => document.querySelector('.ll-plot.curves .ll-note').innerText.includes('measured otherwise before')", timeout=60_000)
    notes = fed.page.locator(".ll-plot .ll-plothead .ll-note").all_inner_texts()
    label = fed.execute("print(next(term['label'] for term in late if 'since' in term))").strip()
    assert notes[0].startswith(f"{label} from step 1") and "hard mask, same area from step 1" in notes[1]
    fed.page.wait_for_timeout(700)
    values = dict(zip(fed.page.locator(".ll-plot.curves .ll-legend-item > span").all_inner_texts(),
                      fed.page.locator(".ll-plot.curves .ll-legend-item b").all_inner_texts()))
    assert values[label] == "–" and "–" not in [value for name, value in values.items() if name != label], values
    fed.execute("tell({'plan': plan})")
    whole = "const all = [...document.querySelectorAll('.ll-plot.curves .ll-legend-item b')]; return all.length && !all.some((e) => e.innerText.includes('–'))"
    fed.page.wait_for_function(f"() => {{ {whole}; }}", timeout=60_000)


def test_axes_fit_what_the_names_leave(fed):
    "Names that wrap take room from a plot after it was drawn: its axes follow, and the numbers below them are not cut."
    fits = ("() => [...document.querySelectorAll('.ll-plot .ll-area')].filter((e) => e.offsetParent)"
            ".map((e) => e.clientHeight - e.querySelector('.u-wrap').getBoundingClientRect().height)")
    fed.page.wait_for_function(f"() => ({fits})().length > 1 && ({fits})().every((v) => Math.abs(v) <= 1)", timeout=60_000)
    fed.page.evaluate("() => document.querySelectorAll('.ll-plot .ll-legend').forEach((e) => { e.style.minHeight = '50px'; })")
    fed.page.wait_for_function(f"() => ({fits})().every((v) => Math.abs(v) <= 1)", timeout=60_000)
    fed.page.evaluate("() => document.querySelectorAll('.ll-plot .ll-legend').forEach((e) => { e.style.minHeight = ''; })")


BOXED = """import ipywidgets
from latentlab.panels.panel import Panel
from latentlab.train.example import MeanRun
from latentlab.panels.display import Display
from latentlab.panels.layout import Layout, Row
from latentlab.panels.view import image_bytes
from latentlab.core.registry import Family
class Shown(Display):
    def layout(self, snapshot): return Layout(title="mean", rows=[Row(key="level", label="level")])
    def arrays(self, snapshot): return {"level": image_bytes(snapshot.views["level"].clip(0, 1))}
class Mean(Family):
    def load_display(self): return Shown()
family = Mean(name="mean", title="mean", experiment=MeanRun, display="here:Shown", summary=("loss",), lab="mean.ipynb")
panel = Panel(MeanRun(), family=family, threads=1)"""


@pytest.mark.slow
def test_a_panel_lives_in_a_box_of_widgets(open_notebook):
    "In a VBox, beside a label, it is painted and answers."
    notebook = open_notebook([BOXED, "ipywidgets.VBox([ipywidgets.Label('mine'), panel])"], name="boxed", width=1280, height=900)
    notebook.wait_data("Number(d.painted) >= 1", 20)
    assert "mine" in notebook.page.locator(".jp-OutputArea").last.inner_text()
    notebook.page.locator("[data-command=run]").click()
    notebook.wait_data("Number(d.step) > 20 && d.state === 'running'", 20)
    box = notebook.page.locator(".ll").bounding_box()
    assert box["width"] > 600 and box["height"] < 900
    notebook.execute("panel.close()")
    assert not notebook.errors


@pytest.mark.slow
def test_a_saved_notebook_without_its_kernel_shows_the_picture(open_notebook):
    "Executed, saved, the kernel shut down, opened again: the picture is what is seen, and not the sentence of the widget manager."
    notebook = open_notebook([BOXED, "panel.run()\npanel"], name="saved", width=1280, height=900)
    notebook.wait_data("Number(d.step) > 20", 20)
    still = notebook.page.locator("img.ll-still")
    assert still.count() == 1 and not still.is_visible()  # the live panel hides it
    notebook.page.locator("[data-command=pause]").click()
    notebook.wait_data("d.state === 'paused'", 20)
    step = notebook.data("step")
    notebook.page.wait_for_timeout(1500)
    notebook.command("docmanager:save")
    notebook.page.wait_for_timeout(1500)
    saved = nbformat.read(notebook.lab.folder / notebook.path, 4)
    kinds = [set(o.get("data", {})) for c in saved.cells for o in c.get("outputs", [])]
    assert [sorted(k) for k in kinds] == [["application/vnd.jupyter.widget-view+json", "text/plain"], ["image/png", "text/html", "text/plain"]]
    assert f"step {int(step):,}" in saved.cells[1].outputs[1].data["text/plain"]
    notebook.lab.ask("DELETE", f"/api/sessions/{notebook.session['id']}")
    notebook.page.goto("about:blank")
    notebook.page.goto(f"{notebook.lab.url}/lab/tree/{notebook.path}?reset&token={notebook.lab.token}")
    notebook.page.wait_for_selector("img.ll-still", state="visible", timeout=60_000)
    notebook.page.wait_for_timeout(6000)  # the page starts another kernel, and its widget manager finds no model
    assert still.is_visible() and still.evaluate("(e) => e.naturalWidth") > 100
    assert "model not found" not in notebook.page.evaluate("document.querySelector('.jp-Notebook').innerText")
    notebook.page.screenshot(path=Path(__file__).resolve().parents[2] / "shots" / "sight-saved.png")
