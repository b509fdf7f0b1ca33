"Widgets of ipywidgets in a dashboard of one's own: moved in a real browser, and moved from the kernel."

import pytest

pytestmark = pytest.mark.browser

CELL = """import ipywidgets, latentlab as ll, torch
from latentlab.facade import make_run
torch.set_num_threads(1)
trainer = ll.Trainer(make_run("hvae", dict(data="moons", points=400, batch=32, learning_rate=0.002)))  # between two places
mine = ll.controls(trainer, "beta", "learning_rate", "warmup_steps")
ipywidgets.HBox([mine["beta"], ipywidgets.VBox([mine["learning_rate"], mine["warmup_steps"], mine.words])])"""


def until(notebook, what, wanted):
    "Until an expression in the kernel prints as wanted."
    for _ in range(200):
        found = notebook.execute(f"print({what})").strip()
        if found == wanted: return
        notebook.page.wait_for_timeout(50)
    raise AssertionError(f"{what} is {found!r}, not {wanted!r}")


def test_a_dashboard_is_bound_both_ways(open_notebook):
    dashboard = open_notebook([CELL], name="dashboard")
    page = dashboard.page
    page.wait_for_selector(".widget-hbox .noUi-handle", timeout=60_000)
    dashboard.wait_idle()
    beta, readout = page.locator(".widget-slider .noUi-handle").first, page.locator(".widget-slider .widget-readout").first
    beta.focus()
    for _ in range(3): beta.press("ArrowRight")
    until(dashboard, "round(trainer.run.get('beta'), 6)", "1.15")
    dashboard.execute("trainer.set(beta=4.25)")
    page.wait_for_function("() => document.querySelector('.widget-slider .widget-readout').innerText === '4.250'", timeout=60_000)
    readout.fill("7.5")
    readout.press("Enter")
    until(dashboard, "trainer.run.get('beta')", "7.5")
    number = page.locator(".widget-text input").first
    number.fill("200000")
    number.press("Enter")
    page.wait_for_selector(".widget-label >> text=must be at most 100000", timeout=60_000)
    page.wait_for_function("() => document.querySelector('.widget-text input').value === '0'", timeout=60_000)  # the words come first
    assert dashboard.execute("print({change.name for change in trainer.changes}, trainer.run.get('learning_rate'))").strip() == "{'beta'} 0.002"
    assert not dashboard.errors
