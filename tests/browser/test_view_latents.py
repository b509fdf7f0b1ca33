"Fields, scatters, scores and bars in a real JupyterLab: one notebook, one kernel, made-up models."

import json

import numpy as np
import pytest
from browser.test_view import CUT

pytestmark = pytest.mark.browser

CELLS = ["from feeder import LatentFeeder\nfeeders = dict(plane=LatentFeeder('moons', 2).start(), image=LatentFeeder('fashion-mnist', 3))\nfeeder = feeders['plane']\nfeeder.view"]


@pytest.fixture(scope="module")
def panel(open_notebook):
    notebook = open_notebook(CELLS, height=1300)
    notebook.wait_data("Number(d.painted) > 3")
    return notebook


def of(panel, kind, name): return panel.page.locator(f"[data-picture={kind}]").get_attribute(f"data-{name}")


def pixels(panel, selector):
    "What a canvas shows: number of different colours, and share of pixels that are not empty."
    return panel.page.evaluate("""(s) => { const c = document.querySelector(s), d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data, seen = new Set(); let full = 0;
        for (let i = 0; i < d.length; i += 4) { if (d[i + 3]) full++; seen.add((d[i] >> 3) * 1024 + (d[i + 1] >> 3) * 32 + (d[i + 2] >> 3)); }
        return { colours: seen.size, full: full / (d.length / 4), width: c.width, height: c.height, ratio: c.width / c.clientWidth }; }""", selector)


def kernel(panel, expression): return json.loads(panel.execute(f"import json, numpy as np; print(json.dumps({expression}))"))


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
    views = "feeder.face.last.views"
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
    panel.page.wait_for_function(f"() => document.querySelector('.ll').classList.contains('dark') === {str(theme == 'dark').lower()}", timeout=10_000)
    for width in (1600, 1200, 700) if theme == "light" else (1200,):
        panel.shot(f"latents-{theme}-{width}", width)
        cut = [text for text in panel.page.evaluate(CUT) if "ll-note" not in text]
        assert not cut, f"cut off at {width} px: {cut}"
        assert pixels(panel, "canvas.field")["ratio"] == pytest.approx(1, abs=0.01)
        assert panel.page.evaluate("(() => { const box = document.querySelector('.ll-box'); return box.scrollWidth <= box.clientWidth; })()")


def test_images_and_a_threshold_that_stays_in_the_browser(panel):
    "The same cell shows the other model: rows of images, histograms, ROC; the slider says TPR and FPR as numpy does."
    panel.execute("feeder.state = 'stopped'\nfeeder = feeders['image']\n[feeder.push() for _ in range(40)]\nfeeder.state = 'paused'\nfeeder.face.push(feeder.snapshot())")
    panel.page.evaluate("window.latentlab.sent = 0")
    panel.page.evaluate("window.jupyterapp.shell.currentWidget.content.activeCell.model.sharedModel.setSource('feeder.view')")
    panel.command("notebook:run-cell")
    panel.page.wait_for_selector("[data-row=recon2] canvas", timeout=20_000)
    panel.page.wait_for_timeout(500)
    assert panel.page.locator(".ll-strip").count() == 5 and pixels(panel, "[data-row=recon1] canvas")["width"] == 8 * 28 + 7 * 2
    line = "document.querySelector('[data-row=recon0] canvas').getContext('2d').getImageData(0, 14, 28, 1).data"
    row = panel.page.evaluate(f"Array.from({line}).filter((_, i) => i % 4 === 0)")
    assert np.abs(np.array(row) - 255 * np.array(kernel(panel, "feeder.face.last.views['recon0'][0, 14].tolist()"))).max() < 1
    panel.page.locator("[data-tab='LLR>1']").click()
    inside, outside = (np.array(kernel(panel, f"feeder.face.last.views['{side}_llr1'].tolist()")) for side in ("in", "out"))
    assert float(of(panel, "hist", "auroc")) == pytest.approx((outside[:, None] > inside).mean() + 0.5 * (outside[:, None] == inside).mean(), abs=1e-3)
    assert float(of(panel, "hist", "tpr")) == pytest.approx(0.8, abs=0.01)
    was = float(of(panel, "hist", "threshold"))
    panel.page.locator("input[data-threshold]").fill("0.7")
    moved = float(of(panel, "hist", "threshold"))
    assert moved != was
    assert float(of(panel, "hist", "tpr")) == pytest.approx((outside >= moved).mean(), abs=0.006)
    assert float(of(panel, "hist", "fpr")) == pytest.approx((inside >= moved).mean(), abs=0.006)
    assert panel.page.evaluate("window.latentlab.sent") == 0
    panel.shot("latents-image-1200", 1200)
    cut = [text for text in panel.page.evaluate(CUT) if "ll-note" not in text]
    assert not cut and panel.errors == []
