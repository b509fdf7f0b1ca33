"The pictures that answer, used by hand in a real browser: each event arrives in Python, and what is refused goes back."

import ast
import time

import pytest

pytestmark = pytest.mark.browser

CELLS = ["from feeder import EventFeeder, Feeder\nfeeder = EventFeeder().start()\nfeeder.view"]

CUT = """[...document.querySelectorAll('.ll *')].filter((e) => !e.closest('.uplot') && !(e instanceof SVGElement) && !e.title && e.clientWidth && e.scrollWidth > e.clientWidth + 1
    && getComputedStyle(e).overflowX === 'hidden').map((e) => e.className + ': ' + e.textContent.slice(0, 60))"""  # Elements whose text does not fit


@pytest.fixture(scope="module")
def panel(open_notebook):
    notebook = open_notebook(CELLS, name="events", width=1480, height=1150)
    notebook.wait_data("Number(d.painted) > 3")
    return notebook


def events(panel): return ast.literal_eval(panel.execute("print(feeder.events)"))


def wait_event(panel, source, kind):
    "The last event, once it is of that source and type."
    for _ in range(60):
        heard = events(panel)
        if heard and heard[-1][:2] == [source, kind]: return heard[-1]
        panel.page.wait_for_timeout(100)
    raise AssertionError(f"no {kind} of {source} in {heard}")


def of(panel, source, name): return panel.page.locator(f"[data-source='{source}']").first.get_attribute(f"data-{name}")


def drag(panel, start, *points):
    panel.page.mouse.move(*start)
    panel.page.mouse.down()
    for point in points: panel.page.mouse.move(*point, steps=6)
    panel.page.mouse.up()


def middle(box): return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


def test_a_pixel_says_what_it_belongs_to(panel):
    "Resting on a pixel of any row names its place in the array that one row declares."
    for row in ("image", "second"):
        box = panel.place(f"[data-row={row}] canvas")
        image = box["width"] / 8
        for share, words in ((0.2, "left half"), (0.8, "right half")):
            panel.page.mouse.move(box["x"] + (2 + share) * image, box["y"] + box["height"] / 2)
            tip = panel.page.locator(".ll-tip:visible").inner_text()
            assert tip.startswith("image 3, pixel") and words in tip, tip


def test_a_strip_is_clicked_and_scrubbed(panel):
    box = panel.place("[data-source=walk] .ll-film-small")
    panel.page.mouse.click(box["x"] + 5.5 / 7 * box["width"], box["y"] + 10)
    assert wait_event(panel, "walk", "click") == ["walk", "click", 5, 0]
    assert of(panel, "walk", "at") == "5" and ["walk", "scrub", 5, 0] in events(panel)
    large = "document.querySelector('[data-source=walk] .ll-film-large').toDataURL()"
    before = panel.page.evaluate(large)
    panel.page.locator("[data-scrub=walk]").press("ArrowLeft")
    assert wait_event(panel, "walk", "scrub") == ["walk", "scrub", 4, 0]
    assert of(panel, "walk", "at") == "4" and panel.page.evaluate(large) != before


def test_a_slider_of_its_own_slides_with_keys_and_typing(panel):
    slider = panel.page.locator("[data-slide=tokens]")
    slider.press("ArrowRight")
    assert wait_event(panel, "tokens", "slide") == ["tokens", "slide", 5, 0]
    panel.page.locator("[data-source=price] .ll-value").click()
    field = panel.page.locator("[data-source=price] .ll-typed")
    field.fill("7")
    field.press("Enter")
    assert "between 0.001 and 1" in panel.page.locator("[data-source=price] .ll-error").inner_text()
    panel.page.locator("[data-source=price] .ll-value").click()
    field.fill("0.25")
    field.press("Enter")
    assert wait_event(panel, "price", "slide") == ["price", "slide", 0.25, 0]
    box = panel.place("[data-slide=price]")
    drag(panel, middle(box), (box["x"] + 20, box["y"] + 8))
    assert wait_event(panel, "price", "slide")[2] < 0.01


def test_a_stroke_arrives_and_a_frame_answers(panel):
    "Painted by pointer, then undone, erased and cleared; the second mask of the grid is what was painted."
    panel.page.locator("[data-source=painted] .ll-brush-canvas").scroll_into_view_if_needed()
    box, row = panel.place("[data-source=painted] .ll-brush-canvas"), "document.querySelector('[data-row=second] canvas').toDataURL()"
    blank = panel.page.evaluate(row)
    at = lambda x, y: (box["x"] + x * box["width"], box["y"] + y * box["height"])
    drag(panel, at(0.3, 0.3), at(0.7, 0.3), at(0.7, 0.6))
    assert wait_event(panel, "painted", "paint") == ["painted", "paint", 0, 784]
    painted = ast.literal_eval(panel.execute("print(int((feeder.painted[0] == 255).sum()), feeder.painted[0][8, 12:16].tolist(), "
                                             "int(feeder.painted[0][20:].sum()))").replace(" [", ", [").replace("] ", "], "))
    assert painted[0] == int(of(panel, "painted", "painted")) and painted[1] == [255] * 4 and painted[2] == 0
    panel.page.wait_for_function(f"() => {row} !== {blank!r}", timeout=60_000)
    panel.page.locator("[data-source=painted] [data-tab=erase]").click()
    drag(panel, at(0.3, 0.3), at(0.5, 0.3))
    erased = int(of(panel, "painted", "painted"))
    assert 0 < erased < painted[0]
    panel.page.get_by_role("button", name="undo the last stroke").click()
    assert int(of(panel, "painted", "painted")) == painted[0]
    panel.page.get_by_role("button", name="next image").click()
    assert of(panel, "painted", "painted") == "0"
    panel.page.locator("[data-source=painted] [data-tab=paint]").click()
    canvas = panel.page.locator("[data-source=painted] .ll-brush-canvas")
    canvas.focus()
    panel.page.keyboard.down("Space")
    for _ in range(4): panel.page.keyboard.press("ArrowRight")
    panel.page.keyboard.up("Space")
    assert wait_event(panel, "painted", "paint")[2] == 1
    panel.page.get_by_role("button", name="take all paint away").click()
    panel.page.wait_for_timeout(400)
    assert panel.execute("print(feeder.painted.sum(axis=(1, 2)).tolist()[1])").strip() == "0"


def test_arrows_are_added_cut_and_refused(panel):
    node = lambda name: panel.place(f"[data-source=concepts] [data-node='{name}']")
    panel.page.locator("[data-cut='light > shadow position']").scroll_into_view_if_needed()
    panel.page.mouse.click(*middle(panel.place("[data-cut='light > shadow position']")))
    assert wait_event(panel, "concepts", "edit")[2]["edges"] == [["light", "shadow length"], ["pendulum", "shadow position"]]
    drag(panel, middle(node("pendulum")), middle(node("shadow length")))
    assert wait_event(panel, "concepts", "edit")[2]["edges"][-1] == ["pendulum", "shadow length"]
    panel.page.mouse.click(*middle(node("light")))
    assert wait_event(panel, "concepts", "click") == ["concepts", "click", "light", 0]
    assert "From light" in panel.page.locator(".ll-graph-hint").inner_text()
    panel.page.mouse.click(*middle(node("pendulum")))  # looking at one node after the other draws no arrow
    assert wait_event(panel, "concepts", "click") == ["concepts", "click", "pendulum", 0]
    panel.page.mouse.click(*middle(node("light")))
    assert wait_event(panel, "concepts", "click") == ["concepts", "click", "light", 0]
    panel.page.keyboard.down("Shift")
    panel.page.mouse.click(*middle(node("pendulum")))
    panel.page.keyboard.up("Shift")
    assert wait_event(panel, "concepts", "edit")[2]["edges"][-1] == ["light", "pendulum"]
    drag(panel, middle(node("pendulum")), middle(node("light")))  # would close a circle: the page itself says so
    assert "would close a circle" in panel.page.locator("[data-source=concepts] .ll-error").inner_text()
    before, count = of(panel, "concepts", "edges"), len(events(panel))
    drag(panel, middle(node("shadow length")), middle(node("shadow position")))  # the family refuses this one
    panel.page.wait_for_function("() => document.querySelector('[data-source=concepts] .ll-error').textContent.includes('Shadows "
                                 "cause nothing')", timeout=60_000)
    assert of(panel, "concepts", "edges") == before and len(events(panel)) == count
    panel.page.locator("[data-cut='light > pendulum']").press("Enter")
    assert ["light", "pendulum"] not in wait_event(panel, "concepts", "edit")[2]["edges"]
    panel.page.locator("[data-source=concepts] .ll-mini").click()
    panel.page.wait_for_timeout(300)
    assert of(panel, "concepts", "edges") == before


def test_a_cell_a_point_and_a_step_are_clicked(panel):
    box = panel.place("[data-source=effect] canvas")
    canvas = panel.page.locator("[data-source=effect] canvas")
    canvas.focus()
    for key in ("ArrowDown", "ArrowRight", "ArrowRight", "Enter"): canvas.press(key)
    assert wait_event(panel, "effect", "click") == ["effect", "click", [1, 2], 0]
    panel.page.mouse.click(box["x"] + 0.4 * box["width"], box["y"] + 0.8 * box["height"])
    assert wait_event(panel, "effect", "click")[2] != [1, 2]
    scatter = panel.page.locator("[data-source=z1] canvas")
    scatter.focus()
    for key in ("ArrowRight", "ArrowRight", "Enter"): scatter.press(key)
    assert wait_event(panel, "z1", "click") == ["z1", "click", 1, 0]
    count = len(events(panel))
    box = panel.place("[data-source=z1] canvas")
    for share in (0.4, 0.45, 0.5, 0.55, 0.6): panel.page.mouse.click(box["x"] + share * box["width"], box["y"] + 0.5 * box["height"])
    panel.page.wait_for_timeout(300)
    heard = events(panel)[count:]
    assert heard and all(source == "z1" and 0 <= value < 60 for source, _, value, _ in heard)
    box = panel.place("[data-source=Distance] .u-over")
    panel.page.mouse.move(box["x"] + 0.5 * box["width"], box["y"] + 20)
    panel.page.mouse.click(box["x"] + 0.5 * box["width"], box["y"] + 20)
    step = wait_event(panel, "Distance", "click")[2]
    assert 0 < step < int(panel.data("step")) and of(panel, "Distance", "chosen") == str(step)


def test_a_range_and_a_tuple_are_set(panel):
    "Two thumbs on one track; where they meet the setting is a number. A tuple is typed with commas, and what does not fit is refused."
    value = lambda name: ast.literal_eval(panel.execute("from latentlab.panels.controls import "
                                                        f"plain\nprint(repr(plain(feeder.run.get('{name}'))))"))
    panel.page.locator(".ll-more summary").first.click()
    low = panel.page.locator("[data-name=price] input[data-end=low]")
    low.focus()
    for _ in range(4): low.press("PageUp")
    panel.page.wait_for_timeout(500)
    found = value("price")
    assert found["high"] == 0.3 and 0.02 < found["low"] < 0.3 and found["scale"] == "log"
    panel.page.locator("[data-name=price] button.ll-value").click()
    field = panel.page.locator("[data-name=price] .ll-typed")
    assert field.input_value().endswith("..0.3")
    field.fill("0.2")
    field.press("Enter")
    panel.page.wait_for_timeout(500)
    assert value("price") == 0.2
    panel.page.locator("[data-name=price] button.ll-value").click()
    field.fill("0.05 .. 0.5")
    field.press("Enter")
    panel.page.wait_for_timeout(500)
    assert (value("price") == {"low": 0.05, "high": 0.5, "scale": "log"}
            and "per example" in panel.page.locator("[data-name=price] button.ll-value").text_content())
    widths = panel.page.locator("[data-name=widths] input")
    assert widths.input_value() == "32, 16"
    widths.fill("64, 32, 8")
    widths.press("Enter")
    panel.page.wait_for_timeout(700)
    assert value("widths") == [64, 32, 8]
    widths.fill("64, x")
    widths.press("Enter")
    panel.page.locator("[data-name=widths] .ll-error").wait_for(state="visible", timeout=60_000)
    assert value("widths") == [64, 32, 8] and widths.input_value() == "64, 32, 8"


def test_a_reload_finds_positions_where_they_were(panel):
    price, edges = of(panel, "price", "value"), of(panel, "concepts", "edges")
    panel.command("docmanager:save")
    panel.page.wait_for_timeout(700)
    panel.page.reload()
    panel.wait_data("Number(d.painted) > 2", 30)
    assert of(panel, "price", "value") == price and of(panel, "tokens", "value") == "5" and of(panel, "concepts", "edges") == edges
    assert panel.errors == []


def test_no_frames_while_nobody_looks(panel):
    """The tab goes to the back, then the panel out of sight: no frame is sent; a fresh one comes within a second when it is
    back. A long cell does not stop the frames.
    """
    sent = lambda: int(panel.execute("print(feeder.view.frame_meta['seq'])"))
    show = lambda state: panel.page.evaluate(
        f"() => {{ Object.defineProperty(document, 'visibilityState', {{ value: '{state}', configurable: true }}); document.dispatchEvent(new Event('visibilitychange')); }}")
    show("hidden")
    before, limit = sent(), time.monotonic() + 120
    panel.page.wait_for_timeout(2500)
    while (now := sent()) != before:  # until the last word of the page is more than three seconds old
        before = now
        assert time.monotonic() < limit, "frames are sent to a page that nobody sees"
        panel.page.wait_for_timeout(2500)
    show("visible")
    painted = int(panel.data("painted"))
    start = time.monotonic()
    panel.page.wait_for_function(f"() => Number(document.querySelector('.ll').dataset.painted) > {painted}", timeout=60_000)
    print(f"a frame {time.monotonic() - start:.2f} s after the tab was in front again")
    assert panel.data("stale") == "false"
    panel.execute("import time\nmarks = [feeder.view.frame_meta['seq']]\nlimit = time.monotonic() + 120\n"
                  "while feeder.view.frame_meta['seq'] < marks[0] + 45 and time.monotonic() < limit: time.sleep(0.1)\n"
                  "marks.append(feeder.view.frame_meta['seq'])")
    first, last = ast.literal_eval(panel.execute("print(marks)"))
    assert last - first >= 45  # of one long cell: the page says every second that it looks, and that reaches the kernel over a subshell


@pytest.mark.slow
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_it_fits(panel, theme):
    "At each width nothing is cut off; a picture of each is kept."
    panel.command("apputils:change-theme", {"theme": f"JupyterLab {theme.title()}"})
    panel.page.wait_for_function(f"() => document.querySelector('.ll').classList.contains('dark') === {str(theme == 'dark').lower()}",
                                 timeout=60_000)
    for width in (1200, 1000, 800):
        panel.shot(f"events-{theme}-{width}", width)
        cut = panel.page.evaluate(CUT)
        assert not cut, f"cut off at {width} px: {cut}"
    assert panel.errors == []


def test_a_press_outlives_a_page_that_moves(panel):
    "What appears above the panel moves it under a pointer at rest: a node that was pressed is clicked, and not what came under the pointer."
    panel.press("[data-source=concepts] [data-node='shadow length']")
    host = "document.querySelector('[data-source=concepts]').style.transform"
    panel.page.evaluate(f"() => {{ {host} = 'translateY(400px)'; }}")
    panel.page.wait_for_timeout(300)  # the browser looks again what lies under the pointer
    panel.page.mouse.up()
    assert wait_event(panel, "concepts", "click") == ["concepts", "click", "shadow length", 0]
    panel.page.evaluate(f"() => {{ {host} = ''; }}")
    panel.page.locator("[data-source=concepts] [data-node='shadow length']").press("Enter")  # no longer the first of a pair


def test_a_press_outlives_a_new_layout(panel):
    "A layout that comes between press and release waits: its elements are new, and the click would be lost with the old ones."
    title = lambda: panel.page.locator("[data-source=concepts] .ll-plothead").inner_text()
    was = title()
    panel.press("[data-source=concepts] [data-node='shadow length']")
    panel.execute("from copy import deepcopy; plan = deepcopy(feeder.view.plan)\nfor one in plan['pictures']:\n"
                  "    if one['kind'] == 'graph': one['title'] = 'Causes'\nfeeder.view.tell(dict(plan=plan))")
    panel.page.wait_for_timeout(700)
    assert title() == was, "it waits"
    panel.page.mouse.up()
    assert wait_event(panel, "concepts", "click") == ["concepts", "click", "shadow length", 0]
    panel.page.wait_for_function("() => document.querySelector('[data-source=concepts] .ll-plothead')?.textContent.includes('Causes')", timeout=60_000)
    assert panel.errors == []
