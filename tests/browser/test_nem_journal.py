"The journal as a new user meets it: train, change a setting, see the difference, repeat, kill the kernel, resume, export the book."

import json
import os
import signal

import pytest

CELLS = ["import latentlab as ll\nfrom latentlab.journal.journal import Journal",
         'panel = ll.lab("nem", images=256, checkpoint_every=20, journal="journal of the lab")\npanel']


@pytest.fixture(scope="module")
def nem(open_notebook):
    "A small NEM run that is recorded from its first step."
    notebook = open_notebook(CELLS, name="nem-journal")
    notebook.wait_data("Number(d.step) > 25 && d.run !== ''", 60)
    return notebook


def press(nem, text):
    "A button of the journal's bar."
    nem.page.locator(".ll button", has_text=text).first.click()


def rows(nem):
    "The journal's runs, read in the kernel: id, state, steps."
    return json.loads(nem.execute('import json; print(json.dumps([[r["id"], r["state"], r["steps"], r["kept"], r["note"]] for r in Journal("journal of the lab").rows()]))'))


def test_a_change_makes_a_run_of_its_own_and_is_said(nem):
    "Another width starts a second run; the panel says what is different from the first."
    first = nem.data("run")
    nem.execute('panel.view._receive(panel.view, dict(kind="set", name="width", value=12), None)')
    nem.wait_data(f"d.run !== '' && d.run !== '{first}'", 60)
    nem.page.locator(".ll [role=tab]", has_text="Settings changed").first.click()
    nem.page.wait_for_function("() => /width\\s*8\\s*→\\s*12/.test(document.querySelector('.ll').innerText)", timeout=60_000)
    assert [row[1] for row in rows(nem)] == ["done", "running"]
    nem.shot("journal-difference", 1200)


def test_note_save_and_report(nem):
    "A note with HTML stays text, Save marks the run, the report opens as a picture."
    press(nem, "Note")
    nem.page.keyboard.type("the <b>width</b> helps")
    nem.page.keyboard.press("Enter")
    press(nem, "Save")
    nem.page.wait_for_function("() => document.querySelector('.ll').innerText.includes('Kept')", timeout=60_000)
    press(nem, "Report")
    nem.page.wait_for_function("() => [...document.querySelectorAll('.ll img')].some((i) => i.naturalWidth > 800)", timeout=60_000)
    nem.shot("journal-report", 1200)
    nem.page.keyboard.press("Escape")
    assert rows(nem)[-1][3:] == [True, "the <b>width</b> helps"] and nem.page.locator(".ll b", has_text="width helps").count() == 0
    assert not nem.errors


def test_repeat_with_seeds_answers_with_an_interval(nem):
    "Two repeats of a few steps beside the paused panel; the sentence has n and an interval."
    nem.page.locator("[data-command=pause]").click()
    nem.wait_data("d.state === 'paused'", 20)
    nem.execute('panel.trainer.rebuild(images=128).step(12)')
    nem.wait_data("d.state === 'paused' && Number(d.step) === 12", 60)
    nem.execute('panel.view._receive(panel.view, dict(kind="journal", name="repeat", value=2), None)')
    nem.wait_data("d.sweep === '2/2'", 120)
    nem.page.wait_for_function("() => document.querySelector('.ll').innerText.includes('n = 2, 95 %')", timeout=60_000)
    nem.shot("journal-repeat", 1200)
    assert len([row for row in rows(nem) if row[1] == "done"]) >= 3


STRANGER = """
from pathlib import Path
from latentlab.train.trainer import Trainer
from latentlab.families.nem.experiment import NEMRun
hub = Path("a folder of a stranger, with a long name so that it has to be broken in the page").resolve()
hub.mkdir()
(hub / "hubconf.py").write_text('''
from pathlib import Path
from torch import manual_seed, nn
def m():
    Path(__file__).with_name("ran").write_text("")
    manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3, 2), nn.ReLU(), nn.Conv2d(4, 8, 3, 2))
''')
run = NEMRun().replace(data="scenes", images=64, batch=8, layers=2, width=4, device="cpu", steps=1, encoder=f"hub:{hub}:m")
theirs = Trainer(run, journal="journal of the lab").fit(1, progress=False).recorder.id
(hub / "ran").unlink()
print(theirs, hub, sep="|")
"""


def test_code_from_outside_runs_after_one_click_that_shows_its_name(nem):
    "A run of a stranger is loaded from the list: the page shows the whole name, nothing runs before the click, and after it the run is there."
    own, (theirs, folder) = nem.data("run"), nem.execute(STRANGER).strip().split("|")
    page, question = nem.page, nem.page.locator(".ll-trust")
    if page.locator(".ll-drawer").is_hidden(): page.locator("[data-journal=runs]").click()
    page.locator(f"[data-load='{theirs}']").scroll_into_view_if_needed(timeout=60_000)
    page.locator(f"[data-load='{theirs}']").click()
    question.wait_for(state="visible", timeout=60_000)
    assert f"hub:{folder}:m" in question.inner_text() and "runs the file hubconf.py of the folder" in question.inner_text()
    boxes = page.evaluate("() => [...document.querySelectorAll('.ll-trust *')].filter((e) => e.scrollWidth > e.clientWidth + 1 && e.clientWidth).length")
    assert boxes == 0 and nem.execute("print((hub / 'ran').exists())").strip() == "False"
    nem.shot("journal-trust", 1200)
    page.locator("[data-command=leave]").click()
    question.wait_for(state="hidden", timeout=60_000)
    page.locator(f"[data-load='{theirs}']").click()
    page.locator("[data-command=trust]").click()  # waits until it can be pressed
    page.wait_for_function("() => document.querySelector('.ll-question').innerText.includes('hub')", timeout=60_000)
    question.wait_for(state="hidden", timeout=60_000)
    assert nem.execute("print((hub / 'ran').exists(), panel.trainer.run.encoder)").strip() == f"True hub:{folder}:m" and not nem.errors
    nem.execute(f'panel.trainer.load("{own}")')


def test_a_killed_kernel_leaves_a_lost_run_that_goes_on(nem):
    "The kernel is killed with -9 while it trains; in the next one the run is lost, is resumed from the list, and its history is one."
    nem.page.locator("[data-command=run]").click()
    nem.wait_data("d.state === 'running' && Number(d.step) > 60", 60)
    killed, pid = nem.data("run"), int(nem.execute("import os; print(os.getpid())"))
    os.kill(pid, signal.SIGKILL)
    nem.page.wait_for_timeout(6000)  # the server notices and starts the kernel again
    nem.page.keyboard.press("Escape")
    nem.wait_idle()
    for button in nem.page.locator(".jp-Dialog .jp-mod-accept").all(): button.click()
    nem.execute("from latentlab.journal.journal import Journal")
    assert [row[1] for row in rows(nem) if row[0] == killed] == ["lost"]
    nem.command("notebook:run-all-cells")
    nem.wait_data("d.state === 'running' && Number(d.step) > 3 && Number(d.runs) > 3", 90)
    nem.page.locator("[data-command=pause]").click()
    press(nem, "Runs")
    nem.page.wait_for_function("() => document.querySelector('.ll').innerText.includes('Resume')", timeout=60_000)
    nem.shot("journal-runs", 1200)
    nem.execute(f'panel.view._receive(panel.view, dict(kind="journal", name="load", value="{killed}"), None)')
    nem.page.wait_for_timeout(3000)
    nem.page.locator("[data-command=run]").click()
    nem.wait_data(f"d.run === '{killed}' && d.state === 'running'", 60)
    nem.page.wait_for_timeout(3000)
    nem.execute("panel.trainer.stop()")
    after = next(row for row in rows(nem) if row[0] == killed)
    steps = json.loads(nem.execute(f'print(json.dumps(Journal("journal of the lab").run("{killed}").metrics().steps))'))
    assert after[1] == "done" and steps == sorted(set(steps)) and steps[-1] == after[2]


def test_the_book_and_the_widths(nem):
    "The book is one page of Markdown with pictures; the panel fits with its journal at three widths and in both themes."
    nem.execute('page = Journal("journal of the lab").book()')
    text = nem.execute("print(page.read_text())")
    assert "&lt;b&gt;width&lt;/b&gt;" in text and "![picture of run" in text and "## Repeats" in text
    for theme in ("dark", "light"):
        nem.command("apputils:change-theme", {"theme": f"JupyterLab {theme.title()}"})
        nem.page.wait_for_function(f"() => document.querySelector('.ll').classList.contains('dark') === {str(theme == 'dark').lower()}", timeout=60_000)
        for width in (1200, 1000, 800): nem.shot(f"journal-{theme}-{width}", width)
    assert not nem.errors
    nem.execute("panel.close()")
