"The example plug-in in a real browser: a family that the package does not know is clicked, painted, scrubbed, slid and cut by hand."
import ast

import pytest
from plugin_path import PLUGIN, write_entry_points

pytestmark = pytest.mark.browser

CELL = "import latentlab as ll\npanel = ll.lab('tones', journal='runs', images=128, batch=16, threads=1)\npanel"


@pytest.fixture(scope="module")
def panel(open_notebook, tmp_path_factory):
    "The lab of the plug-in; its kernel finds it as an installed package."
    site = write_entry_points(tmp_path_factory.mktemp("site"), "latentlab-tones", {"tones": "latentlab_tones.experiment:FAMILY"})
    found = f"import sys\nsys.path[:0] = [{str(PLUGIN)!r}, {str(site)!r}]\n"
    notebook = open_notebook([found + CELL], name="tones", width=1480, height=1300)
    notebook.wait_data("Number(d.painted) > 3")
    return notebook


def held(panel, what): return ast.literal_eval(panel.execute(f"print(repr({what}))"))


def wait_held(panel, what, wanted):
    "Until an expression in the kernel has a value."
    for _ in range(80):
        found = held(panel, what)
        if found == wanted: return
        panel.page.wait_for_timeout(100)
    raise AssertionError(f"{what} is {found!r}, not {wanted!r}")


DIAGNOSTICS = "panel.trainer.setup.diagnostics"


def test_it_trains_and_shows_two_masks(panel):
    panel.wait_data("Number(d.step) > 20")
    assert panel.page.locator("[data-row=keep_shape] canvas").count() == 1 and panel.page.locator("[data-row=keep_tone] canvas").count() == 1


def test_a_film_is_clicked_and_scrubbed(panel):
    small = panel.place("[data-source=film] .ll-film-small")
    panel.page.mouse.click(small["x"] + 0.1 * small["width"], small["y"] + small["height"] / 2)
    wait_held(panel, f"{DIAGNOSTICS}.price", 0.1)
    panel.page.locator("[data-scrub=film]").press("ArrowRight")
    wait_held(panel, f"{DIAGNOSTICS}.price", 0.3)


def test_a_slider_of_its_own_moves_the_masks(panel):
    row = "document.querySelector('[data-row=keep_shape] canvas').toDataURL()"
    before = panel.page.evaluate(row)
    panel.page.locator("[data-source=shown_price] .ll-value").click()
    field = panel.page.locator("[data-source=shown_price] .ll-typed")
    field.fill("8")
    field.press("Enter")
    wait_held(panel, f"{DIAGNOSTICS}.price", 8.0)
    panel.page.wait_for_function(f"() => {row} !== {before!r}", timeout=60_000)


def test_a_painted_frame_answers(panel):
    canvas, row = panel.place("[data-source=painted] .ll-brush-canvas"), "document.querySelector('[data-row=left] canvas').toDataURL()"
    before = panel.page.evaluate(row)
    at = lambda x, y: (canvas["x"] + x * canvas["width"], canvas["y"] + y * canvas["height"])
    panel.page.mouse.move(*at(0.1, 0.5))
    panel.page.mouse.down()
    panel.page.mouse.move(*at(0.5, 0.5), steps=8)
    panel.page.mouse.up()
    wait_held(panel, f"bool({DIAGNOSTICS}.painted[0].any())", True)
    assert held(panel, f"bool({DIAGNOSTICS}.painted[1:].any())") is False
    panel.page.wait_for_function(f"() => {row} !== {before!r}", timeout=60_000)


def test_a_concept_is_clicked_and_an_edge_is_cut(panel):
    panel.shot("tones")
    node = panel.place("[data-source=concepts] [data-node=tone]")
    panel.page.mouse.click(node["x"] + node["width"] / 2, node["y"] + node["height"] / 2)
    wait_held(panel, f"{DIAGNOSTICS}.concept", 1)
    panel.page.keyboard.press("Escape")
    cross = panel.place("[data-cut='shape > tone']")
    panel.page.mouse.click(cross["x"] + cross["width"] / 2, cross["y"] + cross["height"] / 2)
    wait_held(panel, "panel.trainer.run.model.graph.edges", ())
    panel.wait_data("Number(d.step) > 5")
    assert panel.page.locator("[data-source=concepts]").first.get_attribute("data-edges") == ""
    assert panel.errors == []
