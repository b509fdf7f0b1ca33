"A score of a datum depends on the datum, the model and the seed: not on what stands beside it, its order, or how work is cut into parts."
import pytest
import torch
from latentlab.families.hvae.model import make_model
from latentlab.latents.detection import Detector, above_score, below_score, elbo_score, llr_score
from latentlab.latents.evaluate import evaluate
from latentlab.latents.model import VAESettings
from latentlab.latents.regret import Effort, regret_score


def seeded(seed=0): return torch.Generator().manual_seed(seed)


def bits(n=20, seed=1): return (torch.rand(n, 1, 12, 12, generator=seeded(seed)) > 0.5).float()


def make(kind="hierarchical", layers=2):
    settings = VAESettings(kind=kind, likelihood="bernoulli", latents=(8, 4)[:layers], hidden=(16,), layers=layers)
    return make_model(settings, (1, 12, 12), generator=seeded())


SCORES = {"elbo": lambda m, x: elbo_score(m, x), "iw": lambda m, x: Detector(m, "iw", samples=13).predict(x),
          "above": lambda m, x: above_score(m, x, 1, samples=3), "above sampled": lambda m, x: above_score(m, x, 1, skip="sample"),
          "llr": lambda m, x: llr_score(m, x, 1, samples=12), "below": lambda m, x: below_score(m, x, 2, samples=11),
          "kl": lambda m, x: Detector(m, "kl", k=1).predict(x), "reconstruction": lambda m, x: Detector(m, "reconstruction").predict(x),
          "norm": lambda m, x: Detector(m, "norm").predict(x), "complexity": lambda m, x: Detector(m, "complexity").predict(x),
          "regret": lambda m, x: regret_score(m, x, effort=Effort(steps=3, samples=12))}


@pytest.mark.parametrize("name", SCORES)
@pytest.mark.parametrize("kind", ["hierarchical", "ladder"])
def test_a_score_does_not_depend_on_company(name, kind):
    model, x, order = make(kind), bits(), torch.randperm(20, generator=seeded(3))
    score = lambda data: SCORES[name](model, data)
    whole = score(x)
    for rows in (range(10), range(10, 20), [4], order.tolist()):
        assert (score(x[list(rows)]) - whole[list(rows)]).abs().max() < 1e-3


def test_an_auxiliary_model_and_an_encoder_for_each_datum():
    x = bits(4)
    model = make("auxiliary", 1)
    assert (elbo_score(model, x)[2:] - elbo_score(model, x[2:])).abs().max() < 1e-3
    effort, model = Effort(what="encoder", steps=2, samples=5), make()
    assert (regret_score(model, x, effort=effort)[2:] - regret_score(model, x[2:], effort=effort)).abs().max() < 1e-3


def test_bounds_do_not_depend_on_how_work_is_cut():
    model, x = make(), bits()
    whole = evaluate(model, x, samples=23, generator=seeded())
    for chunk, tile in ((3, 10), (500, 4), (7, 23)):
        cut = evaluate(model, x, samples=23, generator=seeded(), chunk=chunk, tile=tile)
        assert (cut.elbo - whole.elbo).abs().max() < 1e-3 and (cut.iw - whole.iw).abs().max() < 1e-3


def test_another_seed_is_other_noise():
    model, x = make(), bits()
    a, b = (elbo_score(model, x, seed=seed) for seed in (0, 1))
    assert (a - b).abs().median() > 0.01
    stream = seeded()
    assert not torch.equal(evaluate(model, x, generator=stream).elbo, evaluate(model, x, generator=stream).elbo)
    assert elbo_score(model, x, seed=0).equal(a)


def test_copies_of_a_datum_have_noise_of_their_own_and_the_first_one_that_of_the_datum_alone():
    model, x = make(), bits(3)
    alone, copies = elbo_score(model, x), elbo_score(model, torch.cat([x, x, x]))
    assert (copies[:3] - alone).abs().max() < 1e-3 and (copies[3:6] - copies[6:]).abs().min() > 1e-3
