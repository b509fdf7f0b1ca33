"""Wrong values for every field of every family's settings, by every way in: a constructor, `replace`, a dictionary, JSON, and a
message of the page. Each is taken and round-trips, or is refused by a ValueError that names the field.
"""
import copy
import dataclasses
import datetime
import decimal
import functools
import json
import math
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import jaxtyping
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from latentlab.core.graph import Graph
from latentlab.core.registry import families
from latentlab.core.settings import Range, Settings, as_dict, check_value, from_dict, from_json, own_fields, to_json
from latentlab.data.scenes import SceneSettings
from latentlab.families.nem.experiment import NEMRun
from latentlab.journal.record import digest
from latentlab.panels.protocol import read_request
from latentlab.train.example import MeanRun
from plugin_path import plugin_installed
from test_settings import Kinds


@pytest.fixture(scope="module", autouse=True)
def as_users_have_it(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    "The example plug-in is installed, and no run-time type check stands before what the package itself says."
    jaxtyping.config.update("jaxtyping_disable", True)
    with plugin_installed(tmp_path_factory.mktemp("site")): yield
    jaxtyping.config.update("jaxtyping_disable", False)


class Hostile:
    "Every use of it raises."
    def __repr__(self): raise RuntimeError("hostile")
    def __eq__(self, other): raise RuntimeError("hostile")
    def __hash__(self): raise RuntimeError("hostile")
    def __bool__(self): raise RuntimeError("hostile")
    def __float__(self): raise RuntimeError("hostile")
    def __index__(self): raise RuntimeError("hostile")


def nested(depth: int, leaf=1) -> list:
    for _ in range(depth): leaf = [leaf]
    return leaf


FOREIGN = [10**400, -(10**400), 10**5000, 2**53 + 1, -0.0, math.nan, math.inf, 5e-324, 1j, b"bytes", {1, 2}, range(3), iter([1]), len, Settings,
           object(), Hostile(), np.arange(3), np.zeros((2, 2)), np.array(["a", "b"]), np.array(1), np.float32("nan"), np.int64(3),
           np.float64(0.5), np.longdouble(1) / 3, np.str_("adam"), np.bool_(True), np.datetime64("2026-01-01"), np.array([object()]),
           torch.ones(2), torch.tensor(1.0), torch.tensor(True), decimal.Decimal("0.1"), Fraction(1, 8), Fraction(10**400, 3),
           datetime.datetime(2026, 1, 1), Range(1e-3, 1e300), Range(0, 0), Graph(("a",)), MeanRun(), TypeError("x"), "1/8", "1/0", "4/2", "-1/3",
           "1/", "hub:a:b", "hub:", "timm:", "a" * 10**5, "\0", "\ud800", "../..", "0.5", "True", "null", "[1, 2]", "[" * 10**5, "9" * 5000,
           nested(50), nested(10**5), [1] * 10**5, {"low": 1}, {"low": 10**400, "high": 1}, {"low": 0.1, "high": "1/8"}, {"class": "x"},
           {"class": None}, {"nodes": [[]], "edges": []}, {"nodes": ["a"], "edges": [[{}, "a"]]}, {"nodes": 1, "edges": 1}, {1: 2}, {None: {}},
           [10**400], [[1], 1], [None], [[]], [{}], [Hostile()], (Hostile(),), [np.int64(2)], [True], ["1/8"]]
ATOMS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.integers(0, len(FOREIGN) - 1).map(lambda i: FOREIGN[i])
VALUES = st.recursive(ATOMS, lambda one: st.lists(one, max_size=4) | st.dictionaries(st.text(max_size=6), one, max_size=4), max_leaves=8)


def classes_in(run: Settings) -> list[Settings]:
    "Settings, and those nested in them."
    inner = [getattr(run, f.name) for f in dataclasses.fields(run)]
    return [run, *(one for part in inner if isinstance(part, Settings) for one in classes_in(part))]


@functools.cache
def displays() -> dict[type, Any]: return {one.experiment: one.load_display() for one in families()}


@functools.cache
def targets() -> list[tuple[Settings, str]]:
    "Every field of every registered family, nested settings as a whole among them."
    runs = [*(family.experiment() for family in families()), MeanRun(), SceneSettings(), Kinds()]
    return [(run, path) for run in runs for path in [*run.fields(), *parts_of(run)]]


def parts_of(run: Settings, before: str = "") -> list[str]:
    "Paths of nested settings."
    held = {f.name: getattr(run, f.name) for f in dataclasses.fields(run)}
    return [path for name, part in held.items() if isinstance(part, Settings)
            for path in (f"{before}{name}", *parts_of(part, f"{before}{name}."))]


def plain_json(value) -> str | None:
    "As a file would hold it; None for what no file can."
    try: return json.dumps(value)
    except Exception: return None


def by_file(run: Settings, path: str, value, text: bool) -> Settings:
    "As a stranger's file: every other field as it is."
    whole = copy.deepcopy(as_dict(run))
    *outer, last = path.split(".")
    place = whole
    for name in outer: place = place[name]
    place[last] = value
    return from_json(type(run), json.dumps({"version": "?", "settings": whole})) if text else from_dict(type(run), whole)


def by_page(run: Settings, path: str, value) -> Settings:
    "As a message of the page."
    request = read_request({"kind": "set", "name": path, "value": value}, list(run.fields()))
    display = displays().get(type(run))
    return run.replace(display.match(run, path, request.value) if display else {path: request.value})


def by_class(run: Settings, path: str, value) -> Settings:
    "By the constructor of the class that declares the field."
    for name in path.split(".")[:-1]: run = getattr(run, name)
    return type(run)(**{path.split(".")[-1]: value})


def try_value(run: Settings, path: str, value) -> bool:
    "Whether a value is refused on every way in; the ways agree on what is none of the field's."
    fields, name, refused = run.fields(), path.split(".")[-1], 0
    ways = {"class": by_class, "dictionary": lambda *all: by_file(*all, text=False)}
    if plain_json(value) is not None: ways["json"] = lambda *all: by_file(*all, text=True)
    if path in fields: ways |= {"replace": lambda run, path, value: run.replace({path: value}), "page": by_page}
    for way, make in ways.items():
        try: made = make(run, path, value)
        except ValueError as error:
            sentence, refused = str(error), refused + 1
            if way == "page" and sentence.startswith("`value` must"): continue  # larger than any message, or no JSON
            assert type(error) is ValueError and len(sentence) < 3000, (way, type(error), sentence[:200])
            if way == "json" and sentence.startswith("`text` must be JSON"): continue
            alone = path in fields
            if alone:
                try: check_value(value, fields[path])
                except ValueError: alone = False
            told = f"`{name}`" in sentence or alone or (path not in fields and isinstance(value, dict))
            assert told, (way, path, sentence[:300])
            continue
        assert isinstance(made, Settings) and all(check_value(info.value, info) == info.value for info in own_fields(made).values())
        assert from_json(type(made), to_json(made)) == made and len(digest(as_dict(made))) == 16 and hash(made) is not None
    return bool(refused)


def fuzz(examples: int):
    "A search with the same draws each time."
    return lambda test: settings(max_examples=examples, derandomize=True, deadline=None, database=None, phases=(Phase.generate,),
                                 suppress_health_check=list(HealthCheck))(test)


def search(data: st.DataObject) -> None:
    run, path = data.draw(st.sampled_from(targets()), label="field")
    try_value(run, path, data.draw(VALUES, label="value"))


@fuzz(200)
@given(data=st.data())
def test_200_wrong_values_are_refused_by_name(data) -> None: search(data)


@pytest.mark.slow
@fuzz(4000)
@given(data=st.data())
def test_4000_wrong_values_are_refused_by_name(data) -> None: search(data)


@pytest.mark.slow
def test_every_field_meets_every_foreign_value() -> None:
    refused = sum(try_value(run, path, value) for run, path in targets() for value in FOREIGN)
    assert refused > 0.8 * len(targets()) * len(FOREIGN)


def test_faces_that_were_foreign_errors() -> None:
    "What an attack showed, by name."
    for make, words in [
        (lambda: NEMRun(train="x"), "`train` must be a TrainSettings: got 'x' (str)"),
        (lambda: NEMRun(model=None), "`model` must be a NEMSettings: got None"),
        (lambda: NEMRun().replace(kl_scale=10**400), "`kl_scale` must be a float: got 1000"),
        (lambda: NEMRun().replace(steps=10**400), "`steps` must be a int: got 1000"),
        (lambda: NEMRun().replace(penalty=np.array(["kl", "area"])), "`penalty` must be one of 'kl', 'area': got array"),
        (lambda: from_dict(NEMRun, {"train": None}), "`train` must be a TrainSettings: got None"),
        (lambda: from_json(NEMRun, "[" * 10**5), "`text` must be JSON"),
        (lambda: from_json(NEMRun, '{"version": "0", "settings": null}'), "`NEMRun` must be a dictionary"),
        (lambda: from_json(NEMRun, '{"version": "0", "settings": {"images": ' + "9" * 5000 + "}}"), "`text` must be JSON"),
        (lambda: Kinds(graph={"nodes": [{}], "edges": [[[], {}]]}), "`graph` must be a Graph"),
    ]:
        with pytest.raises(ValueError) as caught: make()
        assert type(caught.value) is ValueError and words in str(caught.value), str(caught.value)


def test_numbers_of_numpy_and_fractions_are_numbers() -> None:
    run = NEMRun().replace(kl_scale=np.float32(0.25), seed=np.int64(3), images=np.uint16(128), learning_rate="1/64", mask_bias=Fraction(-1, 2))
    assert (run.get("kl_scale"), run.get("seed"), run.get("images"), run.get("learning_rate"), run.get("mask_bias")) == (0.25, 3, 128, 1 / 64, -0.5)
    assert {type(run.get(name)) for name in ("kl_scale", "learning_rate", "mask_bias")} == {float} and type(run.get("seed")) is int
    assert Kinds(ranged=["1/8", "1/4"]).ranged == Range(0.125, 0.25)
    assert Kinds(sizes=np.array([3, 4])).sizes == (3, 4) and Kinds(sizes=[np.int64(4)]).sizes == (4,)
    assert by_page(NEMRun(), "model.kl_scale", "1/8").get("kl_scale") == 0.125
    assert from_json(NEMRun, to_json(run)) == run
