"Runs side by side in the lab itself: chosen in three clicks, filtered by words, and looks that fold away."

import pytest

CELLS = ["""import latentlab as ll
from latentlab.core.settings import Range
from latentlab.families.nem.experiment import NEMRun
from latentlab.train.trainer import Trainer
base = NEMRun().replace(encoder="untrained", images=64, batch=8, layers=2, width=4, device="cpu", steps=40, check_every=40)
def train(**changes): return Trainer(base.replace(changes), journal="beside").fit(progress=False).recorder.id
first, again = train(), train(seed=1)
other = train(kl_scale=0.05, mask_bias=1.0, fill="mean")
for width in (4, 8, 4, 8): Trainer(base.replace(width=width, steps=2000), journal="beside").fit(9, progress=False)""",
         'panel = ll.lab("nem", encoder="untrained", images=64, batch=8, layers=2, width=4, check_every=40, journal="beside")\npanel',
         'panel.trainer.pause()\nprint(first, again, other)']


@pytest.fixture(scope="module")
def lab_of_runs(open_notebook):
    "A lab beside a journal of three runs and four looks."
    notebook = open_notebook(CELLS, name="beside", width=1280, height=900)
    notebook.wait_data("Number(d.painted) > 1 && Number(d.runs) >= 8", 60)
    notebook.wait_idle()
    return notebook


def ids(notebook): return notebook.execute("print(first, again, other)").split()


def test_two_runs_side_by_side_in_three_clicks(lab_of_runs):
    "The button, a tick, a tick: what differs, the numbers with the band of the seeds, and one picture of both on the same images."
    page, (first, _, other), clicks = lab_of_runs.page, ids(lab_of_runs), 0
    for target in ("[data-journal=runs]", f"[data-tick='{first}']", f"[data-tick='{other}']"):
        page.locator(target).click()
        clicks += 1
    page.wait_for_function("() => (document.querySelector('.ll-beside img')?.naturalWidth ?? 0) > 800", timeout=120_000)
    assert clicks == 3
    table = page.locator(".ll-beside table").inner_text()
    for words in ("KL scale", "0.005", "0.05", "mask bias", "fill", "blur", "mean", "2 seeds", "area"): assert words in table, words
    assert "same images" in page.locator(".ll-beside [role=status]").inner_text()
    lab_of_runs.page.locator(".ll-beside").scroll_into_view_if_needed()
    lab_of_runs.shot("beside-1080", 1080, 900)
    lab_of_runs.shot("beside-1500", 1500, 1400)
    assert not lab_of_runs.errors


def test_a_third_run_joins_and_one_is_taken_out(lab_of_runs):
    "Up to six ticks; a run is taken out where it stands; the letters follow."
    page, (first, again, other) = lab_of_runs.page, ids(lab_of_runs)
    page.locator(f"[data-tick='{again}']").click()
    page.wait_for_function(f"() => document.querySelector('.ll-drawer').dataset.compared === '{first} {other} {again}'", timeout=120_000)
    assert page.locator(".ll-beside th[scope=col] .ll-letter").all_inner_texts() == ["A", "B", "C"]
    page.get_by_label("take run B out").click()
    page.wait_for_function(f"() => document.querySelector('.ll-drawer').dataset.compared === '{first} {again}'", timeout=120_000)
    assert "seed" in page.locator(".ll-beside table").inner_text() and "KL scale" not in page.locator(".ll-beside table").inner_text()
    page.locator(".ll-clear").click()
    assert page.locator(".ll-beside").is_hidden() and page.locator(".ll-tick input:checked").count() == 0


def test_looks_fold_away_and_words_filter(lab_of_runs):
    "Four rebuilds of nine steps are one line until it is opened; words of settings find their runs."
    page, other = lab_of_runs.page, ids(lab_of_runs)[2]
    rows = page.locator(".ll-runs tr[data-run]")
    fold, box = page.locator(".ll-fold"), page.locator(".ll-runs-head input")
    assert "short runs" in fold.inner_text() and rows.count() <= 5
    before = rows.count()
    fold.click()
    assert rows.count() == before + int(fold.inner_text().split()[0]) >= 8
    fold.click()
    box.fill("mean fill")
    assert [row.get_attribute("data-run") for row in rows.all()] == [other]
    box.fill("nothing-like-this")
    assert "no run has these words" in page.locator(".ll-runs-empty").inner_text()
    box.fill("")
    assert rows.count() == before
    chips = page.locator(f".ll-runs tr.more[data-of='{other}'] .ll-chip").all()
    wide = [chip.bounding_box()["width"] for chip in chips]
    assert len(wide) >= 4 and min(wide) > 40 and page.locator(f".ll-runs tr.more[data-of='{other}'] .ll-chip.more").count() == 0
    lab_of_runs.shot("runs-list-1080", 1080, 900)
