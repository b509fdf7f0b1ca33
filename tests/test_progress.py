"Checks of a run over time, on runs that were really trained, of seeds on which no threshold was set."

import functools

import pytest

from latentlab.families.hvae.diagnostics import HVAE_CHECKS
from latentlab.families.hvae.experiment import HVAERun
from latentlab.latents.checks import LATENT_CHECKS
from latentlab.latents.progress import PROGRESS_CHECKS, far_from_oracle, rise_of, standstill
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
