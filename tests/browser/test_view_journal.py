"The journal's part of the view in a real JupyterLab, fed by a thread that plays the trainer and its journal."

import ast
import json

import pytest

pytestmark = pytest.mark.browser

CELLS = ["from feeder import BEFORE, BEST, HTML, RUN_ID, JournalFeeder, earlier\nfeeder = JournalFeeder().start()\nfeeder.view"]
RUN_ID, BEFORE, BEST = "20261121-120544-nem-3fa9c2", "20261121-115210-nem-9a1b2c", "20261120-180312-nem-77aa01"
WINDOW = {"width": 1400, "height": 1150}

CUT = """[...document.querySelectorAll('.ll *')].filter((e) => !e.closest('.uplot') && !e.matches('.ll-clip[title]') && e.clientWidth && e.scrollWidth > e.clientWidth + 1
    && getComputedStyle(e).overflowX !== 'visible').map((e) => e.className + ': ' + e.textContent.slice(0, 60))"""  # Elements whose text does not fit
WIDE = """(() => { const box = document.querySelector('.ll-box').getBoundingClientRect();
    return [...document.querySelectorAll('.ll-journal *, .ll-foot.since *, .ll-report-sheet *')]
    .filter((e) => e.offsetParent && e.getBoundingClientRect().right > box.right + 0.5).map((e) => e.className + ': ' + e.textContent.slice(0, 60)); })()"""


pytestmark = pytest.mark.slow  # the bar at work on a real trainer is in test_nem_journal.py


@pytest.fixture(scope="module")
def panel(open_notebook):
    notebook = open_notebook(CELLS, name="journal")
    notebook.wait_data("Number(d.painted) > 3")
    return notebook


def asked(panel): return ast.literal_eval(panel.execute("print(feeder.asked())"))


def wait_asked(panel, wish):
    "Until the wish is the last one that the kernel heard."
    for _ in range(50):
        heard = asked(panel)
        if heard and heard[-1] == wish: return
        panel.page.wait_for_timeout(100)
    assert heard[-1:] == [wish]


def button(panel, name): return panel.page.locator(f"[data-journal={name}]")


def drawer(panel, open_):
    if panel.page.locator(".ll-drawer").is_visible() != open_: button(panel, "runs").click()


def test_without_a_journal_there_is_no_bar(open_notebook):
    "A panel that records nothing looks as it always did; with a journal but no step yet, its buttons say why they wait."
    plain = open_notebook(["from feeder import Feeder, JournalFeeder\nfeeder = Feeder().start()\nfeeder.view"], name="plain")
    plain.wait_data("Number(d.painted) > 1")
    for part in (".ll-journal", ".ll-drawer", ".ll-foot.since", ".ll-report-over"): assert plain.page.locator(part).is_hidden(), part
    assert (plain.data("runs"), plain.data("run"), plain.data("sweep")) == ("0", "", "")
    plain.execute("feeder.view.tell({'journal': {'folder': 'journal', 'run': {}, 'message': '', 'error': '', 'sweep': {}}})")
    plain.page.locator(".ll-journal").wait_for(state="visible", timeout=60_000)
    assert "records from the first step" in plain.page.locator(".ll-run").inner_text()
    for name in ("save", "note", "report", "repeat"):
        assert button(plain, name).is_disabled() and "first step" in button(plain, name).get_attribute("title")
    button(plain, "runs").click()
    assert plain.page.locator(".ll-runs").inner_text() == "no earlier runs yet"
    plain.shot("journal-before", 1000, 1800)
    plain.execute("feeder.view.tell({'journal': {}})")
    plain.page.locator(".ll-journal").wait_for(state="hidden", timeout=60_000)
    assert plain.page.locator(".ll-drawer").is_hidden() and plain.errors == []


def test_the_bar_names_the_run(panel):
    label = panel.page.locator(".ll-run")
    assert " ".join(label.inner_text().split()) == "● nem-3fa9c2 recorded in journal"  # the short id; the whole one is in the title
    assert RUN_ID in label.get_attribute("title")
    assert panel.data("run") == RUN_ID and panel.data("runs") == "12" and panel.data("sweep") == ""
    since = panel.page.locator("[data-since=previous]").inner_text()
    assert "nem-9a1b2c" in since and "KL scale 0.1 → 0.005" in " ".join(since.split()) and "fill mean → blur" in " ".join(since.split())
    assert "0.0333" in panel.page.locator("[data-since=best]").inner_text() and panel.page.locator("[data-since=best] .ll-chip").count() == 3


def test_words_are_said_once_and_loudly(panel):
    "A word of the journal that the panel says as well stands there once."
    words = "`mask_kl` has weight 0: the mask is free to keep everything."
    panel.execute(f"feeder.view.tell({{'notes': [{{'text': {words!r}, 'loud': True}}]}})")
    panel.page.wait_for_timeout(400)
    assert panel.page.locator(".ll-notes > .loud").all_inner_texts() == [words.replace("`", "")]
    assert panel.page.locator(".ll-notes code").inner_text() == "mask_kl"
    more = ["`fill` is blur; the default is mean.", "`optional smoothing` is True; the default is False."]
    panel.execute(f"said = feeder.kept\nfeeder.kept = said | {{'words': [*said['words'], *{more}]}}\nfeeder.write()")
    quiet = panel.page.locator(".ll-notes > .quiet")
    quiet.wait_for(state="attached", timeout=60_000)
    tab = panel.page.get_by_role("tab", name="Settings changed")  # a wide panel has no tab for it
    if tab.count() and tab.is_visible(): tab.click()
    quiet.wait_for(state="visible", timeout=60_000)
    assert quiet.all_inner_texts() == ["2 switches differ from their defaults: fill blur, optional smoothing on"]  # ordinary choices are no warning, and one line
    assert panel.page.locator(".ll-notes > .loud").all_inner_texts() == [words.replace("`", "")]
    panel.execute("feeder.kept = said\nfeeder.write()")
    quiet.wait_for(state="detached", timeout=60_000)


def test_save_keeps_the_moment(panel):
    save = button(panel, "save")
    assert "Save" in save.inner_text()
    save.click()
    wait_asked(panel, ["save", None])
    panel.page.wait_for_function("() => document.querySelector('[data-journal=save]').textContent === '★ Kept'", timeout=60_000)
    assert "kept" in save.get_attribute("class")


def test_a_note_is_typed_and_shown_as_text(panel):
    "Escape sends nothing, neither does an empty text; markup stays text."
    button(panel, "note").click()
    text = panel.page.locator(".ll-note-editor input")
    assert text.evaluate("(e) => e === document.activeElement")
    text.press_sequentially("draft")
    panel.shot("journal-note", 800, 1800)
    panel.page.set_viewport_size(WINDOW)
    text.press("Escape")
    assert text.is_hidden()
    button(panel, "note").click()
    assert text.input_value() == ""
    text.press_sequentially("   ")
    text.press("Enter")
    error = panel.page.locator(".ll-journal .ll-error")
    assert error.inner_text() == "A note needs a text." and text.is_visible()
    assert not [wish for wish in asked(panel) if wish[0] == "note"]
    note = '<img src=x onerror="window.hacked=1"> the <b>sleeves</b> are lost'
    text.fill(f"  {note} ")
    text.press("Enter")
    wait_asked(panel, ["note", note])
    panel.page.wait_for_function("() => document.querySelectorAll('.ll-run-notes > div').length === 1", timeout=60_000)
    assert panel.page.locator(".ll-run-notes > div").inner_text() == note and "(1)" in button(panel, "note").inner_text()
    assert text.is_hidden() and error.is_hidden()
    assert panel.page.evaluate("window.hacked === undefined && document.querySelectorAll('.ll-journal img, .ll-journal b b').length === 0")


def test_the_drawer_lists_the_runs(panel):
    "Opened, it asks for them; each state has its own mark and word; ids and notes that hold markup are text."
    drawer(panel, True)
    wait_asked(panel, ["runs", None])
    rows = panel.page.locator(".ll-runs tbody tr[data-run]")
    assert rows.count() == 12
    states = panel.page.locator(".ll-runs tbody .ll-runstate").all_inner_texts()
    assert [" ".join(text.split()) for text in states[:5]] == ["● running", "✓ done", "✕ failed", "? lost", "❙❙ interrupted"]
    assert panel.page.locator(".ll-runs thead th").all_inner_texts() == ["compare", "★", "time", "run", "state", "steps", "seed", "loss", "area", ""]
    assert panel.page.locator(".ll-runs tr[aria-current=true]").get_attribute("data-run") == RUN_ID
    best = panel.page.locator(f".ll-runs tr.more[data-of='{BEST}']")
    assert "optional smoothing off → on" in best.locator(".ll-chip").all_inner_texts() and best.locator(".ll-chip.more").count() == 0, "nothing is cut"
    assert best.locator(".ll-runnote").get_attribute("title").endswith("see the run before.")
    hostile = rows.nth(2)
    assert hostile.locator("td.id").inner_text() == "nem-<i>x" and hostile.locator("td.metric").all_inner_texts() == ["–", "–"]
    assert panel.page.evaluate("window.hacked === undefined && document.querySelectorAll('.ll-runs img, .ll-runs i i, .ll-runs td b b').length === 0")
    assert rows.nth(1).locator("td.star").inner_text() == "★" and rows.nth(0).locator("td.star").inner_text() == ""
    panel.page.get_by_role("button", name="Refresh").click()
    wait_asked(panel, ["runs", None])
    assert len([wish for wish in asked(panel) if wish[0] == "runs"]) == 2


def test_a_run_is_loaded_from_the_keyboard(panel):
    "The button waits for an answer; a refusal says why and gives it back."
    drawer(panel, True)
    panel.page.locator("[data-command=pause]").click()  # no status comes while paused
    panel.wait_data("d.state === 'paused'", 5)
    panel.page.locator(f"[data-tick='{BEFORE}']").focus()
    panel.page.keyboard.press("Tab")
    load = panel.page.locator(f"[data-load='{BEFORE}']")
    assert load.evaluate("(e) => e === document.activeElement") and load.inner_text() == "Load"
    panel.page.keyboard.press("Enter")
    wait_asked(panel, ["load", BEFORE])
    assert load.is_disabled() and panel.page.locator("[data-load]:disabled").count() == 1
    panel.execute("feeder.table = [feeder.table[0] | {'steps': 700}, *feeder.table[1:]]; feeder.write()")
    panel.page.wait_for_function(f"() => !document.querySelector(\"[data-load='{BEFORE}']\").disabled", timeout=60_000)
    assert load.evaluate("(e) => e === document.activeElement"), "the keyboard stays where it was"
    resume = panel.page.locator(f"[data-load='{BEST}']")
    assert resume.inner_text() == "Resume"
    resume.click()
    panel.page.locator(".ll-journal .ll-error").wait_for(state="visible", timeout=60_000)
    assert "a run that this version can read" in panel.page.locator(".ll-journal .ll-error").inner_text() and resume.is_enabled()
    panel.page.locator("[data-command=run]").click()
    panel.wait_data("d.state === 'running'", 5)


def test_the_report_opens_where_it_was_asked_for(panel):
    "A report that nobody here asked for stays closed; Escape closes one; its file has the name of the run."
    over = panel.page.locator(".ll-report-over")
    panel.execute("from feeder import png\nfeeder.view.show_report(png(90, 50), {'id': RUN_ID, 'step': 3})")
    panel.page.wait_for_timeout(500)
    assert over.is_hidden()
    for closing in ("Escape", "button"):
        button(panel, "report").click()
        over.wait_for(state="visible", timeout=60_000)
        panel.page.wait_for_function("() => document.querySelector('.ll-report-sheet img').naturalWidth === 900", timeout=60_000)
        inside = panel.page.evaluate("""() => { const [a, b] = ['.ll-report-over', '.ll-box'].map((s) => document.querySelector(s).getBoundingClientRect());
            return a.left >= b.left && a.right <= b.right && a.top >= b.top && a.bottom <= b.bottom; }""")
        assert inside and panel.page.locator(".ll-report-sheet").get_by_text("nem-3fa9c2").is_visible()
        assert panel.page.locator(".ll-report-sheet a").get_attribute("download") == f"{RUN_ID}.png"
        if closing == "Escape":
            with panel.page.expect_download(timeout=60_000) as caught: panel.page.locator(".ll-report-sheet a").click()
            assert caught.value.suggested_filename == f"{RUN_ID}.png" and caught.value.path().read_bytes().startswith(b"\x89PNG")
            panel.page.locator(".ll-report-sheet img").click()  # the focus is anywhere
            first = panel.page.locator(".ll-report-sheet img").get_attribute("src")
            panel.page.keyboard.press("Escape")
        else: panel.page.locator(".ll-report-sheet").get_by_role("button", name="Close").click()
        over.wait_for(state="hidden", timeout=60_000)
        assert button(panel, "report").evaluate("(e) => e === document.activeElement")
    gone = panel.page.evaluate("(address) => fetch(address).then(() => false, () => true)", first)
    assert gone, "the address of the report before must be given back"


def test_a_repeat_shows_how_far_it_is(panel):
    "Seeds outside 2 to 100 are not sent; while it runs there is a bar and Cancel, afterwards the result."
    seeds = panel.page.locator(".ll-repeat input")
    seeds.fill("1")
    button(panel, "repeat").click()
    assert "from 2 to 100" in panel.page.locator(".ll-journal .ll-error").inner_text()
    seeds.fill("5")
    seeds.press("Enter")
    wait_asked(panel, ["repeat", 5])
    assert [wish for wish in asked(panel) if wish[0] == "repeat"] == [["repeat", 5]]
    panel.wait_data("d.sweep === '0/5'", 5)
    assert "0 of 5 · 2 running" in panel.page.locator(".ll-sweep").inner_text() and panel.page.locator(".ll-repeat").is_hidden()
    panel.execute("feeder.count(2, failed=1)")
    panel.wait_data("d.sweep === '2/5'", 5)
    line = panel.page.locator(".ll-sweep").inner_text()
    assert "2 of 5 · 1 failed · 34 s left" in line and "repeat of nem-3fa9c2 with 5 seeds" in line
    assert panel.page.locator(".ll-sweep-track").get_attribute("aria-valuenow") == "2"
    panel.shot("journal-sweep", 1000, 1800)
    panel.page.set_viewport_size(WINDOW)
    button(panel, "cancel").click()
    wait_asked(panel, ["cancel", None])
    panel.page.wait_for_function("() => document.querySelector('.ll-sweep').classList.contains('stopped')", timeout=60_000)
    result = "loss 0.041 ± 0.002 (n = 5, 95 % interval 0.038 to 0.043)"
    panel.execute(f"feeder.count(5, 'done', result={result!r})")
    panel.wait_data("d.sweep === '5/5'", 5)
    assert result in panel.page.locator(".ll-sweep").inner_text() and button(panel, "cancel").is_hidden() and panel.page.locator(".ll-repeat").is_visible()


def test_what_the_journal_says_stands_in_the_banner(panel):
    banner = panel.page.locator(".ll-banner")
    panel.execute("feeder.write(message='saved at step 640', error='3 lines wait for the disk: No space left on device')")
    banner.wait_for(state="visible", timeout=60_000)
    panel.shot("journal-error", 1000, 1800)
    panel.page.set_viewport_size(WINDOW)
    assert banner.inner_text().split("\n") == ["3 lines wait for the disk: No space left on device", "saved at step 640"] and "bad" in banner.get_attribute("class")
    assert banner.locator("div.info").all_inner_texts() == ["saved at step 640"]
    panel.execute("feeder.write(error='')")
    panel.page.wait_for_function("() => document.querySelector('.ll-banner').className === 'll-banner info'", timeout=60_000)
    panel.execute("feeder.write(message='')")
    banner.wait_for(state="hidden", timeout=60_000)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_it_fits(panel, theme):
    "At each width nothing is cut off but what has its whole text in a title; a picture of each is kept."
    panel.command("apputils:change-theme", {"theme": f"JupyterLab {theme.title()}"})
    panel.page.wait_for_function(f"() => document.querySelector('.ll').classList.contains('dark') === {json.dumps(theme == 'dark')}", timeout=60_000)
    drawer(panel, True)
    for width in (1200, 1000, 800):
        panel.shot(f"journal-{theme}-{width}", width, 1800)
        cut, wide = panel.page.evaluate(CUT), panel.page.evaluate(WIDE)
        assert not cut, f"cut off at {width} px: {cut}"
        assert not wide, f"too wide at {width} px: {wide}"
    button(panel, "report").click()
    panel.page.locator(".ll-report-over").wait_for(state="visible", timeout=60_000)
    panel.page.wait_for_timeout(200)
    panel.shot(f"journal-report-{theme}", 800)
    panel.page.keyboard.press("Escape")
    assert panel.errors == []


def test_long_texts_stay_inside(panel):
    "Ids, labels, values, notes and words of any length: the panel is not wider for them."
    panel.execute("""long = 'x' * 128
change = dict(label='y' * 200, old='z' * 200, new=1e-9)
feeder.table = [feeder.table[0], feeder.table[1] | dict(id=long, changes=[change] * 4, note=long * 20, metrics=dict(loss=-1.234e-12, area=1e30))]
feeder.kept |= dict(notes=[long * 30], words=[long * 5], previous=dict(id=long, changes=[change]), best=dict(id=long, metric='m' * 90, value=1.0, changes=[change]))
feeder.count(1, sentence=long * 4, seconds_left=98765.0, message=long * 5)
feeder.write(error=long * 4)""")
    panel.wait_data("d.runs === '2' && d.sweep === '1/5'", 5)
    drawer(panel, True)
    for width in (1200, 800, 640):
        panel.shot(f"journal-long-{width}", width, 1900)
        wide = panel.page.evaluate(WIDE)
        assert not wide, f"too wide at {width} px: {wide}"
        assert panel.page.evaluate("(() => { const box = document.querySelector('.ll-box'); return box.scrollWidth <= box.clientWidth; })()"), width
    panel.execute("from feeder import JournalFeeder as J\nfresh = J()\nfeeder.table = earlier()\nfeeder.kept = fresh.kept | dict(kept=True, notes=[HTML])\nfeeder.write(error='')")
    panel.page.set_viewport_size(WINDOW)
    panel.wait_data("d.runs === '12'", 5)


def test_a_reload_brings_the_journal_back(panel):
    "Bar, runs, notes, sweep from the traits; the drawer may be closed; no report opens by itself."
    panel.execute("feeder.count(3)")
    panel.wait_data("d.sweep === '3/5'", 5)
    panel.command("docmanager:save")
    panel.page.wait_for_timeout(700)
    panel.page.reload()
    panel.wait_data(f"d.run === '{RUN_ID}' && d.runs === '12' && d.sweep === '3/5'", 30)
    assert panel.page.locator(".ll-journal").is_visible() and panel.page.locator(".ll-run-notes > div").count() == 1
    assert button(panel, "save").inner_text() == "★ Kept" and "(12)" in button(panel, "runs").inner_text()
    panel.page.wait_for_timeout(500)
    assert panel.page.locator(".ll-report-over").is_hidden()
    drawer(panel, True)
    assert panel.page.locator(".ll-runs tbody tr[data-run]").count() == 12
    assert panel.errors == []
