"""Settings of every family: round trips, bounds and choices field by field, refusals that name rule, value and remedy, and
live values as tensors.
"""
import contextlib
import dataclasses
import json
import math
import re
from typing import Any, Literal

import pytest
import torch
from latentlab.core.graph import Graph
from latentlab.core.settings import Live, Range, Settings, as_dict, from_dict, from_json, put, setting, to_json
from latentlab.data.scenes import SceneSettings
from latentlab.journal.record import digest
from latentlab.families.hvae.experiment import HVAEData, HVAERun
from latentlab.families.hvae.stored import RECIPE
from latentlab.families.nem.model import NEMSettings
from latentlab.families.nem.experiment import NEMRun
from latentlab.families.ssl.model import SSLSettings
from latentlab.latents.model import VAESettings
from latentlab.train.example import MeanRun
from latentlab.train.settings import TrainSettings

CLASSES = (NEMRun, NEMSettings, TrainSettings, SceneSettings, SSLSettings, MeanRun, HVAERun, HVAEData, VAESettings)
RUNS = (NEMRun, SceneSettings, SSLSettings, MeanRun, HVAERun)  # With every class that they nest
PAIRS = ("objects_low", "objects_high", "size_low", "size_high")  # Bound to one another
# Points have no other likelihood; longer lists would move `layers` too
ALONE = {"likelihood": "gaussian", "latents": (3,), "hidden": (8, 4), "maps": 1}
# Points have no classes to leave out; maps are of residual blocks, a second encoder needs a whole range of weights, and stored weights of one structure
WITH = {"exclude": {"name": "fashion-mnist"}, "maps": {"net": "residual"}, "against": {"model.frontier": True}}
STORED = {"data.name": "fashion-mnist", **{f"model.{name}": value for name, value in RECIPE.items() if name != "kernel"}}
# A ladder, a gradient of its own and a closed form exclude one another; so do a pair and a batch of one, a whole range and one price
APART = {HVAERun: 2, VAESettings: 3, NEMRun: 2, NEMSettings: 2}
FORM = re.compile(r"^`(\w+)` must .+: got .+\. .*[A-Za-z].*\.$", re.S)  # rule, value, remedy


def another(info):
    "A value that a field allows and that is not its default."
    if info.name in ALONE: return ALONE[info.name]
    if info.choices: return next(c for c in info.choices if c != info.value)
    if info.type is bool: return not info.value
    if info.type is str: return next((v for v in info.suggest if v != info.value), "something else")
    low, high = info.low if info.low is not None else 0, info.high if info.high is not None else (info.low or 0) + 1000
    return next(info.type(v) for v in (low, high) if v != info.value)


def changed(cls, path):
    "The change of one field, with the smallest companion where it cannot move alone."
    info, at = cls().fields()[path], path.rpartition(".")[0]
    if info.name == "start": return {path: another(info)} | (STORED if cls is HVAERun else {"name": "fashion-mnist"})
    return {path: another(info)} | {f"{at}.{name}".lstrip("."): value for name, value in WITH.get(info.name, {}).items()}


def refusal(cls, path, value):
    with pytest.raises(ValueError) as caught: cls().replace({path: value})
    told = FORM.match(str(caught.value))
    assert told, str(caught.value)
    assert told[1] == path.split(".")[-1]
    return str(caught.value)


@pytest.mark.parametrize("cls", CLASSES)
def test_every_field_is_explained(cls):
    for path, info in cls().fields().items():
        assert info.reason, f"{path} has no reason for its default"
        assert info.kind in ("live", "build", "fixed", "view") and info.label
        if info.scale == "log": assert info.low > 0 and info.high, f"{path}: a log slider needs both ends"
        if info.when:
            other = next(i for i in cls().fields().values() if i.name == info.when[0])
            assert info.when[1] in ((False, True) if other.type is bool else other.choices)


@pytest.mark.parametrize("cls", CLASSES)
def test_round_trip_with_everything_changed(cls):
    paths = [path for path, info in cls().fields().items() if info.name not in PAIRS]
    runs = spread(cls, paths)
    for run in runs:
        back = from_json(cls, to_json(run))
        assert back == run and type(back) is cls and back.diff(run) == {}
        assert {type(i.value) for i in back.fields().values()} == {type(i.value) for i in run.fields().values()}
        assert json.loads(to_json(run))["settings"]["class"] == cls.__name__
    assert set().union(*(run.diff(cls()) for run in runs)) >= set(paths) and len(runs) == APART.get(cls, 1)


def spread(cls, paths):
    "Every field changed, each in the first settings that allow it beside the others."
    runs = []
    for path in paths:
        for i, run in enumerate(runs):
            with contextlib.suppress(ValueError):
                made = run.replace(changed(cls, path))
                if not set(run.diff(cls())) <= set(made.diff(cls())): continue  # it takes another back, which means nothing beside it
                runs[i] = made
                break
        else: runs.append(cls().replace(changed(cls, path)))
    return runs


@pytest.mark.parametrize("value", [1e-5, math.nextafter(1e-3, 1), 1 / 3 / 10, 0.1, 5e-3])
def test_floats_survive_to_the_last_bit(value):
    assert from_json(NEMRun, to_json(NEMRun().replace(learning_rate=value))).train.learning_rate == value


@pytest.mark.parametrize("cls", RUNS)
def test_each_field_changes_alone_and_refuses_what_it_must(cls, unchecked):
    run = cls()
    for path, info in run.fields().items():
        if info.name not in PAIRS:
            new = changed(cls, path)
            moved = run.replace(new)
            assert moved.get(path) == another(info) and set(moved.diff(run)) == set(new) and run == cls(), path
            assert (digest(as_dict(moved)) == digest(as_dict(run))) == (info.name == "device"), path  # The same experiment wherever it ran
            assert moved.replace({p: one.value for p, one in run.fields().items() if p in new}) == run, path
        if info.choices: assert all(repr(choice) in refusal(cls, path, "no such choice") for choice in info.choices), path
        elif info.type in (int, float):
            margin = 1 if info.type is int else 1e-6
            if info.low is not None:
                assert f"at least {info.low:g}" in refusal(cls, path, info.low - max(margin * abs(info.low), margin)), path
            if info.high is not None:
                assert f"at most {info.high:g}" in refusal(cls, path, info.high + max(margin * abs(info.high), margin)), path
        for wrong in [{"a": 1}, torch.tensor(1), *([] if info.optional else [None])]: refusal(cls, path, wrong)


# One case a type -----------------------------------------------------------------------------------------------------

LAYERS = tuple[int, ...] | tuple[tuple[int, ...], ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Kinds(Settings):
    "One field of every type that settings hold."
    switch: bool = setting(True, reason="on")
    count: int = setting(3, low=1, high=5, reason="a few")
    number: float = setting(0.5, low=0, high=1, kind="live", reason="half")
    ranged: float | Range = setting(0.02, low=1e-3, high=1, scale="log", kind="live", reason="small")
    text: str = setting("words", reason="to read")
    choice: Literal["one", "two"] = setting("one", reason="the first")
    perhaps: float | None = setting(None, low=0, kind="live", reason="off")
    sizes: tuple[int, ...] = setting((2,), low=1, high=512, reason="drawn", read_old=lambda text: tuple(json.loads(text)))
    hidden: LAYERS = setting((64, 64), low=1, reason="as in the journal")
    pair: tuple[float, Literal["px", "mm"]] = setting((1.0, "px"), low=0, reason="one pixel")
    graph: Graph = setting(Graph(("a", "b"), (("a", "b"),)), reason="two concepts")


GOOD = {  # Field -> value given, value held, as JSON
    "switch": [(False, False, False)], "count": [(5, 5, 5)], "number": [(1, 1.0, 1.0)], "text": [("", "", "")],
    "choice": [("two", "two", "two")],
    "ranged": [
        (1, 1.0, 1.0), (Range(0.01, 0.1, "log"), Range(0.01, 0.1, "log"), {"low": 0.01, "high": 0.1, "scale": "log"}),
        ([0.01, 0.1], Range(0.01, 0.1), {"low": 0.01, "high": 0.1, "scale": "linear"}),
        ({"low": 0.1, "high": 1}, Range(0.1, 1), {"low": 0.1, "high": 1.0, "scale": "linear"}),
    ],
    "perhaps": [(1, 1.0, 1.0), (0.0, 0.0, 0.0)], "sizes": [([64, 32], (64, 32), [64, 32]), ((), (), [])],
    "hidden": [([[8, 4], [2]], ((8, 4), (2,)), [[8, 4], [2]]), ((8,), (8,), [8])], "pair": [([2, "mm"], (2.0, "mm"), [2.0, "mm"])],
    "graph": [({"nodes": ["b"], "edges": []}, Graph(("b",)), {"nodes": ["b"], "edges": []})],
}
BAD = {  # Field -> value refused, words of the refusal
    "switch": [(1, "must be a bool"), (torch.tensor(True), "must be a bool"), ("True", "must be a bool")],
    "count": [(True, "must be a int"), (2.0, "must be a int"), (torch.tensor(1), "must be a int"), (6, "at most 5: got 6"),
              (0, "at least 1: got 0"), ([1], "must be a int")],
    "number": [(math.nan, "must be finite"), (math.inf, "must be finite"), (-math.inf, "must be finite"), ("0.5", "must be a float"),
               (True, "must be a float"), (1.001, "at most 1"),
               (Range(0, 1), "must be a float"), (None, "got None")],
    "ranged": [(Range(0.01, 2), "at most 1: got 2 in 0.01..2"), (Range(1e-4, 0.1), "at least 0.001: got 0.0001"),
               ([0.1, 0.01], "`low` must be at most `high`: got 0.1 and 0.01"),
               ([0, 0.1, "log"], "above 0 on a log scale"), ([0.1], "must hold low, high"), ([0.1, math.nan], "must be a finite number"),
               (True, "must be a float or a Range"),
               ({"low": 0.1, "high": 0.2, "step": 1}, "must hold low, high"), ([0.1, 0.2, "cubic"], "'linear' or 'log'")],
    "text": [(3, "must be a str"), (["a"], "must be a str")], "choice": [("three", "one of 'one', 'two'"), (True, "one of"),
                                                                         (["one"], "one of")],
    "perhaps": [(-1, "at least 0"), (False, "must be a float")],
    "sizes": [(64, "must be a tuple of int"), ("64", "must be a tuple of int"), ([64, 2.5], "tuple of int"), ([True], "tuple of int"),
              ([64, 0], "at least 1: got 0 in (64, 0)"),
              ([[64]], "tuple of int"), ([513], "at most 512"), (None, "got None"), ({64}, "tuple of int")],
    "hidden": [([8, [4]], "tuple of int or a tuple of tuple of int"), ([[8], [0]], "at least 1: got 0"), ("8", "tuple of int")],
    "pair": [([1], "Give 2 values"), ([1, "cm"], "Choose one of 'px', 'mm'"), ([-1, "px"], "at least 0"),
             ([math.inf, "px"], "must be finite")],
    "graph": [({"nodes": ["a"], "edges": [["a", "a"]]}, "must not form a "
                                                        "cycle: got a -> a"), ([["a"]], "must hold nodes"), ("a", "must be a Graph")],
}


@pytest.mark.parametrize("name", GOOD)
def test_a_type_reads_python_and_json_and_writes_json(name):
    for given, held, written in GOOD[name]:
        for run in (Kinds().replace({name: given}), Kinds().replace({name: written}), Kinds(**{name: given})):
            assert getattr(run, name) == held and type(getattr(run, name)) is type(held)
            assert (json.loads(json.dumps(as_dict(run)))[name] == written and from_json(Kinds, to_json(run)) == run
                    and hash(from_json(Kinds, to_json(run))) == hash(run))
            assert run.diff() == ({} if held == getattr(Kinds(), name) else {name: (getattr(Kinds(), name), held)})


@pytest.mark.parametrize("name", BAD)
def test_a_type_refuses_by_name(name, unchecked):
    for value, words in BAD[name]: assert words in refusal(Kinds, name, value), value


def test_every_type_has_its_cases():
    assert set(GOOD) == set(BAD) == set(Kinds().fields())


@pytest.mark.parametrize("hint", [list[int], dict[str, int], int | str, int | Range, tuple[list[int], ...], torch.Tensor, Any])
def test_a_field_of_another_type_is_refused_with_its_class(hint):
    cls = dataclasses.make_dataclass("Wrong", [("field", hint, setting(None, reason="none"))], bases=(Settings,), frozen=True, kw_only=True)
    with pytest.raises(TypeError, match="a setting must"): cls()


def test_the_older_form_of_a_value_is_read_in_files_and_changes(unchecked):
    old = as_dict(Kinds()) | {"sizes": "[64, 32]"}
    assert from_dict(Kinds, old).sizes == (64, 32) and from_dict(Kinds, as_dict(Kinds(sizes=(5,)))).sizes == (5,)
    assert Kinds().replace(sizes="[64, 32]").sizes == (64, 32)
    for wrong in ("[64, 0]", "[64", "sixty", "[[64]]"): refusal(Kinds, "sizes", wrong)


@pytest.mark.parametrize("one", [Range(0.001, 10, "log"), Range(-2, 3), Range(0.1, 0.1), Range(0.1, 0.3, "log")])
def test_draws_of_a_range_are_uniform_in_its_scale_and_within_its_ends(one):
    drawn = one.draw(20_000, torch.Generator().manual_seed(0)).double()
    assert drawn.min() >= torch.tensor(one.low) and drawn.max() <= torch.tensor(one.high)  # Ends as float32 has them
    if one.low == one.high: return
    place = lambda value: torch.as_tensor(value).double().log() if one.scale == "log" else torch.as_tensor(value).double()
    share = (place(drawn) - place(one.low)) / (place(one.high) - place(one.low))
    assert abs(share.mean() - 0.5) < 0.01 and abs(share.var() - 1 / 12) < 0.003  # Five standard errors
    assert abs((place(one.middle) - place(one.low)) / (place(one.high) - place(one.low)) - 0.5) < 1e-6


def test_none_is_allowed_where_it_means_something():
    assert TrainSettings(clip=None).clip is None and from_json(TrainSettings, to_json(TrainSettings(clip=None))).clip is None


def test_an_int_is_a_float_where_a_float_is_meant():
    run = NEMRun().replace(smoothing=2, mask_bias=-3)
    assert type(run.model.smoothing) is float and type(run.model.mask_bias) is float and Live(run).smoothing.dtype == torch.float32


def test_settings_are_frozen_and_stay_as_they_are():
    run = NEMRun()
    with pytest.raises(dataclasses.FrozenInstanceError): run.model.kl_scale = 0.5
    before = to_json(run)
    with pytest.raises(ValueError, match="kl_scale"): run.replace({"prior": 0.1, "kl_scale": 50.0})
    assert to_json(run) == before and hash(run) == hash(NEMRun())


def test_names_paths_and_their_refusals():
    run = NEMRun()
    assert run.path("kl_scale") == "model.kl_scale" == run.path("model.kl_scale") and run.get("train.seed") == 0
    assert run.replace({"model.width": 16}, seed=3).diff() == {"model.width": (8, 16), "train.seed": (0, 3)}
    with pytest.raises(ValueError, match=r"`kl_scal` must be a field of NEMRun: got an unknown name. Known: data, .*model.kl_scale"):
        run.replace(kl_scal=1.0)
    with pytest.raises(ValueError, match="`other` must be NEMRun: got TrainSettings. Compare settings of one class."):
        run.diff(TrainSettings())


@dataclasses.dataclass(frozen=True, kw_only=True)
class Twice(Settings):
    one: TrainSettings = dataclasses.field(default_factory=TrainSettings)
    two: TrainSettings = dataclasses.field(default_factory=TrainSettings)
    seen: int = setting(1, kind="view", low=0, reason="to have one of its own")


def test_a_name_that_means_two_fields_must_say_which():
    with pytest.raises(ValueError, match="`seed` must mean one field: got one.seed, two.seed. Say the whole path."): Twice().replace(seed=1)
    run = Twice().replace({"two.seed": 7})
    assert (run.one.seed, run.two.seed) == (0, 7) and from_json(Twice, to_json(run)) == run
    both = put(run, {("one", "seed"): 2, ("two", "seed"): 3, ("seen",): 4})
    assert (both.one.seed, both.two.seed, both.seen) == (2, 3, 4)


@pytest.mark.parametrize("text, rule", [
    ("", "must be JSON: got ''"), ("{", "must be JSON"), ("[1]", "must hold "
                                                                 "version and settings"), ("{}", "must hold version and settings"),
    ('{"settings": {}}', "must hold version and settings"),
])
def test_texts_that_are_no_settings(text, rule):
    with pytest.raises(ValueError, match=f"`text` {rule}.*Pass what `to_json` wrote."): from_json(NEMRun, text)


def test_another_class_and_unknown_keys_are_refused_at_every_depth():
    with pytest.raises(ValueError, match="`class` must be NEMRun: got MeanRun. Load it with the class that wrote it."):
        from_json(NEMRun, to_json(MeanRun()))
    top, deep = as_dict(NEMRun()), as_dict(NEMRun())
    top["novel"], deep["model"]["novel"] = 1, 1
    with pytest.raises(ValueError, match="known keys of NEMRun: got novel. Known: data"): from_dict(NEMRun, top)
    with pytest.raises(ValueError, match="known keys of NEMSettings: got novel. Known: penalty"): from_dict(NEMRun, deep)
    deep["model"] = {**as_dict(NEMSettings()), "layers": 9}
    with pytest.raises(ValueError, match="`layers` must be at most 5"): from_dict(NEMRun, deep)


def test_a_log_slider_needs_a_positive_end():
    with pytest.raises(ValueError, match="`low` must be above 0 on a log scale: got 0. Give a positive bound."):
        setting(1.0, low=0, scale="log")


def test_layer_sizes_of_older_files_were_text():
    now = HVAERun().replace({"model.layers": 2, "model.latents": [64, 32], "model.hidden": [[512, 512], [256]]})
    old = as_dict(now)
    old["model"] |= {"latents": "[64, 32]", "hidden": "[[512, 512], [256]]"}
    assert from_dict(HVAERun, old) == now and as_dict(now)["model"]["latents"] == [64, 32]
    old["model"] |= {"latents": "2", "hidden": "64, 64"}
    assert from_dict(HVAERun, old).model.latents == (2,) and from_dict(HVAERun, old).model.hidden == (64, 64)


# Live ----------------------------------------------------------------------------------------------------------------

def test_hot_holds_the_hot_settings_alone():
    run, live = NEMRun(), Live(NEMRun())
    assert set(live.values) == {i.name for i in run.fields().values() if i.kind == "live"}
    for name, value in live.values.items():
        seen = getattr(live, name)
        if isinstance(value, float):
            assert seen.shape == () and seen.dtype == torch.float32 and abs(seen.item() - value) <= 1e-7 * abs(value)
        elif isinstance(value, Range): assert seen.shape == () and abs(seen.item() - value.middle) <= 1e-7 * value.middle
        else: assert seen == value and not isinstance(seen, torch.Tensor)


def test_hot_values_cannot_be_written_and_others_are_named():
    live = Live(NEMRun())
    with pytest.raises(TypeError): live.values["kl_scale"] = 1.0
    with pytest.raises(AttributeError, match="`width` must be a live setting: got an unknown name. Known: .*kl_scale"):
        getattr(live, "width")  # noqa: B009


def test_a_range_is_its_middle_until_values_are_drawn_for_a_batch():
    run = Kinds().replace(ranged=[0.01, 1, "log"], number=0.25)
    live = Live(run)
    assert set(live.ranges) == {"ranged"} and live.ranged.shape == () and abs(live.ranged.item() - 0.1) < 1e-7 and live.perhaps is None
    drawn = torch.tensor([0.02, 0.5, 0.9])
    batch = live.with_drawn({"ranged": drawn})
    assert torch.equal(batch.ranged, drawn) and batch.number is live.number and live.ranged.shape == () and batch.values == live.values
    assert live.values["ranged"] == Range(0.01, 1, "log")
    for name in ("choice", "nothing"):
        with pytest.raises(ValueError, match=f"`{name}` must be a live number: got an unknown name. Known: number, perhaps, ranged."):
            live.with_drawn({name: drawn})


# Pairs --------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("changes, sentence", [
    ({"objects_low": 5}, "`objects_low` must be at most `objects_high`: got "
                         "5 and 4. Raise"), ({"objects_high": 2, "objects_low": 3}, "got 3 and"),
    ({"size_high": 0.05}, "`size_low` must be at most `size_high`: got 0.09 and 0.05. Raise"),
])
def test_a_range_must_not_be_empty(changes, sentence):
    with pytest.raises(ValueError, match=sentence): SceneSettings(**changes)
    assert SceneSettings(objects_low=5, objects_high=5).objects_low == 5
