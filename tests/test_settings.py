"""Settings of every family: round trips, bounds and choices field by field, refusals that name rule, value and remedy, and live values as tensors."""
import contextlib
import dataclasses
import json
import math
import re

import pytest
import torch
from latentlab.core.settings import Live, Settings, as_dict, from_dict, from_json, put, setting, to_json
from latentlab.data.scenes import SceneSettings
from latentlab.journal.record import digest
from latentlab.families.hvae.experiment import HVAEData, HVAERun
from latentlab.families.nem.model import NEMSettings
from latentlab.families.nem.experiment import NEMRun
from latentlab.families.ssl.model import SSLSettings
from latentlab.latents.model import VAESettings
from latentlab.train.example import MeanRun
from latentlab.train.settings import TrainSettings

CLASSES = (NEMRun, NEMSettings, TrainSettings, SceneSettings, SSLSettings, MeanRun, HVAERun, HVAEData, VAESettings)
FIELDS = [(cls, path) for cls in (NEMRun, SceneSettings, SSLSettings, MeanRun, HVAERun, HVAEData, VAESettings) for path in cls().fields()]
PAIRS = ("objects_low", "objects_high", "size_low", "size_high")  # Bound to one another
ALONE = {"likelihood": "gaussian", "latents": "[3]", "hidden": "[8, 4]"}  # Points have no other likelihood; longer lists would move `layers` too
WITH = {"exclude": {"name": "fashion-mnist"}}  # Points have no classes to leave out
APART = {HVAERun: 3, VAESettings: 3}  # A ladder, a gradient of its own and a closed form exclude one another; all other fields go together
LISTS = ("latents", "hidden")  # Texts that may be given as the numbers that they hold
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
        if info.when: assert info.when[1] in next(i for i in cls().fields().values() if i.name == info.when[0]).choices


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
                runs[i] = run.replace(changed(cls, path))
                break
        else: runs.append(cls().replace(changed(cls, path)))
    return runs


@pytest.mark.parametrize("value", [1e-5, math.nextafter(1e-3, 1), 1 / 3 / 10, 0.1, 5e-3])
def test_floats_survive_to_the_last_bit(value):
    assert from_json(NEMRun, to_json(NEMRun().replace(learning_rate=value))).train.learning_rate == value


@pytest.mark.parametrize("cls, path", FIELDS, ids=lambda v: getattr(v, "__name__", v))
def test_each_field_changes_alone_and_refuses_what_it_must(cls, path, unchecked):
    run, info = cls(), cls().fields()[path]
    if info.name not in PAIRS:
        new = changed(cls, path)
        moved = run.replace(new)
        assert moved.get(path) == another(info) and set(moved.diff(run)) == set(new) and run == cls()
        assert (digest(as_dict(moved)) == digest(as_dict(run))) == (info.name == "device")  # The same experiment wherever it ran
        assert moved.replace({path: info.value for path, info in run.fields().items() if path in new}) == run
    if info.low is not None:
        assert f"at least {info.low:g}" in refusal(cls, path, info.low - (1 if info.type is int else abs(info.low) * 1e-6 + 1e-12))
    if info.high is not None:
        assert f"at most {info.high:g}" in refusal(cls, path, info.high + (1 if info.type is int else info.high * 1e-6))
    if info.choices: assert all(repr(choice) in refusal(cls, path, "no such choice") for choice in info.choices)
    for kind, wrong in ((float, math.nan), (float, math.inf), (float, -math.inf)):
        if info.type is kind: refusal(cls, path, wrong)


@pytest.mark.parametrize("cls, path", FIELDS, ids=lambda v: getattr(v, "__name__", v))
def test_wrong_types_are_refused_by_name(cls, path, unchecked):
    info = cls().fields()[path]
    wrong = [{"a": 1}, *([] if info.optional else [None]), *([[2.5], 2.5] if info.name in LISTS else [[1], 3 if info.type is str else "3"])]
    wrong += [1] if info.type is bool else [True, torch.tensor(1)]
    if info.type is int: wrong.append(2.0)
    for value in wrong: refusal(cls, path, value)


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
    with pytest.raises(ValueError, match=r"`kl_scal` must be a field of NEMRun: got an unknown name. Known: data, .*model.kl_scale"): run.replace(kl_scal=1.0)
    with pytest.raises(ValueError, match="`other` must be NEMRun: got TrainSettings. Compare settings of one class."): run.diff(TrainSettings())


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
    ("", "must be JSON: got ''"), ("{", "must be JSON"), ("[1]", "must hold version and settings"), ("{}", "must hold version and settings"),
    ('{"settings": {}}', "must hold version and settings"),
])
def test_texts_that_are_no_settings(text, rule):
    with pytest.raises(ValueError, match=f"`text` {rule}.*Pass what `to_json` wrote."): from_json(NEMRun, text)


def test_another_class_and_unknown_keys_are_refused_at_every_depth():
    with pytest.raises(ValueError, match="`class` must be NEMRun: got MeanRun. Load it with the class that wrote it."): from_json(NEMRun, to_json(MeanRun()))
    top, deep = as_dict(NEMRun()), as_dict(NEMRun())
    top["novel"], deep["model"]["novel"] = 1, 1
    with pytest.raises(ValueError, match="known keys of NEMRun: got novel. Known: data"): from_dict(NEMRun, top)
    with pytest.raises(ValueError, match="known keys of NEMSettings: got novel. Known: penalty"): from_dict(NEMRun, deep)
    deep["model"] = {**as_dict(NEMSettings()), "layers": 9}
    with pytest.raises(ValueError, match="`layers` must be at most 5"): from_dict(NEMRun, deep)


def test_a_log_slider_needs_a_positive_end():
    with pytest.raises(ValueError, match="`low` must be above 0 on a log scale: got 0. Give a positive bound."): setting(1.0, low=0, scale="log")


# Live ----------------------------------------------------------------------------------------------------------------

def test_hot_holds_the_hot_settings_alone():
    run, live = NEMRun(), Live(NEMRun())
    assert set(live.values) == {i.name for i in run.fields().values() if i.kind == "live"}
    for name, value in live.values.items():
        seen = getattr(live, name)
        if isinstance(value, float): assert seen.shape == () and seen.dtype == torch.float32 and abs(seen.item() - value) <= 1e-7 * abs(value)
        else: assert seen == value and not isinstance(seen, torch.Tensor)


def test_hot_values_cannot_be_written_and_others_are_named():
    live = Live(NEMRun())
    with pytest.raises(TypeError): live.values["kl_scale"] = 1.0
    with pytest.raises(AttributeError, match="`width` must be a live setting: got an unknown name. Known: .*kl_scale"): getattr(live, "width")  # noqa: B009


# Pairs --------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("changes, sentence", [
    ({"objects_low": 5}, "`objects_low` must be at most `objects_high`: got 5 and 4. Raise"), ({"objects_high": 2, "objects_low": 3}, "got 3 and"),
    ({"size_high": 0.05}, "`size_low` must be at most `size_high`: got 0.09 and 0.05. Raise"),
])
def test_a_range_must_not_be_empty(changes, sentence):
    with pytest.raises(ValueError, match=sentence): SceneSettings(**changes)
    assert SceneSettings(objects_low=5, objects_high=5).objects_low == 5
