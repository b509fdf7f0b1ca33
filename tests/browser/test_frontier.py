"A whole range of weights on screen: the curve follows training, and a click on it moves masks and slider without any."

import pytest

pytestmark = pytest.mark.browser

CELLS = ["""import latentlab as ll
panel = ll.lab("nem", preset="whole range of weights", images=512, device="cpu", journal=None)
panel"""]
CURVE = "[data-picture=lines]"


def told(notebook, name): return notebook.page.locator(CURVE).first.get_attribute(f"data-{name}")


def here(notebook): return float(told(notebook, "now").split(",")[0])  # Area of the masks that are shown


def test_a_click_on_the_curve_goes_there_and_takes_the_slider_with_it(open_notebook):
    whole = open_notebook(CELLS, name="frontier", width=1280, height=900)
    whole.wait_data("Number(d.step) >= 60", 60)
    whole.page.locator("[data-command=pause]").click()
    whole.wait_data("d.state === 'paused'", 10)
    step, places = whole.data("step"), [tuple(map(float, spot.split(","))) for spot in told(whole, "at").split()]
    assert len(set(places)) > 6, "one place for every weight: the curve is that of another step"
    for (x, y), less in ((places[-1], True), (places[0], False)):  # the dearest weight keeps least, the cheapest most
        was = here(whole)
        whole.page.locator(f"{CURVE} canvas").first.click(position={"x": x, "y": y}, timeout=20_000)
        whole.page.wait_for_function(f"([was, less]) => {{ const now = Number(document.querySelector('{CURVE}').dataset.now.split(',')[0]); "
                                     "return less ? now < was : now > was; }", arg=[was, less], timeout=20_000)
    value = whole.page.locator("[data-source=weight]").first
    assert float(value.get_attribute("data-value")) < 0.04 and whole.data("step") == step and not whole.errors


PAINT = ["""import latentlab as ll
panel = ll.lab("nem", images=256, device="cpu", beside="painted", journal=None)
panel"""]
LOST = "() => document.querySelector('[data-numbers=beside_units] span').textContent"


def test_a_stroke_on_the_pad_moves_the_numbers_and_another_start_moves_the_pad(open_notebook):
    "An eraser over all of the first image: D~ rises, its neighbours stay in sight; the slider begins anew, on the pad too."
    pad = open_notebook(PAINT, name="pad", width=1280, height=900)
    pad.wait_data("Number(d.step) >= 30", 60)
    pad.page.locator("[data-command=pause]").click()
    pad.wait_data("d.state === 'paused'", 10)
    pad.page.locator("[data-source=pad] [data-tab=erase]").click()
    pad.page.wait_for_selector("[data-numbers=beside_units] span:not(:empty)", timeout=20_000)  # the numbers of the frame after the pause
    before, size = float(pad.page.evaluate(LOST)), pad.page.locator("[data-source=pad] [data-brush-size]")
    size.focus()
    size.press("End")
    box = pad.place("[data-source=pad] .ll-brush-canvas")
    pad.page.mouse.move(box["x"] + 2, box["y"] + 2)
    pad.page.mouse.down()
    for row in range(8):
        for x in (0.01, 0.99): pad.page.mouse.move(box["x"] + x * box["width"], box["y"] + (row + 0.5) / 8 * box["height"], steps=8)
    pad.page.mouse.up()
    pad.page.wait_for_function(f"(was) => Number(({LOST})()) > was + 0.2", arg=before, timeout=20_000)
    share = "document.querySelector('[data-source=pad]').dataset.painted"
    assert int(pad.page.evaluate(share)) < 40 and pad.page.locator("[data-row=nearest_left]").is_visible()
    slide = pad.page.locator("[data-slide=threshold]")
    slide.focus()
    slide.press("End")
    pad.page.wait_for_function(f"() => {share} === '784'", timeout=20_000)
    assert not pad.errors


TWO = ["""import latentlab as ll
panel = ll.lab("nem", preset="two encoders", images=256, device="cpu", journal=None)
panel"""]
REACHED = "() => [...document.querySelectorAll('[data-numbers$=_reached] span')].map((cell) => Number(cell.textContent))"
TINTED = """() => { const c = document.querySelector('[data-row=difference] canvas'), data = c.getContext('2d').getImageData(0, 0, c.width, c.height).data;
    let first = 0, second = 0; for (let i = 0; i < data.length; i += 4) { first += data[i] > data[i + 2] + 8; second += data[i + 2] > data[i] + 8; }
    return [first, second]; }"""


def test_dragging_the_distance_moves_the_masks_of_both_encoders_and_what_each_reached(open_notebook):
    two = open_notebook(TWO, name="two", width=1280, height=900)
    two.wait_data("Number(d.step) >= 30", 60)
    two.page.locator("[data-command=pause]").click()
    two.wait_data("d.state === 'paused'", 10)
    near = lambda far: f"() => {{ const all = ({REACHED})(); return all.length === 16 && all.filter((one) => Math.abs(one - {far}) <= .05).length >= 12; }}"
    two.page.wait_for_function(near(0.3), timeout=20_000)
    assert [row.get_attribute("data-row") for row in two.page.locator("[data-row]").all()] == ["image", "keep", "second", "difference"]
    step, kept, tinted = two.data("step"), two.page.locator("[data-row=keep] + * + .amounts").first.inner_text(), two.page.evaluate(TINTED)
    assert min(tinted) > 20, "the difference has one colour alone"
    box = two.place("[data-slide=far]")
    two.press("[data-slide=far]")
    two.page.mouse.move(box["x"] + 0.6 * box["width"], box["y"] + box["height"] / 2, steps=8)
    two.page.mouse.up()
    far = float(two.page.locator("[data-source=far]").first.get_attribute("data-value"))
    assert 0.5 < far < 0.75
    two.page.wait_for_function(near(far), timeout=20_000)
    assert two.page.locator("[data-row=keep] + * + .amounts").first.inner_text() != kept and two.page.evaluate(TINTED) != tinted
    assert two.data("step") == step
    two.page.locator("[data-command=run]").click()
    pill = two.page.locator(".ll-pill")
    two.page.wait_for_function("() => document.querySelector('.ll-pill').innerText.includes('steps/s')", timeout=60_000)
    slide = two.page.locator("[data-slide=far]")
    slide.focus()
    for key in ["ArrowLeft", "ArrowRight"] * 30:  # training stands still for a moment after each move, and says so
        slide.press(key)
        if "waits for the slider" in (said := pill.inner_text()): break
        two.page.wait_for_timeout(100)
    assert "waits for the slider" in said and "steps/s" not in said
    two.page.wait_for_function("() => document.querySelector('.ll-pill').innerText.includes('steps/s')", timeout=60_000)
    assert int(two.data("step")) > int(step) and not two.errors
