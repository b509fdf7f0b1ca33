"The lab of concepts as a new user meets it: train on correlated sprites, cut an edge, set the position by hand, drag the schedule, switch on the journal's fault."

import ast

import pytest

pytestmark = pytest.mark.browser

CELLS = ["import latentlab as ll", "panel = ll.lab('csvae', journal='runs', images=1000, features=64, check_every=1_000_000)\npanel"]


@pytest.fixture(scope="module")
def lab(open_notebook):
    notebook = open_notebook(CELLS, name="csvae", width=1280, height=900)
    notebook.wait_data("Number(d.step) > 20 && Number(d.painted) > 3")
    return notebook


def held(lab, what): return ast.literal_eval(lab.execute(f"print(repr({what}))"))


def wait_held(lab, what, wanted):
    "Until an expression in the kernel has a value."
    for _ in range(200):
        found = held(lab, what)
        if found == wanted: return
        lab.page.wait_for_timeout(100)
    raise AssertionError(f"{what} is {found!r}, not {wanted!r}")


def wait_text(lab, selector, words):
    lab.page.wait_for_function("([s, w]) => [...document.querySelectorAll(s)].some((e) => e.textContent.includes(w))", arg=[selector, words],
                               timeout=60_000)


def test_every_concept_says_its_kl_and_every_arrow_its_strength(lab):
    graph = "[data-source=concepts]"
    wait_text(lab, f"{graph} [data-node=orientation]", "nats")
    lab.page.wait_for_selector(f"{graph} [data-edge='x > orientation'][data-strength]")
    assert float(lab.page.locator(f"{graph} [data-edge]").get_attribute("data-strength")) > 0
    bars = lab.page.locator("[data-picture=bars] .ll-barrow")
    assert bars.count() == 6 and bars.last.get_attribute("data-mark") == "12.5600"  # all together; ticks at the entropy of the law
    assert lab.page.locator("[data-picture=matrix]").evaluate_all("all => all.map((e) => e.dataset.cells)") == ["10,17", "7,9", "10,25"]
    assert lab.errors == []


def test_an_arrow_is_cut_and_drawn_again(lab):
    where = lab.place("[data-cut='x > orientation']")
    lab.page.mouse.click(where["x"] + where["width"] / 2, where["y"] + where["height"] / 2)
    wait_held(lab, "panel.trainer.run.model.graph.edges", ())
    lab.wait_data("d.state === 'running'")
    assert held(lab, "panel.trainer.error") is None and held(lab, "bool(panel.trainer.model.prior.reach().any())") is False
    lab.page.locator("[data-source=concepts] .ll-mini").click()
    wait_held(lab, "panel.trainer.run.model.graph.edges", (("x", "orientation"),))
    lab.page.wait_for_selector("[data-source=concepts] [data-edge='x > orientation']")  # the page has it too


def test_the_position_is_set_by_hand_beside_the_true_picture(lab):
    where = lab.place("[data-node=x]")
    lab.page.mouse.click(where["x"] + where["width"] / 2, where["y"] + where["height"] / 2)
    wait_text(lab, "[data-picture=strip] .ll-plothead", "Set by hand: x")
    wait_text(lab, "[data-picture=strip] .ll-plothead", "the true picture")
    lab.page.locator("[data-scrub=film]").press("End")
    wait_text(lab, "[data-picture=strip] .ll-film-where", "x 1")
    # the true picture of x = 1 lies on the right: its brightest column is beyond the middle
    right = lab.page.locator("[data-picture=strip] .ll-film-large").evaluate(
        """(c) => { const d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data; let on = 0, far = 0;
        for (let y = Math.floor(0.55 * c.height); y < c.height; y++) for (let x = 0; x < c.width; x++) if (d[4 * (y * c.width + x)] > 128) { on++; far += x > c.width / 2; }
        return on ? far / on : 0; }""")
    assert right > 0.9


def test_the_schedule_is_dragged(lab):
    lab.page.locator("[data-command=pause]").click()
    lab.wait_data("d.state === 'paused'")
    where, before = lab.place("[data-picture=ramp] canvas"), held(lab, "panel.trainer.run.model.warmup_steps")
    x, y, left = map(float, lab.page.locator("[data-picture=ramp]").get_attribute("data-at").split(","))
    lab.page.mouse.move(where["x"] + x, where["y"] + y)
    lab.page.mouse.down()
    lab.page.mouse.move(where["x"] + left + (x - left) / 2, where["y"] + y, steps=4)
    lab.page.mouse.up()
    wait_held(lab, f"abs(panel.trainer.run.model.warmup_steps - {before} / 2) < 0.04 * {before}", True)
    lab.page.locator("[data-picture=ramp] canvas").press("Home")
    wait_held(lab, "panel.trainer.run.model.warmup_steps", 0)


def test_detach_turns_the_light_red_at_once(lab):
    lab.page.locator(".ll-more summary").first.click()
    lab.page.locator("[data-name=detach] input").click()
    wait_text(lab, ".ll-light.bad", "gradient")  # no regular measurement is due: it was judged because it was switched
    wait_text(lab, ".ll-notes.loud", "detach is on")
    assert lab.errors == []


@pytest.mark.slow
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_it_fits(lab, theme):
    "Pictures of both themes in two windows, to be looked at."
    lab.command("apputils:change-theme", {"theme": f"JupyterLab {theme.title()}"})
    lab.page.wait_for_function(f"() => document.querySelector('.ll').classList.contains('dark') === {str(theme == 'dark').lower()}", timeout=60_000)
    for width, height in ((1280, 900), (1680, 1050)):
        lab.page.set_viewport_size({"width": width, "height": height})
        lab.page.wait_for_timeout(600)
        lab.page.screenshot(path=lab.shot("csvae").with_name(f"csvae-{theme}-{width}.png"))
        assert lab.page.locator(".ll").first.evaluate("e => e.scrollWidth <= e.clientWidth + 1")
    assert lab.errors == []
