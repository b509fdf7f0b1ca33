"""Codes beside variable-length embeddings: what is stored decodes, rounding is paid for, training repeats, lengths keep their budget."""
import numpy as np
import pytest
import torch

from latentlab.core.runtime import generator
from latentlab.families.vle.evaluate import Distortion, bit_rate, measure_code, rate_distortion
from latentlab.families.vle.length import CurvePredictor, hull_steps, lengths_for_mean, lengths_for_target, target_for_mean
from latentlab.families.vle.model import VLE, VLESettings
from latentlab.families.vle.peers import LoopCode, NestedCode, PrincipalCode, SlotCode, TokenCode, decode_all, fit_code, squared_error
from latentlab.families.vle.trace import to_pixels

SHAPE = dict(channels=3, side=16, width=4, levels=3)


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    "Smooth coloured images, so that a short training does something."
    coarse = torch.rand(48, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    return torch.nn.functional.interpolate(coarse, size=16, mode="bilinear")


def seeded(make, seed=0):
    "What `make` builds with initial weights of a seed."
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return make()


@pytest.mark.parametrize("changes", [
    {}, {"variant": "inherent"}, {"variant": "saliency"}, {"variant": "inherent", "running": "clamp", "input": "residual_mask"},
    {"variant": "constructor", "input": "image_reconstruction"}, {"memory": "latent"}, {"memory": "decoder", "count_input": True}],
    ids=lambda changes: "-".join(map(str, changes.values())) or "plain")
def test_units_hold_all_that_the_decoder_needs(changes, images):
    model = VLE(VLESettings(width=4, levels=3, latent=4, **changes), channels=3, side=16, generator=generator(0, "model")).eval()
    code = TokenCode(model, 3)
    with torch.no_grad():
        units, trace = code.encode(images[:4], 3), model.roll(images[:4], 3)
        assert units.shape == (3, 4, code.floats) and code.floats == trace.floats
        torch.testing.assert_close(code.decode(units)[1:], to_pixels(trace.after), atol=1e-5, rtol=1e-4)
        shorter = code.encode(images[:4], 2)
    assert torch.allclose(shorter, units[:2], atol=1e-5) or not code.prefix


@pytest.mark.parametrize("make", [lambda: LoopCode(12, standardised=True, **SHAPE), lambda: LoopCode(12, standardised=False, **SHAPE),
                                  lambda: NestedCode(12, 3, **SHAPE), lambda: SlotCode(12, 3, **SHAPE)],
                         ids=["standardised", "raw", "nested", "slots"])
def test_codes_of_colour_images_train_alike_twice_and_pay_for_bits(make, images):
    first, again = (seeded(make) for _ in range(2))
    courses = [fit_code(code, images, steps=12, batch=16, seed=5) for code in (first, again)]
    assert courses[0] == courses[1] and courses[0][-1] < courses[0][0]
    assert all(torch.equal(a, b) for a, b in zip(first.state_dict().values(), again.state_dict().values()))
    coarse, fine = (bit_rate("code", first, images, images[:6], 3, fineness=fineness) for fineness in (1.0, 6.0))
    plain = measure_code("code", first, images[:6], 3).mse[1:]
    assert (coarse.bits[-1] < fine.bits[-1]).all() and (fine.bits > 0).all()
    assert (fine.mse.mean(1) - plain.mean(1)).abs().max() < 0.3 * plain.mean()


def test_a_training_that_is_not_finite_says_so(images):
    with pytest.raises(RuntimeError, match="must keep the error finite"):
        fit_code(seeded(lambda: NestedCode(4, 2, **SHAPE)), images * float("nan"), steps=2, batch=8)


def test_a_loop_mends_its_own_rounding(images):
    "Coarse tokens: coding on from rounded tokens is better than rounding the tokens that were made without."
    code = seeded(lambda: LoopCode(20, standardised=True, **SHAPE))
    fit_code(code, images, steps=60, batch=16)
    grid = lambda unit, k: (unit * 4).round() / 4
    with torch.no_grad():
        closed = squared_error(code.decode(code.encode(images, 4, grid)), images)[-1].mean()
        late = squared_error(code.decode(torch.stack([grid(unit, k) for k, unit in enumerate(code.encode(images, 4))])), images)[-1].mean()
    assert closed < late


def test_slots_are_made_anew_for_each_number(images):
    code = seeded(lambda: SlotCode(12, 3, **SHAPE))
    with torch.no_grad():
        after = decode_all(code, images[:4], 3)
        for k in (1, 2, 3): torch.testing.assert_close(after[k], code.decode(code.encode(images[:4], k))[-1].clamp(0, 1))


def test_principal_components_are_the_best_linear_code(images):
    "No other orthonormal axes of as many numbers leave less of the training images."
    code, flat = PrincipalCode(images, 4, 2), images.flatten(1) - images.flatten(1).mean(0)
    left = squared_error(decode_all(code, images, 2), images)[-1].mean()
    for seed in range(3):
        axes = torch.linalg.qr(torch.randn(flat.shape[1], 8, generator=torch.Generator().manual_seed(seed))).Q
        assert left < (flat - flat @ axes @ axes.T).square().mean()


def test_tables_hold_codes_of_one_length_and_of_many():
    rows = rate_distortion([Distortion(name="wide", floats=60, mse=torch.tensor([[0.1, 0.2], [0.01, 0.02]])),
                            Distortion(name="loop", floats=10, mse=torch.tensor([[0.1, 0.2], [0.05, 0.3], [0.02, 0.1]]))])
    assert [(row["code"], row["floats"]) for row in rows] == [("wide", 0), ("wide", 60), ("loop", 0), ("loop", 10), ("loop", 20)]
    assert rows[3]["harmed"] == 0.5 and rows[4]["harmed"] == 0.0 and "gain" not in rows[2] and "ssim" not in rows[0]


def test_a_budget_is_never_exceeded_and_more_is_never_worse():
    stream = np.random.default_rng(0)
    curves = np.sort(stream.random((50, 7)), axis=1)[:, ::-1] * stream.random((50, 1))
    at = np.arange(50)
    found = [lengths_for_mean(curves, mean) for mean in np.linspace(0, 6, 25)]
    assert all(chosen.mean <= mean + 1e-9 for chosen, mean in zip(found, np.linspace(0, 6, 25)))
    errors = [curves[at, chosen.tokens].mean() for chosen in found]
    assert (np.diff(errors) <= 1e-12).all() and found[-1].mean == 6
    assert (np.diff(hull_steps(curves).slope) <= 0).all()
    assert lengths_for_target(curves, target_for_mean(curves, 2.5)).mean <= 2.5


def test_curves_that_only_rise_get_no_tokens():
    rising = np.tile(np.arange(1.0, 5.0), (3, 1))
    assert lengths_for_mean(rising, 2.0).tokens.tolist() == [0, 0, 0] and lengths_for_mean(rising, 2.0, least=1).tokens.tolist() == [1, 1, 1]
    assert len(hull_steps(rising).slope) == 0


def test_predicted_curves_keep_the_mean_of_the_true_ones():
    "Errors are skewed: a regression of logarithms alone would predict too little."
    stream = np.random.default_rng(0)
    curves = np.exp(stream.normal(size=(1000, 4)))
    predicted = CurvePredictor(np.zeros((500, 1)), curves[:500], kind="ridge")(np.zeros((500, 1)))
    assert np.abs(predicted.mean(0) / curves[500:].mean(0) - 1).max() < 0.35 and predicted.mean() > 1.3
