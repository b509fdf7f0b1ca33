"A whole range of weights on screen: the slider and the curve move the masks without training."

import json

import pytest

CELL = """import latentlab as ll
panel = ll.lab("nem", preset="whole range of weights", images=512, device="cpu"{more})
panel"""


@pytest.fixture(scope="module")
def whole(open_notebook):
    "The lab with the preset, 150 steps on, paused."
    notebook = open_notebook([CELL.format(more=""), "t = panel.trainer; t.pause(); t.fit(150, progress=False); panel.tick()"],
                             name="frontier")
    notebook.wait_data("Number(d.step) >= 150 && d.state !== 'running'", 120)
    return notebook


def here(whole):
    "Where the marker stands: area, soft and hard distance."
    return [float(v) for v in whole.page.locator("[data-picture=lines]").get_attribute("data-now").split(",")]


def test_the_slider_goes_through_the_range_while_nothing_trains(whole):
    slider, before, step = whole.page.locator("[data-slide=weight]"), here(whole), whole.data("step")
    for _ in range(4): slider.press("PageUp")
    whole.page.wait_for_function(f"Number(document.querySelector('[data-picture=lines]').dataset.now.split(',')[0]) < {before[0]} - 1e-4")
    after = here(whole)
    for _ in range(8): slider.press("PageDown")
    whole.page.wait_for_function(f"Number(document.querySelector('[data-picture=lines]').dataset.now.split(',')[0]) > {before[0]} + 1e-4")
    assert after[0] < before[0] and whole.data("step") == step and not whole.errors


def test_a_click_on_the_curve_goes_there_and_takes_the_slider_with_it(whole):
    canvas = whole.page.locator("[data-picture=lines] canvas")
    x, y = map(float, whole.page.locator("[data-picture=lines]").get_attribute("data-at").split()[2].split(","))
    canvas.click(position={"x": x, "y": y})
    wanted = json.loads(whole.execute("import json; print(json.dumps(panel.view.plan['pictures'][1]['values']))"))
    whole.page.wait_for_function("document.querySelector('[data-source=weight]').dataset.value < 0.03")
    chosen = float(whole.page.locator("[data-source=weight]").get_attribute("data-value"))
    assert min(abs(chosen - one) for one in wanted) < 1e-6
    assert float(whole.execute("print(panel.trainer.setup.diagnostics.weight)")) == pytest.approx(chosen)


def test_the_prices_of_one_weight_have_no_control_and_the_range_has_one(whole):
    names = {name.get_attribute("data-name") for name in whole.page.locator(".ll-control").all()}
    assert "penalty_weight" in names and not {"kl_scale", "area_scale"} & names
