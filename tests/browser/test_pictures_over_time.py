"The slider over a run's pictures, over a setting's values, and over two runs, in the lab itself."

import pytest

CELLS = ["""import latentlab as ll
from latentlab.families.nem.experiment import NEMRun
from latentlab.train.trainer import Trainer
base = NEMRun().replace(encoder="untrained", images=64, batch=8, layers=2, width=4, device="cpu", steps=50, check_every=50)
def train(**changes): return Trainer(base.replace(changes), journal="over_time").fit(progress=False).recorder.id
first, other, shapes = train(), train(kl_scale=0.05), train(data="scenes")""",
         'panel = ll.lab("nem", encoder="untrained", images=64, batch=8, layers=2, width=4, check_every=40, journal="over_time")\npanel',
         'panel.trainer.pause()\nprint(first, other, shapes)']


@pytest.fixture(scope="module")
def lab_of_pictures(open_notebook):
    "A lab beside a journal of three runs."
    notebook = open_notebook(CELLS, name="time", width=1280, height=900)
    notebook.wait_data("Number(d.painted) > 1 && Number(d.runs) >= 4", 60)
    notebook.wait_idle()
    return notebook


SHOWN, SLIDER = ".ll-timeline", "[data-timeline=slider]"


def test_a_run_over_its_steps_and_over_a_setting(lab_of_pictures):
    "One tick, and the newest picture is there; the keyboard goes to each step without asking the kernel."
    page, (first, *_) = lab_of_pictures.page, lab_of_pictures.execute("print(first, other, shapes)").split()
    page.locator("[data-journal=runs]").click()
    page.locator(f"[data-tick='{first}']").click()
    page.wait_for_function(f"() => document.querySelector('{SHOWN}').dataset.left === '0'", timeout=120_000)
    told, seen = [page.locator(SHOWN).get_attribute("data-shown")], [page.locator(f"{SHOWN} img").get_attribute("src")]
    page.locator(SLIDER).focus()
    for _ in range(6):
        page.keyboard.press("ArrowLeft")
        told.append(page.locator(SHOWN).get_attribute("data-shown"))
        seen.append(page.locator(f"{SHOWN} img").get_attribute("src"))
    assert told == [f"step {step}" for step in (50, 20, 10, 5, 2, 1, 0)] and len(set(seen)) == 7
    assert page.locator(SLIDER).get_attribute("aria-valuetext") == "step 0" and page.locator(f"{SHOWN} output").inner_text() == "step 0"
    page.keyboard.press("End")
    page.locator(SHOWN).scroll_into_view_if_needed()
    lab_of_pictures.shot("pictures-1280", 1280, 900)
    lab_of_pictures.shot("pictures-1680", 1680, 1050)
    page.locator(f"{SHOWN} select").select_option("model.kl_scale")
    page.wait_for_function(f"() => document.querySelector('{SHOWN}').dataset.left === '0'", timeout=120_000)
    page.locator(SLIDER).focus()
    page.keyboard.press("Home")
    low = page.locator(SHOWN).get_attribute("data-shown")
    page.keyboard.press("End")
    assert low == "KL scale 0.005, step 50" and page.locator(SHOWN).get_attribute("data-shown") == "KL scale 0.05, step 50"
    assert not lab_of_pictures.errors


def test_two_runs_over_the_same_steps_and_other_images_refused(lab_of_pictures):
    "Two ticks: both at each step, on the same images; a third run that shows others is refused by name."
    page, (other, shapes) = lab_of_pictures.page, lab_of_pictures.execute("print(other, shapes)").split()
    page.locator(f"[data-tick='{other}']").click()
    page.wait_for_function(f"() => document.querySelector('{SHOWN}').dataset.left === '0'", timeout=120_000)
    wide = page.locator(f"{SHOWN} img").evaluate("one => one.naturalWidth")
    page.locator(SLIDER).focus()
    page.keyboard.press("Home")
    assert page.locator(SHOWN).get_attribute("data-shown") == "step 0" and wide > 800
    page.locator(SHOWN).scroll_into_view_if_needed()
    lab_of_pictures.shot("pictures-two-1280", 1280, 900)
    lab_of_pictures.shot("pictures-two-1680", 1680, 1050)
    page.locator(f"[data-tick='{shapes}']").click()
    page.wait_for_function(f"() => document.querySelector('{SHOWN}').textContent.includes('same images')", timeout=120_000)
    assert shapes in page.locator(f"{SHOWN} [role=status]").inner_text() and page.locator(f"{SHOWN} img").is_hidden()
