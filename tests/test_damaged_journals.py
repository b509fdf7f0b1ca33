"""A journal with one run whose files hold anything: that run says `damaged` or is read, with a reason and its name; the other runs are
listed, drawn and compared, and new runs start.
"""
import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from latentlab.core.registry import find_family
from latentlab.core.settings import from_json, to_json
from latentlab.facade import make_run, restore
from latentlab.journal.files import sweep_litter
from latentlab.journal.journal import Journal
from latentlab.journal.writer import compare_with_earlier, has_checkpoint, runs_with
from latentlab.panels.run_browser import run_row
from latentlab.train.example import MeanRun
from latentlab.train.trainer import Trainer

RUN = MeanRun().replace(steps=4, check_every=2, checkpoint_every=2, record_every=1)
HUGE = "9" * 400
ODD = [HUGE, "-" + HUGE, "9" * 5000, "9" * 18, "-1", "1e999", "NaN", "-Infinity", "null", "true", '"words"', '"\\ud800"', '"\\u0000"', "[]", "{}",
       "[" * 60 + "]" * 60, "[" * 5000 + "]" * 5000, '{"class": null}', '{"id": 5, "changes": [1]}', "[[[1]]]", '"' + "x" * 10**6 + '"', "1.5",
       '{"": {"class": 1}}', '["a", "b", "c"]', '{"loss": ' + HUGE + "}", "0", '"<script>"']
FILES = ("run.json", "metrics.jsonl", "checks.jsonl", "notes.jsonl", "heartbeat", "figures/last.npz", "verdicts.json", "code.diff")


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    "A journal of three runs: one done, one done with a note, one that was changed on the way."
    root = tmp_path_factory.mktemp("sound") / "runs"
    for seed in range(3):
        trainer = Trainer(RUN.replace(seed=seed), journal=root)
        if seed == 2: trainer.start(2).wait().set(pull=0.5)
        trainer.start(4 - trainer.step_count).wait().stop()
        Journal(root).note(trainer.recorder.id, "seen")
    return root


def replace_value(text: str, draw: random.Random) -> str:
    "JSON with one value, at any depth, replaced by an odd one."
    mark = "@@here@@"
    whole = json.loads(text)
    place = whole
    while True:
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        if not keys: return draw.choice(ODD)
        key = draw.choice(keys)
        if isinstance(place[key], (dict, list)) and place[key] and draw.random() < 0.7: place = place[key]
        else: break
    place[key] = mark
    return json.dumps(whole).replace(f'"{mark}"', draw.choice(ODD))


def edit(path: Path, draw: random.Random) -> None:
    "One value of a file of JSON or of JSON lines."
    lines = path.read_text().split("\n") if path.suffix == ".jsonl" else [path.read_text()]
    at = draw.randrange(max(1, len(lines) - 1))
    lines[at] = replace_value(lines[at], draw) if lines[at].strip() else draw.choice(ODD)
    path.write_text("\n".join(lines))


def scratch(path: Path, draw: random.Random) -> None:
    "Bytes: cut, flipped, doubled, of another encoding, or something else altogether."
    data, k = bytearray(path.read_bytes()), draw.randrange(7)
    if k == 0: data = data[:draw.randrange(len(data) + 1)]
    elif k == 1 and data: data[draw.randrange(len(data))] ^= draw.randrange(1, 256)
    elif k == 2: data = data + data
    elif k == 3: data = bytearray(draw.randbytes(draw.randrange(3000)))
    elif k == 4: data = bytearray(bytes(data).decode("utf-8", "replace").encode("utf-16"))
    elif k == 5: data = bytearray(b"\xef\xbb\xbf") + data
    else: data = bytearray(bytes(data).replace(b"\n", draw.choice([b"\0", b"\r", b"", b"\n\n"])))
    path.write_bytes(bytes(data))


def swap(path: Path, draw: random.Random) -> None:
    "Something else in the place of a file."
    path.unlink(missing_ok=True)
    k = draw.randrange(7)
    if k == 0: (path / "inner").mkdir(parents=True)
    elif k == 1: path.symlink_to(path.name)
    elif k == 2: path.symlink_to("nothing-there")
    elif k == 3: os.mkfifo(path)
    elif k == 4: path.symlink_to("/dev/zero")
    elif k == 5:
        path.touch()
        os.truncate(path, 2**40)


def damage(folder: Path, draw: random.Random) -> None:
    "One to three damages of one run."
    for _ in range(draw.choice((1, 1, 1, 2, 3))):
        path = folder / draw.choice(FILES + FILES[:3])
        if not path.is_file() or path.is_symlink(): continue
        if path.stat().st_size >= 2**30: continue
        if path.suffix in (".json", ".jsonl") and path.stat().st_size and draw.random() < 0.6:
            try: edit(path, draw)
            except (ValueError, RecursionError): scratch(path, draw)  # damaged already
        else: draw.choice((scratch, swap))(path, draw)
    if draw.random() < 0.05 and (folder / "checkpoints").is_dir():
        shutil.rmtree(folder / "checkpoints")
        draw.choice((lambda p: p.touch(), lambda p: p.symlink_to("checkpoints"), Path.mkdir))(folder / "checkpoints")


def named(call: Callable, id: str) -> None:
    "A call on the damaged run: it works, or a ValueError says so."
    try: call()
    except ValueError as error: assert type(error) is ValueError and ("must" in str(error)), repr(error)


def look(root: Path, id: str, others: list[dict]) -> None:
    "Everything that lists, draws and compares, beside a damaged run."
    journal = Journal(root)
    rows = journal.rows()
    assert [row for row in rows if row["id"] != id] == others
    mine = [row for row in rows if row["id"] == id]
    if mine and mine[0]["state"] == "damaged": assert mine[0]["error"], "a reason"
    json.dumps(rows).encode()
    frame = journal.runs()
    assert len(frame) == len(rows) and frame.to_string()
    said = compare_with_earlier(RUN, [row for row in rows if row["settings"]], "loss")
    json.dumps(said)
    assert said["previous"]
    runs_with(journal, RUN)
    for row in rows: json.dumps(run_row(row, RUN, {"loss": "training"}, current=False, able=has_checkpoint(root / row["id"])))
    assert len(journal.group("loss")) >= 1
    for call in (lambda: journal.run(id).metrics(), lambda: journal.run(id).checks(), lambda: journal.run(id).notes(),
                 lambda: journal.run(id).settings(MeanRun), lambda: journal.run(id).picture(), lambda: journal.run(id).picture_step(),
                 lambda: journal.run(id).checkpoint(), lambda: journal.diff(id, others[0]["id"]), lambda: journal.diff(others[0]["id"], id)):
        named(call, id)


def try_many(sound: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int, seed: int) -> int:
    "Damages, one after the other, on a journal that is made whole again; how many were called damaged."
    monkeypatch.setenv("LATENTLAB_CACHE", str(tmp_path / "cache"))
    root, draw, damaged = tmp_path / "runs", random.Random(seed), 0
    shutil.copytree(sound, root)
    ids = [row["id"] for row in Journal(root).rows()]
    everyone = {row["id"]: row for row in Journal(root).rows()}
    for number in range(count):
        id = draw.choice(ids)
        damage(root / id, draw)
        try: look(root, id, [everyone[other] for other in ids if other != id])
        except BaseException as error: raise AssertionError(f"damage {number} of seed {seed}, of {id}: {error!r}") from error
        damaged += any(row["state"] == "damaged" for row in Journal(root).rows())
        if number % 50 == 0:
            journal = Journal(root)
            journal.begin(RUN).close()
            fresh = next(row["id"] for row in journal.rows() if row["id"] not in ids)
            assert journal.report(next(other for other in ids if other != id)).html
            shutil.rmtree(root / fresh)
        shutil.rmtree(root / id)
        shutil.copytree(sound / id, root / id)
    return damaged


def test_12_damaged_journals(sound, tmp_path, monkeypatch, unchecked) -> None:
    assert try_many(sound, tmp_path, monkeypatch, 12, 0) >= 2


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 6))
def test_200_damaged_journals(sound, tmp_path, monkeypatch, unchecked, seed) -> None:
    assert try_many(sound, tmp_path, monkeypatch, 200, seed) >= 40


FAMILY_RUNS = {"csvae": {"side": 16, "features": 16, "width": 6, "images": 64, "batch": 8},  # a graph, tuples
               "vle": {"side": 16, "levels": 3, "width": 4, "tokens": 2, "images": 80, "batch": 8},  # settings within settings
               "nem": {"images": 64, "batch": 8, "layers": 2, "width": 4}}
GRAPHS = ['{"nodes": ["x", "y"], "edges": [["x", "y"], ["y", "x"]]}', '{"nodes": ["x", "x"], "edges": []}', '{"nodes": [], "edges": []}', "[]", '"x -> y"',
          '{"nodes": ["x"], "edges": [["x", "z"]]}', '{"nodes": [1, null], "edges": [[]]}', '{"nodes": {"x": 1}, "edges": "xy"}', '{"nodes": ["x"]}',
          '{"nodes": ["\\ud800", "<b>"], "edges": []}', '{"nodes": ' + "[" * 60 + "]" * 60 + ', "edges": 0}', '{"nodes": ["x"], "edges": [], "more": 1}',
          json.dumps({"nodes": [f"n{i}" for i in range(2000)], "edges": [[f"n{i}", f"n{i + 1}"] for i in range(1999)]}),
          json.dumps({"nodes": [f"n{i}" for i in range(60)], "edges": [[f"n{i}", f"n{j}"] for i in range(60) for j in range(i + 1, 60)]}), HUGE, "null"]


@pytest.fixture(scope="module")
def families_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    "A journal with a run of each of some families, whose settings hold more than numbers."
    root = tmp_path_factory.mktemp("families") / "runs"
    for name, settings in FAMILY_RUNS.items():
        run = make_run(name, settings | {"device": "cpu", "steps": 2, "check_every": 2, "checkpoint_every": 2})
        Trainer(run, journal=root).start(2).wait(120).stop()  # with a picture at its end
    return root


def damage_settings(path: Path, draw: random.Random) -> None:
    "One value among the settings of a run is replaced: a graph as a whole, or anything at any depth."
    whole = json.loads(path.read_text())
    if "graph" in whole["settings"]["model"] and draw.random() < 0.6:
        whole["settings"]["model"]["graph"] = "@@here@@"
        return path.write_text(json.dumps(whole).replace('"@@here@@"', draw.choice(GRAPHS)))
    text = replace_value(json.dumps(whole["settings"]), draw)
    path.write_text(json.dumps({**whole, "settings": "@@here@@"}).replace('"@@here@@"', text))


def read_everywhere(root: Path, id: str, everyone: dict[str, dict]) -> bool:
    "Whoever reads the settings of a run, beside runs of other families; whether they were refused where they are read alone."
    kind, journal = everyone[id]["kind"], Journal(root)
    run, family, rows = make_run(kind, {}), find_family(kind), journal.rows()
    assert [row for row in rows if row["id"] != id] == [row for row in everyone.values() if row["id"] != id]
    assert journal.runs().to_string()
    json.dumps([run_row(row, run, {"loss": "training"}, current=False, able=True) for row in rows])
    compare_with_earlier(run, [row for row in rows if row["settings"] and row["kind"] == kind], "loss")
    runs_with(journal, run)
    other = next(one for one in everyone if one != id)
    for call in (lambda: journal.report(id).html, lambda: restore(root / id).step_count, lambda: journal.diff(id, other),
                 lambda: journal.diff(other, id)): named(call, id)
    try: journal.run(id).settings(family.experiment)
    except ValueError as error: return "must" in str(error)
    return False


def try_settings(families_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int, seed: int) -> int:
    "How many damaged settings were refused when they were read."
    monkeypatch.setenv("LATENTLAB_CACHE", str(tmp_path / "cache"))
    root, draw, refused = shutil.copytree(families_run, tmp_path / "runs"), random.Random(seed), 0
    everyone = {row["id"]: row for row in Journal(root).rows()}
    assert {row["kind"] for row in everyone.values()} == set(FAMILY_RUNS) and all(row["state"] != "damaged" for row in everyone.values())
    for number in range(count):
        id = draw.choice(list(everyone))
        if draw.random() < 0.8: damage_settings(root / id / "run.json", draw)
        else: damage(root / id, draw)
        try: refused += read_everywhere(root, id, everyone)
        except BaseException as error: raise AssertionError(f"damage {number} of seed {seed}, of {id}: {error!r}") from error
        shutil.rmtree(root / id)
        shutil.copytree(families_run / id, root / id)
    return refused


@pytest.mark.parametrize("graph", GRAPHS, ids=range(len(GRAPHS)))
def test_a_damaged_graph_is_refused_by_name(graph, unchecked) -> None:
    "In a run file: a cycle, a node twice or nowhere, thousands of nodes, markup, nothing at all; or it is a graph."
    whole = json.loads(to_json(make_run("csvae", {})))
    whole["settings"]["model"]["graph"] = "@@here@@"
    try: run = from_json(find_family("csvae").experiment, json.dumps(whole).replace('"@@here@@"', graph))
    except ValueError as error: assert type(error) is ValueError and "`graph`" in str(error) and len(str(error)) < 3000, error
    else: assert len(run.model.graph.nodes) == 60 and to_json(run)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_20_damaged_settings_of_families(families_run, tmp_path, monkeypatch, unchecked, seed) -> None:
    assert try_settings(families_run, tmp_path, monkeypatch, 20, seed) >= 6


@pytest.mark.parametrize("name, text", [("run.json", '"started": ' + HUGE), ("metrics.jsonl", '{"step": 3, "n": 1, "terms": {"loss": ' + HUGE + "}}")])
def test_a_number_of_400_digits_silences_one_run_and_no_other(sound, tmp_path, monkeypatch, name, text) -> None:
    "The face that was seen: OverflowError in the list, the drawer and every new run."
    monkeypatch.setenv("LATENTLAB_CACHE", str(tmp_path / "cache"))
    root = shutil.copytree(sound, tmp_path / "runs")
    *others, id = [row["id"] for row in Journal(root).rows()]
    path = root / id / name
    whole = path.read_text()
    if name == "run.json": path.write_text(whole.replace(f'"started": {json.loads(whole)["started"]}', text))
    else: path.write_text(whole + text + "\n")
    rows = {row["id"]: row for row in Journal(root).rows()}
    assert set(rows) == {*others, id} and all(rows[other]["state"] == "done" for other in others)
    if name == "run.json":
        assert rows[id]["state"] == "damaged" and id in rows[id]["error"] and "400 digits" in rows[id]["error"]
        with pytest.raises(ValueError, match=f"run.json of {id}"): Journal(root).run(id)
    else: assert rows[id]["skipped"] == 1 and np.isfinite(rows[id]["metrics"]["loss"])
    assert Trainer(RUN, journal=root).fit(2, progress=False).recorder.id in Journal(root).runs().index


def test_a_name_that_is_no_text_is_a_damaged_run_and_a_loop_is_none(sound, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("LATENTLAB_CACHE", str(tmp_path / "cache"))
    root = shutil.copytree(sound, tmp_path / "runs")
    others = [row["id"] for row in Journal(root).rows()]
    shutil.copytree(root / others[0], os.fsdecode(os.fsencode(root) + b"/\xff\xfe"))
    (root / "loop").symlink_to("loop")
    (root / "a-file").write_text("no run")
    for _ in range(2):
        rows = Journal(root).rows()
        assert [row["id"] for row in rows if row["state"] == "done"] == others
        assert sorted(row["id"] for row in rows if row["state"] == "damaged") == ["\\udcff\\udcfe"]
        assert all(row["error"] for row in rows if row["state"] == "damaged") and len(Journal(root).runs()) == 4


def test_litter_of_dead_writers_goes_and_that_of_living_ones_stays(sound, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("LATENTLAB_CACHE", str(tmp_path / "cache"))
    root = shutil.copytree(sound, tmp_path / "runs")
    (id, *_), journal = [row["id"] for row in Journal(root).rows()], Journal(root)
    old = [root / ".clock-abcdefgh", root / ".write-test-abcdefgh", root / id / ".run.json.abcdefgh", root / id / "checkpoints" / ".a.new.abcd_fg1",
           root / id / "figures" / ".last.npz.abcdefgh", root / id / "checkpoints" / "a.new", root / id / "checkpoints" / "a.link"]
    mine = [root / id / "checkpoints" / "a.ckpt", root / ".claims" / "0123", root / id / ".notes of mine", root / ".hidden.txt"]
    for path in (*old, *mine):
        path.parent.mkdir(exist_ok=True)
        path.write_text("x")
        os.utime(path, (1e9, 1e9))
    young = root / id / ".run.json.younger1"
    young.write_text("x")
    holder = journal.go_on(id, step=4)
    assert not [path for path in old[2:] if path.exists()] and all(path.exists() for path in (*mine, young))
    for path in old[2:]:
        path.write_text("x")
        os.utime(path, (1e9, 1e9))
    Journal(root).ready()
    assert not old[0].exists() and not old[1].exists()
    assert sweep_litter(root / id, held=False) == 0 and all(path.exists() for path in old[2:]), "somebody else holds that run"
    holder.state("interrupted", step=4, seconds=1.0)
    holder.close()
    assert sweep_litter(root / id, held=False) == 5 and not any(path.exists() for path in old)
