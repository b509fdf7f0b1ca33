"""Checks on variable-length embeddings that were really trained, wrongly on purpose: each names its failure, and a healthy run beside it is quiet.

Whether a planted mask is caught is tested in the notebooks; here the failure comes out of training. About 40 s of one core.
"""
import functools

import pytest
from latentlab.families.vle.experiment import VLERun
from latentlab.train.trainer import Trainer

SHARED = dict(images=2000, width=8, side=16, latent=2, check_every=10_000, checkpoint_every=10_000, device="cpu")
IMAGES = VLERun().replace(name="fashion-mnist", levels=3, tokens=4, batch=16, learning_rate=3e-3, **SHARED)
MASKS = VLERun().replace(name="scenes", levels=4, tokens=5, batch=8, learning_rate=5e-3, variant="saliency", head=8, input="masked_residual",
                         any_time_scale=0.0, log_error_scale=0.0, final_scale=1.0, **SHARED)


@functools.cache
def verdicts(run):
    "Of 300 steps."
    return {verdict.name: verdict for verdict in Trainer(run).fit(300, progress=False).measure().verdicts}


@pytest.mark.slow
@pytest.mark.parametrize("run", [IMAGES, MASKS], ids=["images", "masks"])
def test_a_healthy_run_is_quiet(run):
    assert {name: verdict.sentence for name, verdict in verdicts(run).items() if verdict.level == "bad"} == {}


@pytest.mark.slow
def test_a_price_of_ten_a_nat_empties_the_tokens():
    found = verdicts(IMAGES.replace(stochastic=True, kl_scale=10.0))["KL"]
    assert (found.level, found.value) == ("bad", 1.0) and found.remedy == "lower kl_scale"
    assert verdicts(IMAGES.replace(stochastic=True, kl_scale=1e-4))["KL"].level == "ok"  # what the remedy asks for


@pytest.mark.slow
def test_a_loss_against_the_mask_before_ends_in_full_and_empty_and_pulls_against_the_error():
    found = verdicts(MASKS.replace(running="sum", previous_scale=1.0))
    assert found["masks"].level == "bad" and found["masks"].sentence.startswith("full and empty in turn")
    assert found["pull"].level == "warn" and found["pull"].sentence.startswith("the gradient of previous has a cosine of -0.")
    assert found["settings"].level == "warn" and "full, empty, full" in found["settings"].sentence  # said before the first step
    assert verdicts(MASKS)["pull"].level == "ok"
