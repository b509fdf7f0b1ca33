"Checks of a run over time, on runs that were really trained, of seeds on which no threshold was set."

import functools
from pathlib import Path

import pytest
import torch
from PIL import Image

from latentlab.families.hvae.diagnostics import HVAE_CHECKS
from latentlab.data.images import load
from latentlab.data.sources import fixed_bits, foreign_images
from latentlab.families.hvae.experiment import HVAERun
from latentlab.families.hvae.stored import RECIPE
from latentlab.latents.checks import LATENT_CHECKS
from latentlab.latents.detection import score_table
from latentlab.latents.progress import PROGRESS_CHECKS, far_from_oracle, k_choice, rise_of, standstill
from latentlab.train.trainer import Trainer


@functools.cache
def trained(name: str, seed: int, steps: int, every: int, **changes: object) -> tuple:
    "The last measurement of a run, and the bounds of all of them."
    run = HVAERun().replace({"data.name": name, "train.seed": seed, "train.steps": steps, "check_every": every,
                             "train.device": "cpu", **changes})
    trainer = Trainer(run).fit(steps, progress=False)
    return trainer.session.measurements[-1], tuple(trainer.setup.diagnostics.history.elbos)


def levels(measured: tuple) -> dict[str, str]: return {verdict.name: verdict.level for verdict in measured[0].verdicts}


@pytest.mark.slow
@pytest.mark.parametrize("seed", [5, 6])
def test_spirals_that_settled_for_a_disc_are_caught(seed: int) -> None:
    found = trained("spirals", seed, 4000, 100)
    said = levels(found)
    assert found[0].figures["oracle_gap"] > 0.8 and said["far_from_oracle"] == "bad", found[0].verdicts


@pytest.mark.slow
@pytest.mark.parametrize(("seed", "level"), [(6, "ok"), (5, "bad")], ids=["still rising", "at rest"])
def test_moons_far_from_the_oracle_are_judged_by_whether_they_still_rise(seed: int, level: str) -> None:
    "One draw a step leaves both .5 nats and more below the oracle after 4,000 steps; one of them is on its way."
    found = trained("moons", seed, 4000, 100, layers=2)
    assert found[0].figures["oracle_gap"] > 0.4 and levels(found)["far_from_oracle"] == level, found[0].verdicts


@pytest.mark.slow
@pytest.mark.parametrize("seed", [3, 4])
def test_a_run_that_reached_the_oracle_is_left_in_peace(seed: int) -> None:
    "Two layers on moons with the importance-weighted objective end within .2 nats: neither far, nor is their rest a fault."
    found = trained("moons", seed, 4000, 100, layers=2, objective="iw", samples=8, gradient="dreg")
    assert found[0].figures["oracle_gap"] < 0.25 and {levels(found)[name] for name in ("far_from_oracle", "standstill")} == {"ok"}, found[0]


def test_a_young_run_is_not_judged_and_a_rising_one_has_not_stopped() -> None:
    assert PROGRESS_CHECKS == (far_from_oracle, standstill) and len(HVAE_CHECKS) == len(LATENT_CHECKS) + 2
    measured, history = trained("moons", 7, 160, 8)
    assert levels((measured,))["far_from_oracle"] == levels((measured,))["standstill"] == "ok"
    rise = rise_of(history)
    assert rise is not None and rise.mean > 0 and not rise.stopped and rise_of(history[:19]) is None


STORED = {"data.name": "fashion-mnist", "data.images": 500, "train.device": "cpu", "start": "stored", **RECIPE}


def folder_of(images: torch.Tensor, place: Path) -> str:
    "Grey images as files, and what a setting calls them."
    place.mkdir()
    for i, image in enumerate(images): Image.fromarray(image[0].numpy()).save(place / f"{i:03d}.png")
    return f"folder:{place}"


@pytest.mark.parametrize(("planted", "level"), [(False, "ok"), (True, "warn")], ids=["foreign digits", "the same clothes"])
def test_llr_at_chance_is_said_of_a_set_that_is_not_foreign(planted: bool, level: str, tmp_path: Path) -> None:
    "The stored hierarchy: digits are foreign to it, and clothes from a folder, which it was told were foreign, are not."
    outside = folder_of(load("fashion-mnist", "train").images[-80:], tmp_path / "clothes") if planted else "mnist"
    trainer = Trainer(HVAERun().replace({**STORED, "data.outside": outside}))
    verdict = trainer.setup.diagnostics.judge_scores(trainer.model, trainer.model.live, early=False)
    assert (verdict.name, verdict.level) == ("llr_at_chance", level), verdict


@functools.cache
def llr_of(outside: str) -> dict:
    "k -> what LLR>k of the stored hierarchy is worth, 100 images a side."
    model = Trainer(HVAERun().replace(STORED)).model.eval()
    ours, theirs = (fixed_bits(images.subset(torch.arange(100)), "dynamic", torch.device("cpu"), "test")
                    for images in (load("fashion-mnist", "test"), foreign_images(outside)))
    return score_table(model, ours, theirs, names=["llr"], resamples=50).figures_of("llr")


def test_a_k_that_another_pair_would_not_have_chosen_is_named() -> None:
    "Omniglot chooses the k that is best on digits; inverted clothes, which every score finds, choose the other."
    digits, letters, inverted = map(llr_of, ("mnist", "omniglot", "inverted:fashion-mnist"))
    assert digits[1].auroc.value > 0.9 > 0.7 > digits[2].auroc.value and inverted[2].auroc.value > inverted[1].auroc.value
    assert k_choice(digits, letters).level == "ok" and k_choice(digits).level == "warn"
    wrong = k_choice(digits, inverted)
    assert wrong.level == "warn" and "chooses k = 2; reported is k = 1" in wrong.sentence, wrong
    assert k_choice(digits, inverted, reported=2).level == "ok"


@pytest.mark.slow
@pytest.mark.parametrize("seed", [5, 6, 7])
@pytest.mark.parametrize(("planted", "level"), [(False, "ok"), (True, "warn")], ids=["foreign digits", "the same clothes"])
def test_llr_at_chance_of_dense_hierarchies_that_were_trained(seed: int, planted: bool, level: str, tmp_path: Path) -> None:
    "Four epochs of the hierarchy of questions/hvae_outside; no threshold was set on these seeds."
    model = dict(layers=3, latents=(64, 8, 4), hidden=((256, 256), (128, 128), (64, 64)), activation="leaky_relu", skips=True, free_nats=2.0,
                 batch=128, learning_rate=1e-3, **{"data.images": 60000})
    outside = folder_of(load("fashion-mnist", "train").images[-80:], tmp_path / "clothes") if planted else "mnist"
    found = trained("fashion-mnist", seed, 1872, 1872, **model, **{"data.outside": outside})
    assert levels(found)["llr_at_chance"] == level, found[0].verdicts
