"""Small situations that users of neighbouring tools have reported in public. Each belongs to a kind of fault; the kind is mended, and every
kind has two more faces here than were reported.

`CASES` says which test holds each case, `FACES` which tests of this file hold the further faces of a kind. Kinds: A sets and truths in
another unit or type; B the layout of a feature map; C the size of the images; D what training needs of an encoder; E what a run is;
F arrays and numbers of other libraries; G the surroundings; H figures under somebody's style; I single ones. Cases from 40 on went well, and
are to stay so.
"""
import ast
import dataclasses
import json
import multiprocessing
import subprocess
import sys
import zoneinfo  # noqa: F401  (pandas imports it late)
from pathlib import Path

import numpy as np
import pytest
import torch
from latentlab.core.factors import Factor
from latentlab.core.graph import Graph
from latentlab.core.registry import families
from latentlab.data.factored import FactoredImages
from latentlab.data.images import ImageSet
from latentlab.data.sources import source_path, with_images
from latentlab.facade import make_run
from latentlab.families.csvae.experiment import CSVAERun
from latentlab.families.nem.experiment import NEMRun, fingerprints
from latentlab.journal.journal import Journal
from latentlab.journal.writer import check_given
from latentlab.nn.encoders import FrozenEncoder, declared_normalisation, load_encoder, suggest_maps
from latentlab.plots import curves, masks, style
from latentlab.sweeps.plan import Plan, grid
from latentlab.sweeps.workers import Pool
from latentlab.train.example import MeanRun
from latentlab.train.trainer import Trainer
from test_outside_encoders import Around, net, pictures, pool, refusal
from torch import nn

pytestmark = pytest.mark.usefixtures("unchecked")  # the values are of types that a user may hand over, and our annotations do not name
HERE = Path(__file__)

CASES = {  # Number -> kind, what was reported, and the tests that hold it
    1: ("A", "floats divided by 255 twice", "test_foreign_data: what_is_trained_on_is_what_is_shown_whatever_type_it_came_in"),
    3: ("E", "two encoders given by hand share an identity", "test_regressions: runs_of_two_encoders_given_by_hand_are_two"),
    4: ("D", "no gradient at the pixels", "test_outside_encoders: no_gradient_at_the_pixels"),
    5: ("B", "a transformer without its blocks", "test_outside_encoders: a_transformer_is_explained_by_its_blocks, "
                                                 "keys_and_attention_matrices_are_no_maps"),
    6: ("B", "maps with channels last", "test_outside_encoders: channels_last_are_named_and_the_names_that_pass_are_said"),
    7: ("C", "judged on images of an invented size", "test_outside_encoders: an_encoder_of_one_size_is_judged_and_built_at_that_size"),
    9: ("D", "random in eval mode", "test_outside_encoders: random_numbers_in_eval_mode"),
    10: ("G", "a disk without locks", "test_surroundings: a_run_on_a_disk_without_locks_is_trained_and_says_so"),
    11: ("A", "masks of 0 and 255", "test_foreign_data: a_mask_survives_a_change_of_size"),
    12: ("A", "a truth of 255 with an axis more", "test_foreign_data: a_truth_means_the_same_in_every_unit"),
    13: ("D", "layers in place", "test_outside_encoders: what_a_later_layer_overwrites_is_not_proposed"),
    14: ("D", "float64 images", "test_outside_encoders: float64_images_are_refused_when_they_are_explained"),
    15: ("D", "half precision", "test_outside_encoders: one_precision"),
    16: ("F", "arrays read backwards", "test_foreign_data: rows_and_scores_read_backwards"),
    18: ("G", "a sweep from standard input", "test_surroundings: a_sweep_from_wherever_a_program_comes"),
    19: ("G", "a sweep without a main guard", "test_surroundings: a_sweep_of_a_script_without_a_main_guard_runs_it_once"),
    20: ("F", "numbers of numpy as settings", "test_fuzz_settings: numbers_of_numpy_and_fractions_are_numbers; "
                                             "test_cases: plans_take_seeds_and_values_from_anything_that_holds_several"),
    21: ("H", "text.usetex", "test_plots_style: a_figure_is_the_same_under_any_parameters"),
    22: ("H", "image.origin", "test_plots_style: a_figure_is_the_same_under_any_parameters"),
    23: ("A", "label -1", "test_foreign_data: a_label_names_a_class"),
    24: ("F", "weights in bfloat16", "test_outside_encoders: weights_of_half_precision_on_disk"),
    25: ("D", "weights with NaN", "test_outside_encoders: weights_that_are_not_finite"),
    26: ("F", "a mean without a deviation", "test_outside_encoders: normalisation_of_any_kind, normalisation_that_cannot_be_meant"),
    27: ("D", "scripted modules", "test_outside_encoders: scripted_modules"),
    28: ("I", "a panel in a box", "test_panel: a_panel_stands_in_any_box_of_widgets"),
    29: ("I", "a score depends on its batch", "test_company: a_score_does_not_depend_on_company"),
    30: ("I", "a normalisation that nobody asked for", "test_outside_encoders: a_hub_entry_is_normalised_only_as_it_declares_or_as_is_said"),
    40: ("good", "a table that is not scaled", "test_cases: a_table_of_any_scale_stays_finite"),
    41: ("good", "large and tied scores", "test_ood: figures_equal_scikit_learn_with_ties"),
    42: ("good", "long notes and odd paths to MLflow", "test_mlflow: long_values_are_cut_and_named, a_journal_of_any_name_is_exported; "
                                                      "test_shared_journals: a_journal_in_a_folder_of_any_name"),
    43: ("good", "odd sizes", "test_outside_encoders: odd_sizes_stay_good"),
    44: ("good", "compiled and parallel encoders", "test_outside_encoders: compiled_and_parallel_encoders_stay_good"),
    45: ("good", "a shared journal that may only be read",
         "test_shared_journals: a_journal_of_somebody_else_is_read_and_its_runs_are_resumed"),
    46: ("good", "batch norm left in training", "test_regressions: 7_frozen_also_when_a_part_of_the_module_is_set_to_training"),
    47: ("good", "a disk that fills up", "test_journal: a_full_disk_stops_nothing_and_loses_nothing, "
                                         "lines_that_never_found_room_are_put_elsewhere_and_it_is_said"),
    48: ("good", "a sweep with a run that fails", "test_shared_journals: a_sweep_goes_on_beside_a_run_that_cannot_be_built"),
    49: ("good", "real photographs", "test_cases: photographs_are_trained_on"),
}
FACES = {
    "A": ("pixels_alone_are_read_alike_by_every_family", "a_table_of_factors_is_cut_with_its_images", "a_table_of_factors_in_another_unit_is_refused"),
    "B": ("tokens_beside_the_grid_are_left_out_or_refused", "maps_of_windows_and_views_are_refused_by_name", "blocks_that_return_several_things"),
    "C": ("images_of_another_size_are_brought_to_the_encoders_own", "the_size_of_an_image_is_three_numbers"),
    "D": ("an_encoder_that_changes_while_it_reads", "weights_made_in_inference_mode", "what_embed_cannot_do_is_said_of_embed",
          "a_module_and_its_maps_are_what_they_say"),
    "E": ("the_same_weights_used_otherwise_are_another_encoder", "the_same_pixels_told_otherwise_are_another_set", "a_record_of_before_goes_on"),
    "F": ("plans_take_seeds_and_values_from_anything_that_holds_several", "factors_take_the_numbers_of_a_table", "what_holds_no_values_is_refused"),
    "G": ("gradients_that_a_notebook_switched_off", "a_service_without_streams_trains", "a_default_device_and_a_lost_folder_are_refused_once",
          "a_sweep_inside_a_worker_of_a_pool_is_refused_once"),
    "H": ("numbers_are_drawn_the_same_in_any_country", "layouts_of_others_move_nothing"),
    "I": ("what_is_said_of_an_image_does_not_depend_on_company", "a_declared_normalisation_is_read_whole_or_refused"),
}


def names_of(file: str) -> set[str]:
    "Names of a file's tests."
    return {node.name for node in ast.walk(ast.parse(HERE.with_name(f"{file}.py").read_text())) if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize("case", CASES)
def test_every_case_has_tests_that_exist(case):
    for part in CASES[case][2].split("; "):
        file, names = part.split(": ")
        assert {f"test_{name}" for name in names.split(", ")} <= names_of(file), part


def test_every_kind_has_two_more_faces():
    assert set(FACES) == {kind for kind, *_ in CASES.values()} - {"good"} and min(map(len, FACES.values())) >= 2
    assert {f"test_{name}" for names in FACES.values() for name in names} <= names_of("test_cases")


def stream(seed=0): return torch.Generator().manual_seed(seed)


# A: sets and truths ---------------------------------------------------------------------------------------------------------

def grey(n=300, side=16): return torch.rand(n, 1, side, side, generator=stream())


SMALL = {"vle": {"side": 16, "levels": 3, "width": 4, "batch": 8, "tokens": 3}, "nem": {"layers": 2, "width": 4, "batch": 8},
         "csvae": {"side": 16, "features": 16, "width": 6, "batch": 8}, "compvae": {"side": 16, "batch": 8},
         "hvae": {"layers": 1, "latents": (4,), "hidden": 16, "batch": 8}, "ssl": {"batch": 8}}
TAKERS = [one.name for one in families() if source_path(one.experiment())]


@pytest.mark.parametrize("family", TAKERS)
def test_pixels_alone_are_read_alike_by_every_family(family):
    "Not by one of them through a check of type and range, and by another one as they come."
    run, pixels = make_run(family, SMALL[family] | {"device": "cpu"}), (255 * grey(side=28)).byte()
    trained = lambda images: with_images(run, images).build(torch.device("cpu")).batches.images
    want = trained(ImageSet(name="own", split="train", images=pixels))
    for given in (pixels, pixels.float() / 255, pixels.numpy()[::-1][::-1], (pixels.double() / 255).numpy()):
        assert torch.equal(trained(given), want)
    for wrong, rule in ((pixels.float(), "Divide by 255"), (pixels / 255 / 255, "divided by 255 twice"), (pixels[:, 0], "axes of size 1"),
                        ("images.npz", "must be an array of numbers"), (pixels[:20], "Give more images")):
        with pytest.raises(ValueError, match=rule) as error: trained(wrong)
        assert "`images`" in str(error.value)


FACTORS = (Factor(name="place"), Factor(name="kind", kind="categorical", categories=("disc", "ring")))


def values(n=300): return torch.stack([torch.rand(n, generator=stream(1)), (torch.arange(n) % 2).float()], 1)


def told(table, n=300): return FactoredImages(name="told", split="train", images=grey(n), factors=FACTORS, factor_values=table)


@pytest.mark.parametrize("given", [lambda t: t.numpy(), lambda t: t.double(), lambda t: t.tolist(), lambda t: t.numpy()[::-1][::-1],
                                   lambda t: np.asfortranarray(t.numpy().astype(">f8"))])
def test_a_table_of_factors_is_cut_with_its_images(given):
    "An array stayed whole when rows were taken: image 5 had the factors of image 0."
    some = told(given(values())).subset([5, 7])
    assert torch.equal(some.factor_values, values()[[5, 7]]) and some.factor_values.dtype == torch.float32
    assert some.table()["kind"] == ["ring", "ring"]


@pytest.mark.parametrize("table, rule", [
    (lambda t: 255 * t, "`place` must be from 0 to 1"), (lambda t: t - torch.tensor([0, 1]), "`kind` must be one of 0 to 1"),
    (lambda t: t * float("nan"), "`place` must be"), (lambda t: t[:, :1], r"must be \[batch, 2\]"), (lambda t: t[:9], "must have one length"),
    (lambda t: [["a", "b"]] * 300, "`factor_values` must be an array of numbers"), (lambda t: None, "`factor_values` must be")])
def test_a_table_of_factors_in_another_unit_is_refused(table, rule):
    with pytest.raises(ValueError, match=rule): told(table(values()))


# B: layouts -----------------------------------------------------------------------------------------------------------------

class Tokens(nn.Module):
    "A small transformer on patches of 4 px, with so many tokens that are no patch, before or behind the grid."

    def __init__(self, extra=1, behind=False):
        super().__init__()
        torch.manual_seed(0)
        self.patch, self.behind, self.token = nn.Conv2d(3, 16, 4, 4), behind, nn.Parameter(torch.randn(1, extra, 16))
        self.blocks = nn.Sequential(*[nn.Sequential(nn.LayerNorm(16), nn.Linear(16, 16), nn.GELU()) for _ in range(2)])

    def forward(self, x):
        grid, more = self.patch(x).flatten(2).mT, self.token.expand(len(x), -1, -1)
        return self.blocks(torch.cat([grid, more] if self.behind else [more, grid], 1)).mean(1)


@pytest.mark.parametrize("extra, behind, sound", [(2, False, True), (5, False, True), (0, False, True), (1, True, False), (9, False, False)])
def test_tokens_beside_the_grid_are_left_out_or_refused(extra, behind, sound):
    "A distillation token or registers stand in front and are left out; where they stand is proved and not guessed."
    module, maps = Tokens(extra, behind), ("blocks.0", "blocks.1")
    if sound: assert FrozenEncoder(module, maps, lambda out: out).sizes(pictures()) == ((16, 8, 8),) * 2
    if sound: FrozenEncoder(module, maps, lambda out: out).check(pictures())
    else: assert "`blocks.0`" in (said := refusal(module, maps, embed=lambda out: out)) and "These pass: patch." in said


class Windows(nn.Module):
    "Windows of 4 x 4 stand in the batch, as in the insides of Swin."

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.patch, self.inside, self.last = nn.Conv2d(3, 8, 2, 2), nn.Linear(8, 8), nn.Conv2d(8, 8, 3, 2, 1)

    def forward(self, x):
        cut = self.inside(self.patch(x).unflatten(-1, (4, 4)).unflatten(-3, (4, 4)).permute(0, 2, 4, 3, 5, 1).reshape(-1, 16, 8))
        joined = cut.view(len(x), 4, 4, 4, 4, 8).permute(0, 5, 1, 3, 2, 4).reshape(len(x), 8, 16, 16)
        return self.last(joined)


def test_maps_of_windows_and_views_are_refused_by_name():
    said = refusal(Windows(), ("inside", "last"))
    assert "one for each image: `inside` returned shape (16, 16, 8) for 1" in said and "These pass: patch, last." in said
    views = Around(before=lambda x: torch.cat([x, x.flip(-1)]))
    assert "`net.1` returned shape (2, 8, 16, 16) for 1" in refusal(views, embed=lambda out: pool(out).unflatten(0, (2, -1)).mean(0))


class Pair(nn.Module):
    "Returns its map and something else, as blocks that also return their attention do."

    def __init__(self):
        super().__init__()
        self.inner = nn.Conv2d(8, 16, 3, 2, 1)

    def forward(self, x): return self.inner(x).relu(), None


class Pairs(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 8, 3, 2, 1), Pair()

    def forward(self, x): return self.second(self.first(x))[0]


def test_blocks_that_return_several_things():
    assert "`second` returned tuple" in (said := refusal(Pairs(), ("first", "second"))) and "These pass: first, second.inner." in said
    assert suggest_maps(Pairs().eval(), pictures()) == ("first", "second.inner")


# C: sizes -------------------------------------------------------------------------------------------------------------------

class OneSize(nn.Module):
    "Reads 24 x 24 pixels and no other size."

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.net, self.head = net(), nn.Linear(16 * 36, 8)

    def forward(self, x): return self.head(self.net(x).flatten(1))


def test_images_of_another_size_are_brought_to_the_encoders_own():
    own = FrozenEncoder(OneSize(), ["net.1", "net.3"], lambda out: out, image_shape=np.array([3, 24, 24]))
    run, images = NEMRun().replace({"model.layers": 2, "train.batch": 8}), (255 * pictures(60, 40)).byte()
    setup = with_images(run, images).build("cpu", encoder=own)
    assert setup.preview.shape[1:] == setup.batches.images.shape[1:] == (3, 24, 24)
    with pytest.raises(ValueError, match="`images` must be square to be resized: got 40 x 30"): with_images(run, images[..., :30]).build("cpu", encoder=own)
    unsaid = FrozenEncoder(OneSize(), ["net.1", "net.3"], lambda out: out)
    with pytest.raises(ValueError, match=r"`images` must suit the encoder OneSize: got \(3, 40, 40\)"): with_images(run, images).build("cpu", encoder=unsaid)


@pytest.mark.parametrize("given", [(3, 24), (24, 24), "3,24,24", (3, 24.5, 24.5), (3, 0, 0), (3, -1, 24), 24, (3, None, None), [[3, 24, 24]]])
def test_the_size_of_an_image_is_three_numbers(given):
    with pytest.raises(ValueError, match=r"`image_shape` must be \(channel, height, width\)"): FrozenEncoder(net(), ["1", "3"], image_shape=given)
    assert FrozenEncoder(net(), ["1"], image_shape=torch.tensor([3, 24, 24])).image_shape == (3, 24, 24)


# D: what training needs -----------------------------------------------------------------------------------------------------

class Drifts(Around):
    "Keeps a mean over what it has seen, in eval mode too."

    def __init__(self, used=True):
        super().__init__()
        self.used = used
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, x):
        out = super().forward(x)
        self.seen += 1e-3
        return out * (1 + self.seen * self.used)


@pytest.mark.parametrize("used", [True, False])
def test_an_encoder_that_changes_while_it_reads(used):
    "Frozen is frozen: the drift of a pass was below the tolerance of two passes."
    module = Drifts(used)
    assert "must stay as it is: its buffer `seen` changes with each pass" in refusal(module) or used and "one embedding for one image" in refusal(module)


def test_weights_made_in_inference_mode():
    with torch.inference_mode(): module = Around()
    assert "must be made outside torch.inference_mode: got `net.0.weight`" in refusal(module)


@pytest.mark.parametrize("embed, rule", [
    (lambda out: out.last, r"`embed` must take what the module returns, here shape \(1, 16, 8, 8\): got AttributeError"),
    (lambda out: pool(out).numpy(), r"`embed` must return \[batch, latent\]: got ndarray"), (lambda out: out, r"got shape \(1, 16, 8, 8\)"),
    (lambda out: pool(out).detach(), "must have a gradient at the pixels"), (lambda out: pool(out).half(), "must be float32: got torch.float16")])
def test_what_embed_cannot_do_is_said_of_embed(embed, rule):
    with pytest.raises(ValueError, match=rule) as error: FrozenEncoder(net(), ["1", "3"], embed).check(pictures())
    assert "Resize" not in str(error.value)


@pytest.mark.parametrize("module, maps, rule", [
    (lambda x: x, ["a"], "`module` must be a torch.nn.Module: got <function"), (None, ["a"], "`module` must be a torch.nn.Module: got None"),
    (net(), "13", r"`maps` must be a list of names of submodules: got '13'. Write \['13'\]"), (net(), [1, 3], r"Write \['1', '3'\]"),
    (net(), [None], "`maps` must be a list of names")])
def test_a_module_and_its_maps_are_what_they_say(module, maps, rule):
    with pytest.raises(ValueError, match=rule): FrozenEncoder(module, maps)


# E: identity ----------------------------------------------------------------------------------------------------------------

class Again(Around):
    def forward(self, x): return super().forward(x).sigmoid()


def test_the_same_weights_used_otherwise_are_another_encoder():
    "An activation without weights, what is pooled, what is subtracted, what a class of one's own does: all in the fingerprint, by hand or not."
    torch.manual_seed(0)
    first, maps = net(), ["1", "3"]
    copy = lambda activation: nn.Sequential(first[0], activation, first[2], nn.ReLU())
    marks = [FrozenEncoder(first, maps), FrozenEncoder(copy(nn.GELU()), maps), FrozenEncoder(copy(nn.LeakyReLU(0.3)), maps),
             FrozenEncoder(first, maps, pool), FrozenEncoder(first, maps, lambda out: out.amax((-2, -1))), FrozenEncoder(first, maps, mean=0.5, std=0.5),
             FrozenEncoder(Around(), ["net.1", "net.3"]), FrozenEncoder(Again(), ["net.1", "net.3"])]
    marks[-1].module.load_state_dict(marks[-2].module.state_dict())
    found = [json.dumps(fingerprints(one)) for one in marks]
    assert len(set(found)) == len(found)
    assert fingerprints(FrozenEncoder(copy(nn.ReLU()), maps)) == fingerprints(marks[0])
    assert "0x" not in repr(found)


def test_the_same_pixels_told_otherwise_are_another_set(tmp_path):
    "Two runs that are told other factors of the same images shared a group, and one resumed the other's."
    run = CSVAERun().replace(SMALL["csvae"] | {"graph": Graph(("place", "kind")), "steps": 2, "device": "cpu", "check_every": 2})
    of = lambda images: Trainer(with_images(run, images), journal=tmp_path)
    swapped = dataclasses.replace(told(values()), factors=(Factor(name="place", high=2.0), FACTORS[1]))
    one, other = of(told(values())).fit(progress=False), of(told(values().flip(0))).fit(progress=False)
    assert len({row["group"] for row in Journal(tmp_path).rows()}) == len({row["digest"] for row in Journal(tmp_path).rows()}) == 2
    assert of(told(values().flip(0))).resume().recorder.id == other.recorder.id
    with pytest.raises(ValueError, match="other data.name"): of(told(values().flip(0))).resume(one.recorder.id)
    assert swapped.fingerprint() not in (told(values()).fingerprint(), told(values().flip(0)).fingerprint())


def test_a_record_of_before_goes_on(tmp_path):
    "A fingerprint that has a part more than the record: the parts that both have decide."
    given = {"encoder": "a", "encoder.form": "b", "images": "c"}
    for recorded, other in ((given, None), ({"encoder": "a", "images": "c"}, None), ({"encoder": "x", "images": "c"}, "encoder"),
                            (given | {"encoder.form": "x"}, "encoder"), ({"images": "c"}, "encoder"), ({}, "encoder and images")):
        (tmp_path / "run.json").write_text(json.dumps({"given": recorded}))
        if other is None: check_given(tmp_path, given)
        else:
            with pytest.raises(ValueError, match=f"a run of the {other} that"): check_given(tmp_path, given)


# F: arrays and numbers ------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("seeds", [np.arange(3), torch.arange(3), (i for i in range(3)), [np.int64(i) for i in range(3)], {0: 1, 1: 1, 2: 1}.keys(),
                                   np.arange(3)[::-1], np.arange(3, dtype=">i2")])
def test_plans_take_seeds_and_values_from_anything_that_holds_several(seeds):
    plan = Plan(base=MeanRun(), changes=grid({"pull": torch.linspace(0, 1, 2), "noise": np.linspace(0.1, 0.2, 2, dtype=np.float32)}), seeds=seeds)
    assert sorted(run.train.seed for run in plan.runs()) == [i for i in range(3) for _ in range(4)] and len(plan) == 12
    assert len(plan.runs()) == 12, "what can be read once is kept"


@pytest.mark.parametrize("words, rule", [
    ({"seeds": 3}, "`seeds` must be a list of whole numbers: got 3"), ({"seeds": None}, "`seeds` must be"), ({"seeds": "012"}, "`seeds` must be"),
    ({"seeds": torch.tensor(3)}, "`seeds` must be"), ({"changes": None}, "`changes` must be a list of dictionaries"),
    ({"changes": {"pull": [0.1]}}, r"`changes` must be a list of dictionaries.*Use grid\("), ({"changes": np.ones(2)}, "`changes` must be")])
def test_what_holds_no_values_is_refused(words, rule):
    with pytest.raises(ValueError, match=rule): Plan(base=MeanRun(), **words)
    for axes in ({"pull": 0.1}, {"pull": torch.tensor(0.1)}, {"pull": "ab"}, {"pull": None}, ["pull"]):
        with pytest.raises(ValueError, match="`axes` must"): grid(axes)


def test_factors_take_the_numbers_of_a_table():
    counted = Factor(name="x", low=np.float32(0), high=np.int16(2), levels=np.int64(3))
    assert counted == Factor(name="x", high=2, levels=3) and {type(counted.low), type(counted.high), type(counted.levels)} == {float, int}
    assert Factor(name="kind", kind="categorical", categories=np.array(["a", "b"])).categories == ("a", "b")
    for wrong in ({"low": "left"}, {"high": None}, {"levels": 2.5}, {"levels": True}, {"low": float("nan")}, {"high": np.ones(2)}):
        with pytest.raises(ValueError, match=f"`{next(iter(wrong))}` must be"): Factor(name="x", **wrong)


# G: surroundings ------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, lambda: torch.set_grad_enabled(False)])
def test_gradients_that_a_notebook_switched_off(mode, tmp_path):
    "Trained to the same bits, whatever mode the cell is in; and the mode is left as it was."
    run = MeanRun().replace(steps=6, device="cpu")
    plain = Trainer(run).fit(3, progress=False).set(pull=0.2).fit(3, progress=False)
    with mode():
        trainer = Trainer(run, folder=tmp_path).fit(3, progress=False).set(pull=0.2)
        trainer.checkpoint()
        trainer.resume().fit(3, progress=False)
        assert not torch.is_grad_enabled()
    assert torch.equal(trainer.model.level, plain.model.level) and trainer.fit(1, progress=False).step_count == 7


class HungUp:
    "A terminal that went away."
    encoding = "utf-8"

    def write(self, text): raise OSError(5, "Input/output error")

    flush = isatty = fileno = lambda self: self.write("")


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("to", [None, HungUp()], ids=["none", "hung up"])
def test_a_service_without_streams_trains(to, monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "stdout", to)
    monkeypatch.setattr(sys, "stderr", to)
    assert Trainer(MeanRun().replace(steps=3), journal=tmp_path).fit().step_count == 3


def test_a_default_device_and_a_lost_folder_are_refused_once(tmp_path, monkeypatch):
    with torch.device("meta"), pytest.raises(ValueError, match="default device must be the CPU: got meta. Call torch.set_default_device"):
        Trainer(MeanRun())
    with pytest.raises(ValueError, match="`root` must be a folder's path: got '~nobody-of-that-name/runs'"): Journal("~nobody-of-that-name/runs")
    with pytest.raises(ValueError, match="`folder` must be a folder's path"): Trainer(MeanRun(), folder="~nobody-of-that-name")
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    try:
        with pytest.raises(ValueError, match="`root` must be a folder's path: got 'runs'.*Write it in full"): Journal("runs")
        assert Journal(tmp_path / "runs").rows() == []
    finally: monkeypatch.chdir(tmp_path)


def test_a_sweep_inside_a_worker_of_a_pool_is_refused_once(monkeypatch):
    monkeypatch.setitem(multiprocessing.current_process()._config, "daemon", True)
    with pytest.raises(ValueError, match="must be started where processes may be started: got MainProcess"): Pool(1)


IN_POOL = """
import multiprocessing
from latentlab.sweeps.plan import Plan
from latentlab.sweeps.sweep import Sweep
from latentlab.train.example import MeanRun
def sweep(root):
    try: Sweep(Plan(base=MeanRun().replace(steps=3)), root, workers=1).start().wait(progress=False)
    except ValueError as error: return str(error)
if __name__ == "__main__":
    with multiprocessing.get_context("fork").Pool(1) as pool: print("SAID", pool.map(sweep, ["runs"]))
"""


@pytest.mark.slow
def test_a_sweep_inside_a_true_pool(tmp_path):
    (tmp_path / "program.py").write_text(IN_POOL)
    done = subprocess.run([sys.executable, "program.py"], capture_output=True, text=True, timeout=300, cwd=tmp_path)
    assert "must be started where processes may be started: got ForkPoolWorker-1" in done.stdout, done.stdout + done.stderr[-500:]


# H: figures -----------------------------------------------------------------------------------------------------------------

def drawn():
    steps, rng = np.arange(0, 100, 10), np.random.default_rng(0)
    return [style.figure_png(curves.plot_curves(steps, {"area": steps / 1000.0}, units={"area": "share of pixels"})),
            style.figure_png(masks.plot_explanations(*(rng.random(shape) for shape in ((2, 1, 8, 8), (2, 8, 8), (2, 1, 8, 8), (2, 8, 8)))))]


def test_numbers_are_drawn_the_same_in_any_country(monkeypatch):
    import locale

    import matplotlib

    plain = drawn()
    told = lambda form, value, *more, **named: (form % value).replace(".", ",")
    for name in ("format_string", "format"): monkeypatch.setattr(locale, name, told, raising=False)
    monkeypatch.setattr(locale, "localeconv", lambda: {"decimal_point": ",", "thousands_sep": "."})
    with matplotlib.rc_context({"axes.formatter.use_locale": True}): assert drawn() == plain


def test_layouts_of_others_move_nothing():
    import matplotlib

    plain = drawn()
    with matplotlib.rc_context({"figure.constrained_layout.use": True, "image.aspect": "auto", "image.lut": 4, "axes.titlesize": 40, "axes.edgecolor": "red",
                                "axes.titlelocation": "left", "axes.spines.left": False, "ytick.right": True, "figure.subplot.left": 0.4,
                                "lines.linestyle": ":", "axes.autolimit_mode": "round_numbers"}): assert drawn() == plain


# I: single ones -------------------------------------------------------------------------------------------------------------

def said_of(family):
    "What a family says of images, as one tensor, a row for each."
    setup = with_images(make_run(family, SMALL[family] | {"device": "cpu"}), grey(side=28)).build(torch.device("cpu"))
    model = setup.model
    with torch.no_grad():
        for p in model.parameters(): p += 0.05 * torch.randn(p.shape, generator=stream(p.numel()))
    ways = {"nem": lambda x: model.explain(x).keep.flatten(1), "vle": lambda x: model.roll(x, 3).after[-1].flatten(1),
            "compvae": lambda x: torch.cat([(code := model.encode(x)).mean, code.log_variance], 1),
            "csvae": lambda x: torch.cat([(found := model.trace(x)).kl(), found.z.flatten(1), found.raw.flatten(1)], 1)}
    return setup.preview, torch.no_grad()(ways[family])


@pytest.mark.parametrize("family", ["compvae", "csvae", "nem", "vle"])
def test_what_is_said_of_an_image_does_not_depend_on_company(family):
    x, say = said_of(family)
    whole, order = say(x), torch.randperm(len(x), generator=stream())
    assert (whole[0] - whole[1]).abs().max() > 1e-3, "images differ"
    for rows in ([2], [0, 1], order.tolist(), [3, 3, 1]): torch.testing.assert_close(say(x[rows]), whole[rows], atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("declared, mean", [
    ({"mean": [0.4] * 3, "std": [0.5] * 3}, 0.4), ({"image_mean": [0.4] * 3, "image_std": [0.5] * 3}, 0.4), ({"mean": 0.4, "std": 0.5}, 0.4),
    ({"mean": None, "std": None}, None), ({}, None), ("imagenet", None), ({"mean": [0.4] * 3}, "got mean alone"), ({"std": [0.4] * 3}, "got std alone"),
    ({"mean": [120.0] * 3, "std": [60.0] * 3}, "Divide by 255"), ({"mean": "imagenet", "std": "imagenet"}, "`mean` must be an array of numbers")])
def test_a_declared_normalisation_is_read_whole_or_refused(declared, mean, tmp_path):
    "Half of one was dropped without a word, and another package's names were not known."
    (tmp_path / "hubconf.py").write_text(f"from torch import nn\ndef tiny():\n    made = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), "
                                         f"nn.Conv2d(8, 16, 3, 2, 1), nn.ReLU())\n    made.default_cfg = {declared!r}\n    return made\n")
    name = f"hub:{tmp_path}:tiny"
    if not isinstance(mean, str): assert (found := load_encoder(name).mean) is mean or found.flatten().unique().tolist() == [pytest.approx(mean)]
    else:
        with pytest.raises(ValueError, match=mean): load_encoder(name)
    assert declared_normalisation(nn.Identity()) == {}


# Went well ------------------------------------------------------------------------------------------------------------------

def test_a_table_of_any_scale_stays_finite():
    "Columns from .1 to 1,680, as a table has them that nobody scaled."
    from latentlab.core.batch import Batch, Context
    from latentlab.core.settings import Live
    from latentlab.families.hvae.model import make_model
    from latentlab.latents.evaluate import evaluate
    from latentlab.latents.model import VAESettings
    from sklearn.datasets import load_wine

    x = torch.from_numpy(load_wine().data).float()
    model = make_model(VAESettings(), (13,), generator=stream())
    live, optimiser = Live(model.settings), torch.optim.Adam(model.parameters(), 1e-2)
    for step in range(30):
        terms = model.losses(Batch(x=x), Context(live=live, generator=stream(step), step=step))
        optimiser.zero_grad()
        (terms["nll"] + terms["kl"]).mean().backward()
        optimiser.step()
        model.after_step()
    found = evaluate(model, x, samples=10, generator=stream()).figures()
    assert all(np.isfinite(value) and abs(value) < 1e6 for value in found.values()), found


def test_photographs_are_trained_on():
    from sklearn.datasets import load_sample_images

    rng, crops = np.random.default_rng(0), []
    for number in range(64):
        picture = load_sample_images().images[number % 2] if number < 2 else crops[number % 2][1]
        y, x = rng.integers(picture.shape[0] - 63), rng.integers(picture.shape[1] - 63)
        crops.append((picture[y:y + 64, x:x + 64], picture))
    images = torch.from_numpy(np.stack([crop for crop, _ in crops])).permute(0, 3, 1, 2)  # strides of another order
    run = NEMRun().replace({"data": "scenes", "train.steps": 4, "train.batch": 4, "model.layers": 2, "model.width": 4, "train.device": "cpu"})
    trainer = Trainer(with_images(run, images)).fit(progress=False)
    keep = trainer.model.explain(trainer.setup.preview).keep
    assert keep.shape == (8, 64, 64) and keep.isfinite().all() and 0 < keep.mean() < 1
