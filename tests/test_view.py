"Controls and view without a browser: bytes against a slow reference, messages, the vendored library, two threads that write."

import dataclasses
import hashlib
import json
import re
import struct
import subprocess
import threading
from collections import Counter

import numpy as np
import pytest

from latentlab.core.checks import format_number, percent
from latentlab.core.settings import Settings
from latentlab.panels import layout
from latentlab.panels import view as panel_view
from latentlab.panels.controls import controls, keep_to_uint8, pack_curves, pack_images, plain, rank_to_uint8, thin
from latentlab.panels.protocol import JOURNAL_COMMANDS, MAX_BUFFER, Event, Request, event_sources, is_run_id, read_event, read_request
from latentlab.panels.view import MODULES, PNG_MARK, UPLOT_VERSION, View, browser_module, browser_style, image_bytes, lay_out, pack_block, static_text

UPLOT_SHA256 = {"uPlot.iife.min.js": "19c8d4c6ad88929a79f4ae49d6f7161566dfd0ba3d15cc495e974f787eb78f1f",
                "uPlot.min.css": "df630c6a8d6f8eeaff264b50f73ce5b114f646ffd9a0bb74f049b0a00135fa04"}  # Of the npm package uplot 1.6.32
PLAN = {"title": "t", "rows": [{"key": "keep", "label": "kept", "kind": "keep"}]}


def control(name: str, **more: object) -> dict:
    return {"name": name, "label": name, "group": "live", "widget": "slider", "type": "float", "low": 0.0, "high": 1.0,
            "default": 0.5} | more


@pytest.mark.parametrize("name", UPLOT_SHA256)
def test_the_plot_library_is_the_published_one(name):
    assert hashlib.sha256(
        static_text(name).encode()).hexdigest() == UPLOT_SHA256[name], f"{name} must be that of uplot {UPLOT_VERSION}, unmodified"


def test_its_version_and_licence_are_there():
    assert f"(v{UPLOT_VERSION})" in static_text("uPlot.iife.min.js")[:80]
    assert "The MIT License" in static_text("uPlot.LICENSE") and "Leon Sorokin" in static_text("uPlot.LICENSE")


@pytest.mark.parametrize("name", MODULES)
def test_data_never_becomes_markup(name):
    text = "\n".join(line.split("// ")[0] for line in static_text(f"{name}.js").splitlines())
    for danger in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "new Function", "http://", "https://",
                   "import(", "fetch("):
        assert danger not in text


def test_one_module_one_export():
    assert browser_module().count("export default") == 1 and ".uplot" in browser_style()
    assert len(browser_module()) < 250_000  # sent once per panel
    for name in MODULES:  # what is sent has no indentation, so no string may go over two lines
        open_ = [line for line in static_text(f"{name}.js").splitlines() if line.count("`") % 2 and not line.lstrip().startswith("//")]
        assert all('"`"' in line or "/^`" in line for line in open_), (name, open_)


def test_no_module_overwrites_a_function_of_another():
    defined = Counter(name for module in MODULES for name in re.findall(r"^LL\.(\w+) = ", static_text(f"{module}.js"), re.M))
    assert defined["journal"] == 1 and [name for name, times in defined.items() if times > 1] == []


@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 5, 7), (8, 28, 28)])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_ranks_against_counting(shape, dtype):
    logits = np.round(np.random.default_rng(0).normal(size=shape), 1).astype(dtype)  # rounded: many ties
    flat = logits.reshape(shape[0], -1)
    counted = (flat[:, None, :] < flat[:, :, None]).sum(-1) * 256 // flat.shape[-1]
    assert (rank_to_uint8(logits).reshape(shape[0], -1) == counted).all()


def test_ranks_of_negative_zero_and_infinities():
    assert rank_to_uint8(np.array([[[0.0, -0.0], [np.inf, -np.inf]]])).tolist() == [[[64, 64], [192, 0]]]
    assert rank_to_uint8(np.full((1, 3, 3), np.inf)).max() == 0


def test_ranks_do_not_depend_on_the_neighbours_in_the_batch():
    logits = np.random.default_rng(1).normal(size=(4, 6, 6))
    assert (rank_to_uint8(logits)[2] == rank_to_uint8(logits[2:3])[0]).all()
    shuffled = np.random.default_rng(2).permutation(36)
    assert (rank_to_uint8(logits.reshape(4, 36)[:, shuffled].reshape(4, 6, 6)).reshape(4,
                                                                                       36) == rank_to_uint8(logits).reshape(4, 36)[:, shuffled]).all()


@pytest.mark.parametrize("bad", [1.1, -0.1, np.nan, np.inf])
def test_a_keep_that_is_no_share_is_refused(bad):
    with pytest.raises(ValueError, match=r"`keep` must lie in \[0, 1\]"): keep_to_uint8(np.full((1, 2, 2), bad))


def test_all_kept_and_none_kept():
    for value, byte in ((0.0, 0), (1.0, 255)): assert (keep_to_uint8(np.full((2, 3, 4), value)) == byte).all()


@pytest.mark.parametrize("rows", [0, 1, 2, 599, 600, 601, 5003])
def test_thinning_keeps_first_value_order_and_the_newest(rows):
    step = np.arange(rows)
    thinned = thin({"step": step, "loss": np.full(rows, np.nan)}, 600)
    assert len(thinned["step"]) == min(rows, 600) and (np.diff(thinned["step"]) > 0).all() and np.isnan(thinned["loss"]).all()
    if rows: assert thinned["step"][-1] == rows - 1
    assert len(pack_curves({"step": step, "loss": step}).data) == 2 * 4 * min(rows, 600)


@pytest.mark.parametrize("shape", [(8, 2, 4, 4), (8, 4, 4), (1, 4, 2, 2)])
def test_images_of_other_channels_are_refused(shape, unchecked):
    with pytest.raises(ValueError, match="1 or 3"): pack_images(np.zeros(shape))


def test_plain_is_json():
    value = {"a": np.float64(np.inf), 3: (np.int32(1), np.bool_(True)), "c": {"d": None}}
    assert json.loads(json.dumps(plain(value), allow_nan=False)) == {"a": None, "3": [1, True], "c": {"d": None}}


def test_an_empty_settings_class_has_no_controls():
    assert controls(Settings().fields()) == []


STRANGE = [None, 3, "run", [], {}, {"kind": "command"}, {"kind": "set", "name": "x"}, {"kind": "eval", "name": "a"},
           {"kind": "set", "name": ["a"]},
           {"kind": "set", "name": "a", "value": {1}}, {"kind": "event"}, {"kind": "alive"}, {"kind": "command", "name": "set"}]


@pytest.mark.parametrize("content", STRANGE)
def test_other_messages_are_refused_and_do_not_break_the_view(content):
    view, sent, heard = View([control("a")], PLAN), [], []
    view.send = lambda message, buffers=None: sent.append(message)
    view.on_request(heard.append)
    view._handle_custom_msg(content, [])
    assert heard == [] and len(sent) == 1 and sent[0]["kind"] == "refused" and sent[0]["sentence"]


def test_requests_reach_the_one_receiver_and_its_refusal_goes_back():
    view, sent, heard = View([control("a")], PLAN), [], []
    view.send = lambda message, buffers=None: sent.append(message)
    view._handle_custom_msg({"kind": "set", "name": "a", "value": 0.1}, [])  # nobody listens: nothing happens
    view.on_request(heard.append)
    view._handle_custom_msg({"kind": "set", "name": "a", "value": 0.2}, [])
    assert heard == [Request("set", "a", 0.2)] and sent == []

    def refuse(request: Request) -> None: raise ValueError("`a` must be even: got 0.2. Double it.")
    view.on_request(refuse)
    view._handle_custom_msg({"kind": "set", "name": "a", "value": 0.2}, [])
    assert sent == [{"kind": "refused", "name": "a", "sentence": "`a` must be even: got 0.2. Double it."}]
    assert read_request({"kind": "command", "name": "stop"}, []).name == "stop"


def test_two_threads_send_whole_messages():
    "Frames and words from two threads: each message holds its own traits and nothing of the other's."
    view, seen = View([control("a")], PLAN), []
    view._send = lambda message, buffers=None: seen.append(frozenset(message["state"]))
    threads = [threading.Thread(target=lambda: [view.push({"keep": np.full((2, 4, 4), i, np.uint8)}, {"step": i, "values": {}})
                                                for i in range(200)]),
               threading.Thread(target=lambda: [view.tell({"status": {"state": "running", "step": i}}) for i in range(200)])]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
    frames, words = [s for s in seen if "frame_meta" in s], [s for s in seen if "status" in s]
    assert len(frames) == len(words) == 200 and len(seen) == 400
    assert all(s <= {"frame", "frame_meta"} for s in frames) and set(words) == {frozenset({"status"})}


def read_slowly(data: bytes, blocks: list[dict]) -> dict[str, np.ndarray]:
    "Number by number, as the browser's documentation says: low byte first, row after row."
    codes, found = {"uint8": ("<B", 1), "float16": ("<e", 2), "float32": ("<f", 4)}, {}
    for block in blocks:
        code, size = codes[block["dtype"]]
        count = int(np.prod(block["shape"]))
        numbers = [struct.unpack_from(code, data, block["offset"] + size * i)[0] for i in range(count)]
        found[block["key"]] = np.array(numbers).reshape(block["shape"])
    return found


ARRAYS = {"bytes": np.arange(24, dtype=np.uint8).reshape(2, 3, 4), "turned": np.arange(6, dtype=np.uint8).reshape(2, 3).T,
          "yes": np.array([True, False, True]),
          "half": np.array([[0.1, -65504], [np.inf, np.nan]], np.float16),
          "single": np.array([1e-30, 3.25], np.float32), "double": np.linspace(0, 1, 5), "whole": np.array([[-3, 70000]]),
          "one": np.array(2.5), "none": np.zeros((0, 2),
                  np.float16), "big": np.array([1.5, -2.0], ">f4")}


def test_blocks_against_reading_them_number_by_number():
    data, where = lay_out([pack_block(key, array) for key, array in ARRAYS.items()])
    back = read_slowly(data, where)
    assert list(back) == list(ARRAYS) and len(data) == sum(a.size * {"uint8": 1, "float16": 2}.get(b["dtype"], 4)
                                                           for a, b in zip(ARRAYS.values(), where))
    for key, array in ARRAYS.items(): np.testing.assert_array_equal(back[key].astype(np.float32), array.astype(np.float32))
    assert [b["dtype"] for b in where] == ["uint8", "uint8", "uint8", "float16", *["float32"] * 4, "float16", "float32"]


@pytest.mark.parametrize("array", [np.array(["a"]), np.array([1 + 2j]), np.array([None])])
def test_what_is_no_number_is_refused(array):
    with pytest.raises(ValueError, match="`words` must hold numbers: got"): pack_block("words", array)


def shown(view: View) -> dict[str, list]:
    "What the browser draws: arrays at rest, and over them those that moved."
    return {key: array.tolist() for trait in ("held", "frame")
            for key, array in read_slowly(getattr(view, trait), getattr(view, f"{trait}_meta").get("blocks", [])).items()}


def test_whatever_moves_and_rests_the_browser_has_the_last_of_each():
    "Random arrays that stay or change: after every frame the two traits together are exactly that frame."
    view, rng, sizes = View([control("a")], PLAN), np.random.default_rng(0), []
    now = {key: rng.integers(0, 9, 5).astype(np.uint8) for key in "abcd"}
    view._send = lambda message, buffers=None: sizes.append(sum(map(len, buffers or [])))
    for step in range(60):
        now = {key: rng.integers(0, 9, 5).astype(np.uint8) if rng.random() < 0.3 else array for key, array in now.items()}
        if step == 30: now.pop("d")
        view.push(now, {"step": step, "values": {}})
        assert shown(view) == {key: array.tolist() for key, array in now.items()}, step
        assert view.get_state()["frame_meta"]["seq"] == step + 1
    assert len(sizes) == 60


def test_an_array_at_rest_is_sent_twice_and_then_never_again():
    view, sent = View([control("a")], PLAN), []
    view._send = lambda message, buffers=None: sent.append(sum(map(len, buffers or [])))
    image = image_bytes(np.zeros((2, 3, 4, 4)))
    for step in range(4): view.push({"image": image.copy(), "keep": np.full((2, 4, 4), step, np.uint8)}, {"step": step, "values": {}})
    assert sent == [96 + 32, 96 + 32, 32, 32]


def test_other_bytes_in_the_same_places_are_told():
    "Another data set of the same size comes to rest: nothing in the list of places has changed, and yet the browser must read again."
    view, told = View([control("a")], PLAN), []
    view._send = lambda message, buffers=None: told.append({*message["state"], *(path[0] for path in message["buffer_paths"])})
    for step in range(6): view.push({"points": np.full((4, 2), step // 3), "moves": np.array([step])}, {"step": step, "values": {}})
    assert [("held" in message, "held_meta" in message) for message in told] == [(False, False), (True, True), (False, False),
                                                                                 (False, False), (True, True), (False, False)]


def test_other_keys_forget_what_was_held():
    view = View([control("a")], PLAN)
    for _ in range(3): view.push({"z3": np.zeros(4), "kl": np.zeros(3)}, {"step": 1, "values": {}})
    assert view.frame == b"" and list(shown(view)) == ["z3", "kl"]
    view.push({"kl": np.zeros(2)}, {"step": 2, "values": {}})
    assert shown(view) == {"kl": [0, 0]}


def test_the_state_is_all_that_a_reload_needs():
    view = View([control("a")], PLAN)
    view.push({"keep": np.zeros((2, 4, 4), np.uint8)}, {"step": 7, "values": {"a": 1}}, {"step": np.arange(3), "a": np.arange(3)})
    state = view.get_state()
    where = [{"key": "keep", "dtype": "uint8", "shape": [2, 4, 4], "offset": 0}]
    assert (state["frame_meta"] == {"step": 7, "values": {"a": 1}, "seq": 1, "blocks": where} and len(state["frame"]) == 32
            and state["curves_meta"] == {"columns": ["step", "a"]})
    assert state["_esm"] == panel_view.browser_module()


def test_each_picture_of_a_plan_has_its_primitive():
    "The kinds that the notebook documents are those that the browser knows."
    kinds = re.search(r"LL.PICTURES = {(.*)}", static_text("view.js"))[1]
    assert re.findall(r"(\w+): LL\.(\w+)", kinds) == [(kind, kind) for kind in ("field", "scatter", "hist", "bars", "strip", "graph",
                                                                                "matrix", "brush", "slider", "ramp", "lines")]


def test_the_page_knows_the_places_that_a_layout_leaves_out():
    "A layout does not send what is at its default, so the page must have the same one."
    parts = [part for part in vars(layout).values() if isinstance(part, type) and issubclass(part, layout.Part)]
    places = {part.kind: field.default for part in parts for field in dataclasses.fields(part) if field.name == "place"}
    told = dict(re.findall(r'(\w+): "(\w+)"', re.search(r"LL.PLACES = {(.*)}", static_text("view.js"))[1]))
    assert len(places) == 11 and told == {kind: place for kind, place in places.items() if place != "left"}


RUN = "20261121-120544-nem-3fa9c2"
GRANTED = [("save", None, None), ("report", None, None), ("cancel", None, None), ("runs", None, None), ("note", " a <b> \n", "a <b>"),
           ("note", "x" * 4000, "x" * 4000),
           ("note", " " * 5000 + "x", "x"), ("repeat", 2, 2), ("repeat", 100, 100), ("load", RUN, RUN), ("load", "a", "a"),
           ("load", "A.b_c-9", "A.b_c-9"),
           ("load", "a" * 128, "a" * 128)]
NO_SEEDS = [1, 101, 0, -5, True, False, 5.0, 2.5, float("nan"), "5", None]
NO_RUNS = ["", ".", "..", "../a", "a/b", "a\\b", "/a", "a..b", ".a", "-a", "_a", "a b", "a\n", "a\0", "ä", "٣", "a" * 129, 3, True, None]


@pytest.mark.parametrize(("name", "value", "read"), GRANTED)
def test_wishes_to_the_journal(name, value, read):
    assert read_request({"kind": "journal", "name": name, "value": value}, []) == Request("journal", name, read)


@pytest.mark.parametrize("value", ["", " \n\t", "x" * 4001, 3, True, None])
def test_a_note_must_be_a_text(value):
    with pytest.raises(ValueError, match="`value` must be a text of 1 to 4,000 characters: got "):
        read_request({"kind": "journal", "name": "note", "value": value}, [])


@pytest.mark.parametrize("value", NO_SEEDS)
def test_a_repeat_must_have_a_number_of_seeds(value):
    with pytest.raises(ValueError, match="`value` must be a whole number of seeds from 2 to 100: got "):
        read_request({"kind": "journal", "name": "repeat", "value": value}, [])


@pytest.mark.parametrize("value", NO_RUNS)
def test_what_is_loaded_must_be_the_id_of_a_run(value):
    with pytest.raises(ValueError, match="`value` must be the id of a run: got "):
        read_request({"kind": "journal", "name": "load", "value": value}, [])
    assert not is_run_id(value)


@pytest.mark.parametrize("name", ["save", "report", "cancel", "runs"])
@pytest.mark.parametrize("value", ["", "now", 0, False])
def test_other_wishes_carry_nothing(name, value):
    with pytest.raises(ValueError, match=f"`value` must be None: got .*Ask `{name}` of the journal again"):
        read_request({"kind": "journal", "name": name, "value": value}, [])


def test_each_wish_of_the_journal_has_its_button():
    "What the browser may ask is what Python understands."
    text = static_text("journal.js") + static_text("runs.js")
    asked = set(re.findall(r'(?:ask|wish)\("(\w+)"', text))
    assert asked == set(JOURNAL_COMMANDS)
    listed = re.search(r"\[([^]]*)\]\.includes\(name\)", text)[1]
    assert tuple(re.findall(r"\w+", listed)) == JOURNAL_COMMANDS


def test_a_journal_is_told_and_comes_back_with_the_state():
    "One message; plain numbers; a page that is loaded afresh gets it all."
    view, seen = View([control("a")], PLAN), []
    state = view.get_state()
    assert (state["journal"], state["runs"], state["report"], state["report_meta"]) == ({}, [], b"", {})
    view._send = lambda message, buffers=None: seen.append({*message["state"], *(path[0] for path in message["buffer_paths"])})
    view.tell({"journal": {"run": {"id": RUN, "best": {"value": np.float32(0.5)}}},
               "runs": [{"id": RUN, "metrics": {"loss": np.nan}, "steps": np.int64(3)}]})
    view.show_report(PNG_MARK + b"1", {"id": RUN, "step": np.int64(640)})
    assert seen == [{"journal", "runs"}, {"report", "report_meta"}]
    state = view.get_state()
    assert state["journal"]["run"]["best"] == {"value": 0.5} and state["runs"] == [{"id": RUN, "metrics": {"loss": None}, "steps": 3}]
    assert bytes(state["report"]) == PNG_MARK + b"1" and state["report_meta"] == {"id": RUN, "step": 640, "seq": 1}
    view.show_report(PNG_MARK + b"1", {"id": RUN, "step": 640})
    assert view.report_meta["seq"] == 2 and seen[2:] == [{"report_meta"}]  # the bytes are there already


@pytest.mark.parametrize("name", ["report", "report_meta", "frame", "_esm"])
def test_a_report_is_not_told_in_words(name):
    with pytest.raises(ValueError, match=f"`changes` must name what is told in words: got {name}"):
        View([control("a")], PLAN).tell({name: {}})


@pytest.mark.parametrize(("png", "meta", "match"), [(b"", {"id": RUN}, "`png` must be a PNG: got 0 bytes"),
                                                    (b"GIF89a", {"id": RUN}, "`png` must be a PNG: got 6 bytes"),
                                                    (PNG_MARK, {}, "`meta` must hold the id of a run: got None"),
                                                    (PNG_MARK, {"id": "../a"}, "got '../a'. It names the file")])
def test_a_report_that_is_none_is_refused(png, meta, match):
    view = View([control("a")], PLAN)
    with pytest.raises(ValueError, match=match): view.show_report(png, meta)
    assert view.report == b"" and view.report_meta == {}


PICTURES = [{"kind": "scatter", "clicks": True, "panels": [{"key": "z1"}]}, {"kind": "scatter", "panels": [{"key": "z2"}]},
            {"kind": "strip", "key": "walk", "scrub": True},
            {"kind": "strip", "key": "fixed"}, {"kind": "matrix", "key": "effect"}, {"kind": "brush", "key": "paint", "image": "image"},
            {"kind": "graph", "key": "dag", "nodes": [{"name": "a"}, {"name": "b"}, {"name": "c"}], "edges": [["a", "b"]],
             "editable": True},
            {"kind": "ramp", "key": "warmup", "title": "KL", "corner": 1, "high": 100.0},
            {"kind": "graph", "key": "shown", "nodes": [{"name": "a"}]}, {"kind": "slider", "name": "price", "low": 1e-3, "high": 1.0,
                                                                          "scale": "log"}]
ANSWERING = {"pictures": PICTURES, "plots": [{"kind": "curves", "title": "Loss", "clicks": True, "terms": []},
                                             {"kind": "path", "title": "Path"}]}
SHAPES = {"z1": (50, 2), "z2": (50, 2), "walk": (3, 7, 8, 8, 1), "fixed": (7, 8, 8, 1), "effect": (3, 4), "image": (2, 6, 5, 3)}
EDITED = {"nodes": ["a", "b", "c"], "edges": [["a", "b"], ["b", "c"]]}
DONE = [("z1", "click", 49), ("walk", "scrub", 6), ("walk", "click", 0), ("fixed", "click", 6), ("effect", "click", [2, 3]),
        ("dag", "click", "c"), ("dag", "edit", EDITED),
        ("shown", "click", "a"), ("price", "slide", 0.5), ("warmup", "slide", 40), ("Loss", "click", 12_000)]


@pytest.mark.parametrize(("source", "kind", "value"), DONE)
def test_events_that_a_layout_has(source, kind, value):
    assert read_event({"source": source, "type": kind, "value": value}, [], ANSWERING, SHAPES) == Event(source, kind, value)


def test_a_stroke_is_the_bytes_of_its_image():
    painted = bytes(range(30))
    assert read_event({"source": "paint", "type": "paint", "value": 1}, [memoryview(painted)], ANSWERING,
                      SHAPES) == Event("paint", "paint", 1, painted)


OTHER = [("z2", "click", 0, "`source` must be "
                            "one of z1, walk"), ("nobody", "click", 0, "`source` must be"), (None, "click", 0, "`source` must be"),
         (["z1"], "click", 0, "`source` must be"),
         ("Path", "click", 0, "`source` must be"), ("x" * 5000, "click", 0, "got 5000 characters"),
         ("z1", "paint", 0, "`type` must be click for a scatter"), ("z1", ["click"], 0, "`type` must be"),
         ("fixed", "scrub", 0, "`type` must be click for a strip"), ("shown", "edit", EDITED, "`type` must be click for a graph"),
         ("z1", "click", 50, "index from 0 to 49: got 50"),
         ("z1", "click", -1, "index from 0 to 49"), ("z1", "click", True, "index from 0 to 49"), ("z1", "click", 1.0, "index from 0 to 49"),
         ("z1", "click", None, "index from 0 to 49"),
         ("walk", "scrub", 7, "index from 0 to 6"), ("effect", "click", [3, 0], "row below 3 and a column below 4"),
         ("effect", "click", [0], "row below 3"), ("effect", "click", 0, "row below 3"),
         ("dag", "click", "d", "one of a, b, c"), ("dag", "click", ["a"], "one of a, b, c"),
         ("price", "slide", 0.0, "number from 0.001 to 1"), ("warmup", "slide", 101, "a whole number from 0 to 100"),
         ("warmup", "slide", 0.5, "a whole number"), ("warmup", "click", 1, "`type` must be slide"),
         ("price", "slide", float("nan"), "number from 0.001"),
         ("price", "slide", float("inf"), "number from 0.001"), ("price", "slide", True, "number from 0.001"),
         ("price", "slide", "0.5", "number from 0.001"), ("Loss", "click", -1, "a step"),
         ("Loss", "click", 2.5, "a step"), ("dag", "edit", {"nodes": ["a", "b"], "edges": []}, "the nodes a, b, c"),
         ("dag", "edit", [], "the nodes a, b, c"),
         ("dag", "edit", {**EDITED, "edges": [["a", "a"]]}, "arrows between two"), ("dag", "edit", {**EDITED, "edges": [["a", "b"]] * 2},
                                                                                    "each once"),
         ("dag", "edit", {**EDITED, "edges": [["a", ["b"]]]}, "arrows between two"),
         ("dag", "edit", {**EDITED, "edges": [["a", "b"], ["b", "c"], ["c", "a"]]}, "no circle"),
         ("dag", "edit", {**EDITED, "edges": [["a", "b"]] * 5000}, "at most 16,384 characters"),
         ("paint", "paint", 2, "index from 0 to 1: got 2")]


@pytest.mark.parametrize(("source", "kind", "value", "match"), OTHER)
def test_events_that_a_layout_does_not_have(source, kind, value, match):
    with pytest.raises(ValueError, match=match): read_event({"source": source, "type": kind, "value": value}, [], ANSWERING, SHAPES)


@pytest.mark.parametrize(("source", "value", "sizes", "match"), [
    ("paint", 0, [], "`buffer` must be 30 bytes, one a "
                     "pixel: got none"), ("paint", 0, [29], "got 29 bytes"), ("paint", 0, [30, 30], "got 30 bytes, 30 bytes"),
    ("paint", 0, [MAX_BUFFER + 1], "at most 1,048,576 bytes: got 1,048,577"), ("z1", 0, [1], "`buffer` must be left out: got 1 bytes")])
def test_bytes_of_another_size_are_refused(source, value, sizes, match):
    with pytest.raises(ValueError, match=match):
        read_event({"source": source, "type": "paint" if source == "paint" else "click", "value": value}, [bytes(size) for size in sizes],
                   ANSWERING, SHAPES)


def test_before_the_first_frame_no_index_is_right():
    for source, kind in (("z1", "click"), ("walk", "scrub"), ("effect", "click"), ("paint", "paint")):
        with pytest.raises(ValueError, match="sent after the first frame"):
            read_event({"source": source, "type": kind, "value": 0}, [], ANSWERING, {})
    assert read_event({"source": "price", "type": "slide", "value": 1}, [], ANSWERING, {}).value == 1.0


def test_a_bad_event_is_refused_by_its_source_and_breaks_nothing():
    view, sent, heard = View([], ANSWERING), [], []
    view.send = lambda message, buffers=None: sent.append(message)
    view.on_request(heard.append)
    view.push({key: np.zeros(shape, np.uint8) for key, shape in SHAPES.items()}, {"step": 0, "values": {}})
    for source, kind, value, _ in OTHER: view._handle_custom_msg({"kind": "event", "source": source, "type": kind, "value": value}, [])
    assert heard == [] and len(sent) == len(OTHER) and all(message["kind"] == "refused" and message["sentence"] for message in sent)
    assert [message["name"] for message in sent if message["name"] in event_sources(
        ANSWERING)] == [source for source, *_ in OTHER if isinstance(source, str) and source in event_sources(ANSWERING)]
    for source, kind, value in DONE: view._handle_custom_msg({"kind": "event", "source": source, "type": kind, "value": value}, [])
    assert [(event.source, event.type, event.value) for event in heard] == DONE
    assert view.positions == {"walk": 6, "dag": EDITED, "price": 0.5, "warmup": 40}


def test_what_the_receiver_refuses_is_not_remembered():
    view, sent = View([], ANSWERING), []
    view.send = lambda message, buffers=None: sent.append(message)
    view.on_request(lambda event: None)
    slide = lambda value: view._handle_custom_msg({"kind": "event", "source": "price", "type": "slide", "value": value}, [])
    slide(0.25)

    def refuse(event: Event) -> None: raise ValueError("`price` must wait: got 0.5. Try later.")
    view.on_request(refuse)
    slide(0.5)
    assert (view.positions == {"price": 0.25}
            and sent == [{"kind": "refused", "name": "price", "sentence": "`price` must wait: got 0.5. Try later."}])
    view.refuse("price", "too late")  # it was refused already: what stood before stays
    assert view.positions == {"price": 0.25}


def test_a_panel_is_seen_while_one_page_says_so():
    view, now = View(), 100.0
    assert not view.seen(now)
    for at, visible, seen in ((0.0, True, True), (2.9, False, True), (3.1, False, False), (4.0, True, True), (6.9, True, True),
                              (9.8, False, True), (10.0, False, False)):
        view._sight.report({"visible": visible}, now + at)
        assert view.seen(now + at) is seen, at


def test_a_reload_gets_positions_and_a_new_layout_drops_those_it_lacks():
    view = View([], ANSWERING)
    view.on_request(lambda event: None)
    view.send = lambda message, buffers=None: None
    view._handle_custom_msg({"kind": "event", "source": "price", "type": "slide", "value": 0.5}, [])
    view._handle_custom_msg({"kind": "event", "source": "dag", "type": "edit", "value": EDITED}, [])
    assert view.get_state()["positions"] == {"price": 0.5, "dag": EDITED}
    view.tell({"plan": {**ANSWERING, "title": "rebuilt"}})
    assert view.positions == {"price": 0.5}  # the new layout brings the arrows of the new model
    view.tell({"plan": {"pictures": [{"kind": "slider", "name": "price", "low": 0.6, "high": 1.0}]}})
    assert view.positions == {}


def test_the_page_writes_numbers_as_python_does():
    "One formatter, twice: the page's function, run by the browser driver's own node, against core.checks.format_number."
    from playwright._impl._driver import compute_driver_executable

    rng = np.random.default_rng(0)
    numbers = [2.09e-19, 0.0, -0.0, 1.0, -3.0, 0.25, 1234.5, 12180.0, 999999.9, 1e6 + 0.5, 3.2e7, 1e-3, 9.996e-4, -1.5e-4, 0.00671, 99.95, 1e300, 0.0004, 0.997, 0.99996, 0.9999999]
    numbers += (rng.normal(size=300) * 10.0 ** rng.uniform(-20, 12, 300)).tolist()
    script = static_text("util.js") + f"\nconsole.log(JSON.stringify({json.dumps(numbers)}.map((v) => [LL.number(v), LL.number(v, 2), LL.percent(v)])))"
    script += "\nconsole.log([0, 0.001, 0.0031, 0.37, 0.999].map(LL.kept).join())"
    node = compute_driver_executable()
    said = subprocess.run([str(node[0] if isinstance(node, tuple) else node), "-e", script], capture_output=True, text=True, timeout=60, check=True)
    wanted = [[format_number(v), format_number(v, 2), percent(v)] for v in numbers]
    said, kept = said.stdout.splitlines()
    assert kept == "< 0.2 %,< 0.2 %,0.31 %,37 %,> 99.8 %", "a mask of 255 levels says no more than it knows"
    assert [(v, got, want) for v, got, want in zip(numbers, json.loads(said), wanted) if got != want] == []
    assert format_number(2.09e-19) == "2.09e-19" and all(text != "0" for v, (text, *_) in zip(numbers, wanted) if v)
