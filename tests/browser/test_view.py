"The view in a real JupyterLab, fed by a thread that plays the trainer."

import json
import time

import pytest

pytestmark = pytest.mark.browser

CELLS = ["from feeder import Feeder\nfeeder = Feeder().start()\nfeeder.view"]

CUT = """[...document.querySelectorAll('.ll *')].filter((e) => !e.closest('.uplot') && e.clientWidth && e.scrollWidth > e.clientWidth + 1
    && getComputedStyle(e).overflowX === 'hidden').map((e) => e.className + ': ' + e.textContent.slice(0, 60))"""  # Elements whose text does not fit

ENDLESS = """[...document.getAnimations()].filter((a) => a.effect.target.closest('.ll') && a.effect.getTiming().iterations === Infinity)
    .map((a) => a.animationName ?? String(a))"""  # A dot that pulsed had the whole page composed sixty times a second, half a core without a GPU


@pytest.fixture(scope="module")
def panel(open_notebook):
    notebook = open_notebook(CELLS)
    notebook.wait_data("Number(d.painted) > 3")
    return notebook


def picture(panel, row="keep"): return panel.page.evaluate(f"document.querySelector('[data-row={row}] canvas').toDataURL()")


def test_frames_are_painted(panel):
    "Frame after frame is painted, and nothing is said back."
    sent = panel.page.evaluate("window.latentlab.sent")
    before, start = int(panel.data("painted")), time.monotonic()
    panel.wait_data(f"Number(d.painted) >= {before + 15}")  # how many a second is the benchmark's affair
    print(f"painted {15 / (time.monotonic() - start):.1f} frames/s of 10")
    assert panel.page.evaluate("window.latentlab.sent") == sent and panel.page.evaluate(ENDLESS) == [], "nothing moves by itself"
    assert panel.data("state") == "running" and panel.data("stale") == "false"


def test_a_slider_reaches_the_picture(panel):
    "Keys move the KL scale; a frame that used the new value is painted."
    slider = panel.page.locator("[data-name=kl_scale] input")
    old = json.loads(panel.data("values"))["kl_scale"]
    for _ in range(5):
        slider.press("ArrowLeft")
        panel.page.wait_for_timeout(300)
    panel.wait_data(f"JSON.parse(d.values).kl_scale < {old} * 0.6", 5)
    latencies = panel.page.evaluate("window.latentlab.latencies.filter((l) => l.name === 'kl_scale').map((l) => l.ms)")
    print("slider to painted, ms:", [round(ms) for ms in sorted(latencies)])
    assert len(latencies) >= 4
    assert "KL scale" in panel.page.locator(".ll-foot.differs").inner_text()


def test_a_wish_that_is_refused_goes_back(panel):
    "A seed below its bound: the sentence stands beside the control, the value in force returns."
    seed = panel.page.locator("[data-name=seed] input")
    seed.fill("-3")
    seed.press("Enter")
    error = panel.page.locator("[data-name=seed] .ll-error")
    error.wait_for(state="visible", timeout=60_000)
    assert "at least 0" in error.inner_text()
    assert seed.input_value() == "0"
    penalty = panel.page.locator("[data-name=penalty] select")
    penalty.select_option(label="area")
    panel.wait_data("JSON.parse(d.values).penalty === 'area'", 5)
    assert panel.page.locator("[data-name=prior] input").is_disabled()
    penalty.select_option(label="kl")
    panel.wait_data("JSON.parse(d.values).penalty === 'kl'", 5)
    assert panel.page.locator("[data-name=prior] input").is_enabled()


def test_pause_and_threshold_without_a_message(panel):
    "Paused, nothing moves; the threshold changes the picture with no message to the kernel."
    panel.page.locator("[data-command=pause]").click()
    panel.wait_data("d.state === 'paused'", 5)
    panel.page.wait_for_timeout(400)
    assert panel.page.evaluate(ENDLESS) == []
    soft, seen, sent, step = picture(panel), picture(panel, "seen"), panel.page.evaluate("window.latentlab.sent"), panel.data("step")
    panel.page.locator("[data-mask=area]").click()
    panel.page.wait_for_timeout(150)
    assert picture(panel) != soft and picture(panel, "seen") != seen
    panel.page.locator("[data-picture=top]").press("ArrowRight")
    panel.page.wait_for_timeout(150)
    assert set(panel.page.locator(".ll-columns.amounts span").all_inner_texts()) == {"26 %"}
    panel.page.locator("[data-mask=soft]").click()
    panel.page.wait_for_timeout(150)
    assert picture(panel) == soft
    assert panel.page.evaluate("window.latentlab.sent") == sent and panel.data("step") == step


def test_reload_brings_the_picture_back(panel):
    "The traits hold the last frame: after a reload it is there, still paused."
    before, step = picture(panel, "rank"), panel.data("step")
    panel.command("docmanager:save")
    panel.page.wait_for_timeout(700)
    panel.page.reload()
    start = time.monotonic()
    panel.wait_data(f"d.step === '{step}'", 30)
    print(f"picture back {time.monotonic() - start:.1f} s after the page load")
    assert picture(panel, "rank") == before
    assert panel.data("state") == "paused"
    panel.page.locator("[data-command=run]").click()
    panel.wait_data(f"Number(d.step) > {step}", 10)


def test_it_says_when_no_frames_come(panel):
    "Frames stop while the state says running: after three seconds the view says so, and stops saying so when they come again."
    panel.execute("feeder.fps, feeder.push = 10, lambda: None")
    panel.wait_data("d.stale === 'true'", 8)
    assert "No new frame" in panel.page.locator(".ll-banner").inner_text()
    panel.execute("del feeder.push")
    panel.wait_data("d.stale === 'false'", 8)
    assert panel.page.locator(".ll-banner").is_hidden()


@pytest.mark.slow
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_it_fits(panel, theme):
    "At each width nothing is cut off; a picture of each is kept."
    panel.command("apputils:change-theme", {"theme": f"JupyterLab {theme.title()}"})
    panel.page.wait_for_function(f"() => document.querySelector('.ll').classList.contains('dark') === {str(theme == 'dark').lower()}", timeout=60_000)
    for width in (1200, 1000, 800):
        panel.shot(f"view-{theme}-{width}", width)
        cut = panel.page.evaluate(CUT)
        assert not cut, f"cut off at {width} px: {cut}"
    assert panel.errors == []


@pytest.mark.parametrize(("mark", "dark"), [("vscode-dark", True), ("vscode-light", False), ("dark dark-theme", True), ("light light-theme", False)])
def test_other_front_ends_say_their_theme_by_a_word(panel, mark, dark):
    "The body's classes as VS Code and marimo write them, where JupyterLab's mark is not there."
    panel.page.evaluate("mark => { const b = document.body; b.dataset.kept ??= b.dataset.jpThemeLight; delete b.dataset.jpThemeLight; b.classList.add(...mark.split(' ')); }", mark)
    try: panel.page.wait_for_function(f"() => document.querySelector('.ll').classList.contains('dark') === {str(dark).lower()}", timeout=60_000)
    finally:
        panel.page.evaluate("mark => { const b = document.body; b.classList.remove(...mark.split(' ')); b.dataset.jpThemeLight = b.dataset.kept; }", mark)
