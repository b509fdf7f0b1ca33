"Controls and view without a browser: bytes against a slow reference, messages, the vendored library, two threads that write."

import hashlib
import re
import struct
import threading
from collections import Counter

import numpy as np
import pytest

from latentlab.core.settings import Settings
from latentlab.panels import view as panel_view
from latentlab.panels.controls import controls, keep_to_uint8, pack_curves, pack_images, plain, rank_to_uint8, thin, widget_of
from latentlab.panels.view import (
    JOURNAL_COMMANDS,
    MODULES,
    PNG_MARK,
    UPLOT_VERSION,
    LabView,
    Request,
    browser_module,
    browser_style,
    image_bytes,
    is_run_id,
    lay_out,
    pack_block,
    read_request,
    static_text,
)

UPLOT_SHA256 = {"uPlot.iife.min.js": "19c8d4c6ad88929a79f4ae49d6f7161566dfd0ba3d15cc495e974f787eb78f1f",
                "uPlot.min.css": "df630c6a8d6f8eeaff264b50f73ce5b114f646ffd9a0bb74f049b0a00135fa04"}  # Of the npm package uplot 1.6.32
PLAN = {"title": "t", "rows": [{"key": "keep", "label": "kept", "kind": "keep"}]}


def control(name: str, **more: object) -> dict:
    return {"name": name, "label": name, "group": "live", "widget": "slider", "type": "float", "low": 0.0, "high": 1.0, "default": 0.5} | more


@pytest.mark.parametrize("name", UPLOT_SHA256)
def test_the_plot_library_is_the_published_one(name):
    assert hashlib.sha256(static_text(name).encode()).hexdigest() == UPLOT_SHA256[name], f"{name} must be that of uplot {UPLOT_VERSION}, unmodified"


def test_its_version_and_licence_are_there():
    assert f"(v{UPLOT_VERSION})" in static_text("uPlot.iife.min.js")[:80]
    assert "The MIT License" in static_text("uPlot.LICENSE") and "Leon Sorokin" in static_text("uPlot.LICENSE")


@pytest.mark.parametrize("name", MODULES)
def test_data_never_becomes_markup(name):
    text = "\n".join(line.split("// ")[0] for line in static_text(f"{name}.js").splitlines())
    for danger in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "new Function", "http://", "https://", "import(", "fetch("):
        assert danger not in text


def test_one_module_one_export():
    assert browser_module().count("export default") == 1 and ".uplot" in browser_style()
    assert len(browser_module()) < 170_000  # sent once per panel


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
    assert (rank_to_uint8(logits.reshape(4, 36)[:, shuffled].reshape(4, 6, 6)).reshape(4, 36) == rank_to_uint8(logits).reshape(4, 36)[:, shuffled]).all()


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
    import json
    value = {"a": np.float64(np.inf), 3: (np.int32(1), np.bool_(True)), "c": {"d": None}}
    assert json.loads(json.dumps(plain(value), allow_nan=False)) == {"a": None, "3": [1, True], "c": {"d": None}}


def test_an_empty_settings_class_has_no_controls():
    assert controls(Settings().fields()) == []
    assert callable(widget_of)


STRANGE = [None, 3, "run", [], {}, {"kind": "command"}, {"kind": "set", "name": "x"}, {"kind": "eval", "name": "a"}, {"kind": "set", "name": ["a"]},
           {"kind": "set", "name": "a", "value": {}}, {"kind": "command", "name": "set"}]


@pytest.mark.parametrize("content", STRANGE)
def test_other_messages_are_refused_and_do_not_break_the_view(content):
    view, sent, heard = LabView([control("a")], PLAN), [], []
    view.send = lambda message, buffers=None: sent.append(message)
    view.on_request(heard.append)
    view._handle_custom_msg(content, [])
    assert heard == [] and len(sent) == 1 and sent[0]["kind"] == "refused" and sent[0]["sentence"]


def test_requests_reach_the_one_receiver_and_its_refusal_goes_back():
    view, sent, heard = LabView([control("a")], PLAN), [], []
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
    view, seen = LabView([control("a")], PLAN), []
    view._send = lambda message, buffers=None: seen.append(frozenset(message["state"]))
    threads = [threading.Thread(target=lambda: [view.push({"keep": np.full((2, 4, 4), i, np.uint8)}, {"step": i, "values": {}}) for i in range(200)]),
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


ARRAYS = {"bytes": np.arange(24, dtype=np.uint8).reshape(2, 3, 4), "turned": np.arange(6, dtype=np.uint8).reshape(2, 3).T, "yes": np.array([True, False, True]),
          "half": np.array([[0.1, -65504], [np.inf, np.nan]], np.float16),
          "single": np.array([1e-30, 3.25], np.float32), "double": np.linspace(0, 1, 5), "whole": np.array([[-3, 70000]]), "one": np.array(2.5), "none": np.zeros((0, 2),
                  np.float16), "big": np.array([1.5, -2.0], ">f4")}


def test_blocks_against_reading_them_number_by_number():
    data, where = lay_out([pack_block(key, array) for key, array in ARRAYS.items()])
    back = read_slowly(data, where)
    assert list(back) == list(ARRAYS) and len(data) == sum(a.size * {"uint8": 1, "float16": 2}.get(b["dtype"], 4) for a, b in zip(ARRAYS.values(), where))
    for key, array in ARRAYS.items(): np.testing.assert_array_equal(back[key].astype(np.float32), array.astype(np.float32))
    assert [b["dtype"] for b in where] == ["uint8", "uint8", "uint8", "float16", *["float32"] * 4, "float16", "float32"]


@pytest.mark.parametrize("array", [np.array(["a"]), np.array([1 + 2j]), np.array([None])])
def test_what_is_no_number_is_refused(array):
    with pytest.raises(ValueError, match="`words` must hold numbers: got"): pack_block("words", array)


def shown(view: LabView) -> dict[str, list]:
    "What the browser draws: arrays at rest, and over them those that moved."
    return {key: array.tolist() for trait in ("held", "frame") for key, array in read_slowly(getattr(view, trait), getattr(view, f"{trait}_meta").get("blocks", [])).items()}


def test_whatever_moves_and_rests_the_browser_has_the_last_of_each():
    "Random arrays that stay or change: after every frame the two traits together are exactly that frame."
    view, rng, sizes = LabView([control("a")], PLAN), np.random.default_rng(0), []
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
    view, sent = LabView([control("a")], PLAN), []
    view._send = lambda message, buffers=None: sent.append(sum(map(len, buffers or [])))
    image = image_bytes(np.zeros((2, 3, 4, 4)))
    for step in range(4): view.push({"image": image.copy(), "keep": np.full((2, 4, 4), step, np.uint8)}, {"step": step, "values": {}})
    assert sent == [96 + 32, 96 + 32, 32, 32]


def test_other_bytes_in_the_same_places_are_told():
    "Another data set of the same size comes to rest: nothing in the list of places has changed, and yet the browser must read again."
    view, told = LabView([control("a")], PLAN), []
    view._send = lambda message, buffers=None: told.append({*message["state"], *(path[0] for path in message["buffer_paths"])})
    for step in range(6): view.push({"points": np.full((4, 2), step // 3), "moves": np.array([step])}, {"step": step, "values": {}})
    assert [("held" in message, "held_meta" in message) for message in told] == [(False, False), (True, True), (False, False), (False, False), (True, True), (False, False)]


def test_other_keys_forget_what_was_held():
    view = LabView([control("a")], PLAN)
    for _ in range(3): view.push({"z3": np.zeros(4), "kl": np.zeros(3)}, {"step": 1, "values": {}})
    assert view.frame == b"" and list(shown(view)) == ["z3", "kl"]
    view.push({"kl": np.zeros(2)}, {"step": 2, "values": {}})
    assert shown(view) == {"kl": [0, 0]}


def test_the_state_is_all_that_a_reload_needs():
    view = LabView([control("a")], PLAN)
    view.push({"keep": np.zeros((2, 4, 4), np.uint8)}, {"step": 7, "values": {"a": 1}}, {"step": np.arange(3), "a": np.arange(3)})
    state = view.get_state()
    where = [{"key": "keep", "dtype": "uint8", "shape": [2, 4, 4], "offset": 0}]
    assert state["frame_meta"] == {"step": 7, "values": {"a": 1}, "seq": 1, "blocks": where} and len(state["frame"]) == 32 and state["curves_meta"] == {"columns": ["step", "a"]}
    assert state["_esm"] == panel_view.browser_module()


def test_each_picture_of_a_plan_has_its_primitive():
    "The kinds that the notebook documents are those that the browser knows."
    kinds = re.search(r"LL.PICTURES = {(.*)}", static_text("scores.js"))[1]
    assert re.findall(r"(\w+): LL\.(\w+)", kinds) == [(kind, kind) for kind in ("field", "scatter", "hist", "bars")]


RUN = "20261121-120544-nem-3fa9c2"
GRANTED = [("save", None, None), ("card", None, None), ("cancel", None, None), ("runs", None, None), ("note", " a <b> \n", "a <b>"), ("note", "x" * 4000, "x" * 4000),
           ("note", " " * 5000 + "x", "x"), ("repeat", 2, 2), ("repeat", 100, 100), ("load", RUN, RUN), ("load", "a", "a"), ("load", "A.b_c-9", "A.b_c-9"),
           ("load", "a" * 128, "a" * 128)]
NO_SEEDS = [1, 101, 0, -5, True, False, 5.0, 2.5, float("nan"), "5", None]
NO_RUNS = ["", ".", "..", "../a", "a/b", "a\\b", "/a", "a..b", ".a", "-a", "_a", "a b", "a\n", "a\0", "ä", "٣", "a" * 129, 3, True, None]


@pytest.mark.parametrize(("name", "value", "read"), GRANTED)
def test_wishes_to_the_journal(name, value, read):
    assert read_request({"kind": "journal", "name": name, "value": value}, []) == Request("journal", name, read)


@pytest.mark.parametrize("value", ["", " \n\t", "x" * 4001, 3, True, None])
def test_a_note_must_be_a_text(value):
    with pytest.raises(ValueError, match="`value` must be a text of 1 to 4,000 characters: got "): read_request({"kind": "journal", "name": "note", "value": value}, [])


@pytest.mark.parametrize("value", NO_SEEDS)
def test_a_repeat_must_have_a_number_of_seeds(value):
    with pytest.raises(ValueError, match="`value` must be a whole number of seeds from 2 to 100: got "): read_request({"kind": "journal", "name": "repeat", "value": value}, [])


@pytest.mark.parametrize("value", NO_RUNS)
def test_what_is_loaded_must_be_the_id_of_a_run(value):
    with pytest.raises(ValueError, match="`value` must be the id of a run: got "): read_request({"kind": "journal", "name": "load", "value": value}, [])
    assert not is_run_id(value)


@pytest.mark.parametrize("name", ["save", "card", "cancel", "runs"])
@pytest.mark.parametrize("value", ["", "now", 0, False])
def test_other_wishes_carry_nothing(name, value):
    with pytest.raises(ValueError, match=f"`value` must be None: got .*Ask `{name}` of the journal again"): read_request({"kind": "journal", "name": name, "value": value}, [])


def test_each_wish_of_the_journal_has_its_button():
    "What the browser may ask is what Python understands."
    text = static_text("journal.js") + static_text("runs.js")
    asked = set(re.findall(r'(?:ask|wish)\("(\w+)"', text))
    assert asked == set(JOURNAL_COMMANDS)
    listed = re.search(r"\[([^]]*)\]\.includes\(name\)", text)[1]
    assert tuple(re.findall(r"\w+", listed)) == JOURNAL_COMMANDS


def test_a_journal_is_told_and_comes_back_with_the_state():
    "One message; plain numbers; a page that is loaded afresh gets it all."
    view, seen = LabView([control("a")], PLAN), []
    state = view.get_state()
    assert (state["journal"], state["runs"], state["card"], state["card_meta"]) == ({}, [], b"", {})
    view._send = lambda message, buffers=None: seen.append({*message["state"], *(path[0] for path in message["buffer_paths"])})
    view.tell({"journal": {"run": {"id": RUN, "best": {"value": np.float32(0.5)}}}, "runs": [{"id": RUN, "metrics": {"loss": np.nan}, "steps": np.int64(3)}]})
    view.show_card(PNG_MARK + b"1", {"id": RUN, "step": np.int64(640)})
    assert seen == [{"journal", "runs"}, {"card", "card_meta"}]
    state = view.get_state()
    assert state["journal"]["run"]["best"] == {"value": 0.5} and state["runs"] == [{"id": RUN, "metrics": {"loss": None}, "steps": 3}]
    assert bytes(state["card"]) == PNG_MARK + b"1" and state["card_meta"] == {"id": RUN, "step": 640, "seq": 1}
    view.show_card(PNG_MARK + b"1", {"id": RUN, "step": 640})
    assert view.card_meta["seq"] == 2 and seen[2:] == [{"card_meta"}]  # the bytes are there already


@pytest.mark.parametrize("name", ["card", "card_meta", "frame", "_esm"])
def test_a_card_is_not_told_in_words(name):
    with pytest.raises(ValueError, match=f"`changes` must name what is told in words: got {name}"): LabView([control("a")], PLAN).tell({name: {}})


@pytest.mark.parametrize(("png", "meta", "match"), [(b"", {"id": RUN}, "`png` must be a PNG: got 0 bytes"), (b"GIF89a", {"id": RUN}, "`png` must be a PNG: got 6 bytes"),
                                                    (PNG_MARK, {}, "`meta` must hold the id of a run: got None"), (PNG_MARK, {"id": "../a"}, "got '../a'. It names the file")])
def test_a_card_that_is_none_is_refused(png, meta, match):
    view = LabView([control("a")], PLAN)
    with pytest.raises(ValueError, match=match): view.show_card(png, meta)
    assert view.card == b"" and view.card_meta == {}
