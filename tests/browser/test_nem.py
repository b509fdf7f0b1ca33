"The lab notebook as a new user meets it: run all cells, then every control."

import json
from pathlib import Path

import pytest

LAB = Path(__file__).resolve().parents[2] / "nbs" / "labs" / "nem.ipynb"


@pytest.fixture(scope="module")
def nem(open_notebook):
    "The lab notebook, run from top to bottom."
    cells = ["".join(c["source"]) for c in json.loads(LAB.read_text())["cells"] if c["cell_type"] == "code"]
    notebook = open_notebook(cells, name="nem")
    notebook.wait_data("Number(d.step) > 20 && Number(d.painted) > 3", 60)
    return notebook


def value(nem, name):
    "A value of the frame last painted."
    return json.loads(nem.data("values"))[name]


def wish(nem, kind, name, value=None):
    "What the browser sends, sent from the kernel: for controls that are tried by hand in other tests."
    return nem.execute(f"panel.view._receive(panel.view, dict(kind={kind!r}, name={name!r}, value={value!r}), None)")


def test_masks_form_while_the_notebook_stays_free(nem):
    "After some seconds of training the panel's numbers are there, and a cell beside it answers at once."
    nem.wait_data("Number(d.step) > 120", 60)
    assert "42" in nem.execute("print(6 * 7)")
    assert nem.data("state") == "running"
    assert float(nem.page.locator(".ll-card-values b").first.inner_text()) > 0
    assert not nem.errors
    nem.shot("nem-first", 1100)


def test_a_slider_reaches_the_training_by_keyboard(nem):
    "Arrow keys on the KL scale move it; a painted frame and the trainer have the new value."
    before = value(nem, "kl_scale")
    slider = nem.page.locator("[data-name=kl_scale] input")
    for _ in range(6): slider.press("ArrowRight")
    nem.wait_data(f"JSON.parse(d.values).kl_scale > {before}", 20)
    nem.page.wait_for_timeout(300)  # the last key's message
    asked = float(nem.execute("print(panel.trainer.run.model.kl_scale)"))
    nem.wait_data(f"Math.abs(JSON.parse(d.values).kl_scale - {asked}) < 1e-9", 20)
    assert asked > before


def test_pause_step_run(nem):
    "Pause stands still, Step moves by one, Run goes on."
    nem.page.locator("[data-command=pause]").click()
    nem.wait_data("d.state === 'paused'", 20)
    still = int(nem.execute("print(panel.trainer.step_count)"))
    nem.page.locator("[data-command=step]").click()
    nem.wait_data(f"Number(d.step) === {still + 1}", 20)
    nem.page.locator("[data-command=run]").click()
    nem.wait_data(f"d.state === 'running' && Number(d.step) > {still + 3}", 20)


def test_a_folder_of_ones_own_is_in_the_menu(nem):
    "The menu of images names it, the field begins with folder:, and a folder that is not there is said beside the control."
    data = nem.page.locator("[data-name=data]")
    before = data.locator("select").input_value()
    data.locator("select").select_option(label="own folder …")
    typed = data.locator(".ll-typed")
    assert typed.input_value() == "folder:"
    nem.page.keyboard.type("not/there")
    assert typed.input_value() == "folder:not/there"
    nem.page.keyboard.press("Enter")
    nem.page.wait_for_function("() => document.querySelector('[data-name=data] .ll-error')?.textContent.includes('not/there')", timeout=60_000)
    data.locator("select").select_option(before)


MENUS = """() => [...document.querySelectorAll('.ll-control select')].filter((e) => e.offsetParent).map((e) => {
    const twin = e.cloneNode(true), row = e.closest('.ll-control').getBoundingClientRect(), box = e.getBoundingClientRect();
    twin.style.cssText = 'position: absolute; visibility: hidden; flex: none; width: max-content; min-width: 0; max-width: none';
    document.querySelector('.ll-side').append(twin);
    const wanted = twin.getBoundingClientRect().width, words = e.closest('.ll-control').querySelector('label'); twin.remove();
    return [e.closest('.ll-control').dataset.name, wanted, box.width, box.left >= row.left - 1 && box.right <= row.right + 1, words.scrollWidth <= words.clientWidth]; })"""
LIST = """() => { const list = document.querySelector('.ll-runs'), box = list.getBoundingClientRect();
    return [list.scrollWidth - list.clientWidth, ...[...list.querySelectorAll('th, td, button, .ll-chip')].filter((e) => e.offsetParent)
        .filter((e) => e.getBoundingClientRect().right > box.right + 1).map((e) => e.className + ': ' + e.textContent.slice(0, 40))]; }"""


def test_no_menu_is_cut_in_a_small_window(nem):
    "In windows from 848 pixels on every menu shows its longest choice and its whole label, and the list of runs needs no scrolling to the side."
    whole = nem.page.viewport_size
    if nem.page.locator(".ll-drawer").is_hidden(): nem.page.locator("[data-journal=runs]").click()
    nem.page.locator(".ll-runs tr[data-run]").first.wait_for(timeout=60_000)
    for width in (848, 900, 1030, 1280):
        nem.page.set_viewport_size({"width": width, "height": 900})
        nem.page.wait_for_timeout(700)
        menus = nem.page.evaluate(MENUS)
        assert len(menus) > 4
        assert [(width, name, wanted, got) for name, wanted, got, *fine in menus if got + 1 < wanted or not all(fine)] == []
        assert nem.page.evaluate(LIST) == [0], width
        nem.shot(f"nem-menus-{width}")
    nem.page.set_viewport_size(whole)
    nem.page.locator("[data-journal=runs]").click()


@pytest.mark.slow
def test_every_control_by_hand(nem):
    "Each control is moved in the page, as a hand would; a painted frame then has the new value, and nothing went wrong."
    nem.page.locator(".ll-more summary").first.click()
    for name in json.loads(nem.execute("import json; print(json.dumps([c['name'] for c in panel.view.schema if c['name'] not in ('data', 'encoder', 'against')]))")):
        control, before = nem.page.locator(f"[data-name={name}]"), value(nem, name)
        select, number = control.locator("select"), control.locator("input[type=number]")
        penalty = nem.page.locator("[data-name=penalty] select")
        if name == "area_scale": penalty.select_option(label="area")
        if select.count(): select.select_option(index=1 if select.evaluate("s => s.selectedIndex") == 0 else 0)
        elif number.count(): number.fill("3"), number.press("Enter")
        else: control.locator("input").press("ArrowRight")
        nem.wait_data(f"JSON.parse(d.values).{name} !== {json.dumps(before)}", 20)
        penalty.select_option(label="kl")
    for mask in ("area", "top", "soft"): nem.page.locator(f"[data-mask={mask}]").click()
    nem.page.locator("[data-picture=top]").press("ArrowRight")
    assert nem.execute("print(panel.trainer.error, panel.pump.error)").split() == ["None", "None"]
    assert not nem.errors
    nem.shot("nem-every-control", 1100)


def test_rebuild_by_a_control_and_a_refusal(nem):
    "More layers start a new model; grey images with the planted encoder are refused and the old model stays."
    wish(nem, "set", "layers", 2)
    nem.wait_data("JSON.parse(d.values).layers === 2", 30)
    wish(nem, "set", "data", "fashion-mnist")
    nem.page.wait_for_function("() => document.querySelector('.ll').innerText.includes('not rebuilt')", timeout=60_000)
    assert nem.execute("print(panel.trainer.run.data, panel.trainer.run.encoder)").split() == ["scenes", "planted:red"]
    nem.shot("nem-refused")
    nem.wait_data("d.state === 'running'", 10)


@pytest.mark.slow
def test_other_images_rebuild_too(nem):
    "Another encoder, then clothes: grey, another size, another question."
    wish(nem, "set", "encoder", "simclr")
    nem.wait_data("JSON.parse(d.values).encoder === 'simclr' && Number(d.step) > 5", 60)
    wish(nem, "set", "data", "fashion-mnist")
    nem.wait_data("JSON.parse(d.values).data === 'fashion-mnist' && Number(d.step) > 5", 60)
    assert "simclr" in nem.page.locator(".ll").inner_text().lower()
    nem.shot("nem-clothes", 1100)


def test_the_cell_run_twice_leaves_one_panel(nem):
    "The second run takes the first one's place: one trainer thread, and the new panel is live."
    nem.execute("first = panel.trainer")
    nem.command("notebook:run-all-cells")
    nem.wait_data("JSON.parse(d.values).data === 'scenes' && Number(d.step) > 10", 60)
    assert nem.execute("print(first.busy, first is panel.trainer)").split() == ["False", "False"]
    assert nem.execute("import threading; print(sum(t.name == 'latentlab-trainer' for t in threading.enumerate()))").strip() == "1"
    assert not nem.errors


def test_stop_keeps_a_picture_in_the_saved_notebook(nem):
    "Stop ends the training thread and puts a PNG of the last frame where the panel stands; Run begins again."
    nem.wait_data("Number(d.step) > 20", 20)
    nem.page.locator("[data-command=stop]").click()
    nem.wait_data("d.state === 'stopped'", 20)
    assert nem.execute("print(panel.trainer.busy)").strip() == "False"
    nem.page.wait_for_timeout(500)
    nem.command("docmanager:save")
    nem.page.wait_for_timeout(1000)
    outputs = [o for c in json.loads((nem.lab.folder / nem.path).read_text())["cells"] for o in c.get("outputs", []) if "image/png" in o.get("data", {})]
    assert len(outputs) == 1 and len(outputs[0]["data"]["image/png"]) > 20_000
    nem.wait_data("d.state === 'stopped' && Number(d.painted) > 0", 20)
    nem.page.locator("[data-command=run]").click()
    nem.wait_data("d.state === 'running'", 20)


@pytest.mark.slow
@pytest.mark.parametrize("theme", ["dark", "light"])
def test_it_fits_with_real_content(nem, theme):
    "Both themes and three widths; a picture of each is kept."
    nem.command("apputils:change-theme", {"theme": f"JupyterLab {theme.title()}"})
    nem.page.wait_for_function(f"() => document.querySelector('.ll').classList.contains('dark') === {str(theme == 'dark').lower()}", timeout=60_000)
    for width in (1200, 1000, 800): nem.shot(f"nem-{theme}-{width}", width)
    assert not nem.errors
    if theme == "light": nem.execute("panel.close()")
