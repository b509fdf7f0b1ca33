"Fields, scatters, scores and bars in a real JupyterLab: one notebook, one kernel, made-up models."

import json

import numpy as np
import pytest
from browser.test_view import CUT

pytestmark = pytest.mark.browser

CELLS = ["from latent_feeder import LatentFeeder\nfeeders = dict(plane=LatentFeeder('moons', 2).start(), "
         "image=LatentFeeder('fashion-mnist', 3))\nfeeder = feeders['plane']\nfeeder.view"]


@pytest.fixture(scope="module")
def panel(open_notebook):
    notebook = open_notebook(CELLS, height=1300)
    notebook.wait_data("Number(d.painted) > 3")
    return notebook


def of(panel, kind, name): return panel.page.locator(f"[data-picture={kind}]").get_attribute(f"data-{name}")


def pixels(panel, selector):
    "What a canvas shows: number of different colours, and share of pixels that are not empty."
    return panel.page.evaluate(
        """(s) => { const c = document.querySelector(s), d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data, seen = new Set(); let full = 0;
        for (let i = 0; i < d.length; i += 4) { if (d[i + 3]) full++; seen.add((d[i] >> 3) * 1024 + (d[i + 1] >> 3) * 32 + (d[i + 2] >> 3)); }
        return { colours: seen.size, full: full / (d.length / 4), width: c.width, height: c.height, ratio: c.width / c.clientWidth }; }""",
        selector)


def kernel(panel, expression): return json.loads(panel.execute(f"import json, numpy as np; print(json.dumps({expression}))"))


def show(panel, expression, selector):
    "The cell shows another view."
    panel.page.evaluate("(source) => "
                        "window.jupyterapp.shell.currentWidget.content.activeCell.model.sharedModel.setSource(source)", expression)
    panel.command("notebook:run-cell")
    panel.page.wait_for_selector(selector, timeout=60_000)
    panel.page.wait_for_timeout(500)


def still(panel):
    "Paused: nothing moves."
    panel.page.locator("[data-command=pause]").click()
    panel.wait_data("d.state === 'paused'", 5)
    panel.page.wait_for_timeout(400)


def test_the_field_moves_and_nothing_is_said_back(panel):
    sent, before = panel.page.evaluate("window.latentlab.sent"), int(panel.data("painted"))
    panel.wait_data(f"Number(d.painted) >= {before + 8}", 5)
    assert panel.page.evaluate("window.latentlab.sent") == sent
    assert panel.errors == []


def test_field_scatter_and_bars_show_the_numbers_of_the_kernel(panel):
    still(panel)
    views = "feeder.last.views"
    low, high = map(float, of(panel, "field", "range").split(","))
    least, most = kernel(panel, f"[float({views}['field'].min()), float({views}['field'].max())]")
    assert abs(high - most) < 0.01 and abs(low - max(least, most - 14)) < 0.02  # half precision
    assert of(panel, "field", "points") == "512" and int(of(panel, "field", "contours")) > 100 and of(panel, "field", "levels") == "2"
    assert pixels(panel, "canvas.field")["colours"] > 150
    assert [panel.page.locator(f"[data-panel=z{k}]").get_attribute("data-points") for k in (1, 2)] == ["512", "512"]
    assert int(panel.page.locator("[data-panel=z2]").get_attribute("data-pockets")) > 10
    assert 4 < pixels(panel, "[data-panel=z1] canvas")["colours"] and pixels(panel, "[data-panel=z1] canvas")["full"] > 0.02
    shown = [float(panel.page.locator(f"[data-layer='{k}']").get_attribute("data-value")) for k in (1, 2)]
    assert np.allclose(shown, kernel(panel, f"{views}['kl'].tolist()"), atol=1e-3)
    assert "of 2 units active" in panel.page.locator(".ll-bars").inner_text()
    assert "± 0.04s.e." in panel.page.locator(".ll-cards").inner_text()  # the gap before the unit is a margin


def test_tabs_and_buttons_change_the_picture_without_a_message(panel):
    sent, before = panel.page.evaluate("window.latentlab.sent"), panel.page.evaluate("document.querySelector('canvas.field').toDataURL()")
    panel.page.locator("[data-tab=difference]").click()
    assert of(panel, "field", "tab") == "difference" and of(panel, "field", "levels") == "1"
    low, high = map(float, of(panel, "field", "range").split(","))
    assert low == -high and 0 < high <= 4
    panel.page.locator("[data-points=samples]").click()
    assert of(panel, "field", "points") == str(512 + 300)
    panel.page.locator("[data-points=samples]").click()
    panel.page.locator("[data-tab=field]").click()
    assert panel.page.evaluate("document.querySelector('canvas.field').toDataURL()") == before
    assert panel.page.evaluate("window.latentlab.sent") == sent


def test_a_key_moves_a_slider_by_a_value_and_a_number_can_be_typed(panel):
    control = panel.page.locator("[data-name=samples]")
    slider, value, typed, error = (control.locator(one) for one in ("input[type=range]", "button.ll-value", "input.ll-typed", ".ll-error"))
    assert " ".join(value.inner_text().split()) == "1 sample"
    for wanted in (2, 3, 4):
        slider.press("ArrowRight")
        panel.wait_data(f"JSON.parse(d.values).samples === {wanted}", 5)
    slider.press("Shift+Tab")
    assert (value.evaluate("(e) => e === document.activeElement")
            and value.get_attribute("aria-label") == "samples S, 4 samples: type a value")
    panel.page.keyboard.press("Enter")
    assert typed.input_value() == "4" and "samples S" in typed.get_attribute("aria-label")
    panel.page.keyboard.type("100")
    panel.page.keyboard.press("Enter")
    panel.wait_data("JSON.parse(d.values).samples === 100", 5)
    assert typed.count() == 0 and value.evaluate("(e) => e === document.activeElement") and "100" in value.inner_text()
    sent = panel.page.evaluate("window.latentlab.sent")
    for leave in ("Escape", "Tab"):
        value.click()
        typed.fill("7")
        typed.press(leave)
        assert typed.count() == 0 and "100" in value.inner_text() and panel.page.evaluate("window.latentlab.sent") == sent
    for text, why in (("5000", "at most 1024"), ("many", "must be a number")):
        value.click()
        typed.fill(text)
        typed.press("Enter")
        panel.page.wait_for_function("(why) => document.querySelector('[data-name=samples] .ll-error').textContent.includes(why)", arg=why,
                                     timeout=60_000)
        assert error.is_visible() and "100" in value.inner_text()
    panel.page.locator("[data-name=free_nats] button.ll-value").click()
    panel.page.locator("[data-name=free_nats] .ll-typed").fill("0.0137")
    panel.page.keyboard.press("Enter")
    panel.wait_data("JSON.parse(d.values).free_nats === 0.0137", 5)


def test_a_text_with_examples_takes_others_and_keeps_them(panel):
    "A text that was in force stays among the examples, even when the schema forgets it; a closed choice takes none."
    select = panel.page.locator("[data-name=latents] select")
    for text in ("64, 8, 4", "8"):
        if text == "8": select.select_option(label=text)
        else:
            select.select_option(label="other …")
            panel.page.locator("[data-name=latents] .ll-typed").fill(text)
            panel.page.keyboard.press("Enter")
        panel.wait_data(f"JSON.parse(d.values).latents === {text!r}", 5)
    panel.execute("feeder.view.tell({'schema': [c | {'help': 'Sizes.'} if c['name'] == 'latents' else c for c in feeder.view.schema]})")
    panel.page.wait_for_timeout(500)
    panel.page.locator("[data-name=latents] label").hover()
    panel.page.wait_for_function("() => document.querySelector('.ll-help:not([hidden])')?.innerText.includes('Sizes.')", timeout=60_000)
    assert select.locator("option").all_inner_texts() == ["2", "8", "64", "64, 8, 4", "other …"] and select.input_value() == "=8"
    select.select_option(label="64, 8, 4")
    panel.wait_data("JSON.parse(d.values).latents === '64, 8, 4'", 5)
    assert panel.page.locator("[data-name=data] option").all_inner_texts() == ["moons", "fashion-mnist"]


def test_what_lies_outside_leaves_the_frame(panel):
    "One value far out does not flatten a curve that has settled; where colours end before the numbers do, their bar says so."
    panel.execute("""import time
row = feeder.history[-1][1]
feeder.history = [(k, row | {'elbo': -1e5 if k == 150 else -3 + 0.001 * k}) for k in range(300)]
feeder.step = 36
time.sleep(0.6)  # curves travel twice a second
feeder.push()""")
    panel.page.wait_for_function("() => document.querySelector('.ll-plots .ll-plot').dataset.range", timeout=60_000)
    panel.wait_data("d.step === '40'", 5)
    panel.page.wait_for_timeout(400)
    low, high = map(float, panel.page.locator(".ll-plots .ll-plot").first.get_attribute("data-range").split(","))
    values = np.array(kernel(panel, "[row['elbo'] for _, row in feeder.history]"))
    assert -4 < low < high < 0 and low <= np.median(values[len(values) // 10:]) <= high and values.min() == -1e5
    panel.page.locator("[data-tab=difference]").click()
    least, most = kernel(panel, "[float(f(feeder.display.arrays(feeder.last)['difference'])) for f in (np.nanmin, np.nanmax)]")
    assert max(-least, most) > 4.5 and of(panel, "field", "clipped") == f"{int(least < -4)},{int(most > 4)}"
    panel.page.locator("[data-tab=field]").click()


def test_a_reload_brings_the_picture_back(panel):
    drawn = "document.querySelector('canvas.field').toDataURL()"
    before, step = panel.page.evaluate(drawn), panel.data("step")
    panel.command("docmanager:save")
    panel.page.wait_for_timeout(500)
    panel.page.reload()
    panel.wait_data(f"d.step === '{step}'", 30)
    panel.page.wait_for_timeout(500)
    assert panel.page.evaluate(drawn) == before
    assert panel.page.locator("[data-panel=z2]").get_attribute("data-points") == "512" and panel.data("state") == "paused"


@pytest.mark.slow
@pytest.mark.parametrize("theme", ["dark", "light"])
def test_it_fits(panel, theme):
    "At each width nothing is cut off, and canvases keep the pixels of the screen."
    panel.command("apputils:change-theme", {"theme": f"JupyterLab {theme.title()}"})
    panel.page.wait_for_function(f"() => document.querySelector('.ll').classList.contains('dark') === {str(theme == 'dark').lower()}",
                                 timeout=60_000)
    for width in (1600, 1200, 1000, 700) if theme == "light" else (1200,):
        panel.shot(f"latents-{theme}-{width}", width)
        cut = panel.page.evaluate(CUT)
        assert not cut, f"cut off at {width} px: {cut}"
        assert pixels(panel, "canvas.field")["ratio"] == pytest.approx(1, abs=0.01)
        assert panel.page.evaluate("(() => { const box = document.querySelector('.ll-box'); return box.scrollWidth <= "
                                   "box.clientWidth; })()")


def test_images_and_a_threshold_that_stays_in_the_browser(panel):
    "The same cell shows the other model: rows of images, histograms, ROC; the slider says TPR and FPR as numpy does."
    panel.execute("feeder.state = 'stopped'\nfeeder = feeders['image']\n[feeder.push() for _ in range(40)]\nfeeder.state = "
                  "'paused'\nfeeder.show()")
    panel.page.evaluate("window.latentlab.sent = 0")
    show(panel, "feeder.view", "[data-row=recon2] canvas")
    assert panel.page.locator(".ll-strip").count() == 5 and pixels(panel, "[data-row=recon1] canvas")["width"] == 8 * 28 + 7 * 2
    line = "document.querySelector('[data-row=recon0] canvas').getContext('2d').getImageData(0, 14, 28, 1).data"
    row = panel.page.evaluate(f"Array.from({line}).filter((_, i) => i % 4 === 0)")
    assert np.abs(np.array(row) - 255 * np.array(kernel(panel, "feeder.last.views['recon0'][0, 14].tolist()"))).max() < 1
    panel.page.locator("button[data-tab='LLR>1']").click()
    inside, outside = (np.array(kernel(panel, f"feeder.last.views['{side}_llr1'].tolist()")) for side in ("in", "out"))
    assert float(of(panel, "hist", "auroc")) == pytest.approx((outside[:, None] > inside).mean() + 0.5
                                                              * (outside[:, None] == inside).mean(), abs=1e-3)
    assert float(of(panel, "hist", "tpr")) == pytest.approx(0.8, abs=0.01)
    was = float(of(panel, "hist", "threshold"))
    panel.page.locator("input[data-threshold]").fill("0.7")
    moved = float(of(panel, "hist", "threshold"))
    assert moved != was
    assert float(of(panel, "hist", "tpr")) == pytest.approx((outside >= moved).mean(), abs=0.006)
    assert float(of(panel, "hist", "fpr")) == pytest.approx((inside >= moved).mean(), abs=0.006)
    assert panel.page.evaluate("window.latentlab.sent") == 0
    for width, axis in ((1200, "LLR>1, nats → more out of distribution"), (1000, "LLR>1, nats → more out")):
        panel.shot(f"latents-image-{width}", width)
        cut = panel.page.evaluate(CUT)
        assert not cut and panel.errors == [], f"cut off at {width} px: {cut}"
        assert of(panel, "hist", "axis") == axis
        assert min(panel.page.evaluate(WIDTHS)) >= 165


WIDTHS = "[...document.querySelectorAll('.ll-scatter canvas')].map((e) => e.clientWidth)"


def test_a_closed_panel_puts_out_its_controls(panel):
    "Nobody would answer them; a panel that is merely stopped keeps them."
    run = {"id": "20261121-120544-hvae-3fa9c2", "state": "running", "kept": False, "notes": []}
    panel.execute(f"feeder.view.tell({{'journal': {{'folder': 'runs', 'run': {run}, 'message': '', 'error': '', 'sweep': {{}}}}}})")
    parts = ("[...document.querySelectorAll(':is(.ll-side, .ll-header, .ll-journal-line) :is(input, select, button)')].filter((e) => "
             "!e.matches(':disabled, .ll-verdict')).length")  # the checks can be read afterwards, too
    enabled = {}
    for closed in (True, False):
        panel.execute(f"feeder.view.tell({{'status': {{'state': 'stopped', 'closed': {closed}, 'message': ''}}}})")
        panel.wait_data(f"d.state === 'stopped' && d.closed === '{str(closed).lower()}'", 5)
        enabled[closed] = panel.page.evaluate(parts)
        assert panel.page.locator(".ll-pill b").inner_text() == ("closed" if closed else "stopped")
        beats = "(e) => { e.closest('.ll').dataset.beat = '1'; return getComputedStyle(e).opacity; }"
        assert panel.page.locator(".ll-run > i").evaluate(beats) == ("1" if closed else "0.35")
    assert enabled[True] == 0 and enabled[False] > 12


def test_three_scatters_stand_two_and_one(panel):
    "Beside a field there is room for two; the third stands below, and none is tiny."
    panel.execute("feeders['three'] = LatentFeeder('moons', 3)")
    show(panel, "feeders['three'].view", "[data-panel=z3] canvas")
    for width in (1220, 1000):
        panel.shot(f"latents-three-{width}", width)
        tops = panel.page.evaluate("[...document.querySelectorAll('.ll-scatter canvas')].map((e) => "
                                   "Math.round(e.getBoundingClientRect().top))")
        assert min(panel.page.evaluate(WIDTHS)) >= 165 and tops[0] == tops[1] < tops[2]
