"""Figures of disentanglement: invariances, independent computations, and codes and factors of unusual shapes."""

import math

import numpy as np
import pytest
import torch

from latentlab.core.factors import Factor
from latentlab.core.runtime import generator
from latentlab.data.causal import flow, pendulum
from latentlab.data.sprites import SPRITE_FACTORS, SpriteSettings, draw_sprites
from latentlab.metrics.disentanglement import (
    code_information, disentanglement_figures, factor_pair_score, factor_vote_score, level_entropies, mig_parts, modularity, probe_scores,
    robustness, shares_of_information, single_scores, tree_scores,
)


@pytest.fixture(scope="module")
def sprites():
    images = draw_sprites(4000, seed=3, settings=SpriteSettings(side=16))
    values = images.factor_values
    return (values - values.mean(0)) / values.std(0), values, images.levels()


def counted(codes, values, levels):
    "Figures that read the table of information."
    table, entropies = code_information(codes, levels), level_entropies(levels)
    return [mig_parts(table, entropies).mean().item(), modularity(table, entropies), *shares_of_information(table, entropies)]


def test_order_sign_scale_and_shift_of_latents_change_nothing(sprites):
    codes, values, levels = sprites
    codes = codes + 0.5 * codes.roll(1, 1)
    other = -3 * codes[:, [4, 0, 3, 1, 2]] + 7
    # a value on the edge of a bin may fall on its other side
    assert counted(codes, values, levels) == pytest.approx(counted(other, values, levels), abs=0.01)
    for score in (lambda z: single_scores(z, values, SPRITE_FACTORS).amax(0), lambda z: probe_scores(z, values, SPRITE_FACTORS),
                  lambda z: robustness(z, levels).amax(0)):
        torch.testing.assert_close(score(codes), score(other), atol=2e-3, rtol=0)


def test_order_of_examples_changes_nothing_that_counts(sprites):
    codes, values, levels = sprites
    order = torch.randperm(len(codes), generator=generator(0, "order"))
    assert counted(codes, values, levels) == pytest.approx(counted(codes[order], values[order], levels[order]), abs=1e-5)


def test_single_scores_agree_with_correlations(sprites):
    codes, values, levels = sprites
    mixed = codes @ torch.randn(5, 3, generator=generator(0, "mix"))
    found = single_scores(mixed, values, SPRITE_FACTORS)
    for i in range(3):
        for j in (1, 3, 4): assert found[i, j] == pytest.approx(np.corrcoef(mixed[:, i], values[:, j])[0, 1] ** 2, abs=1e-4)


def test_information_does_not_exceed_either_entropy(sprites):
    codes, values, levels = sprites
    for by in ("width", "count"):
        table = code_information(codes.exp(), levels, by=by)
        assert (table <= level_entropies(levels) + 1e-5).all() and (table <= math.log(20) + 1e-5).all() and (table >= 0).all()


def test_a_single_latent_and_a_single_factor(sprites):
    codes, values, levels = sprites
    one = disentanglement_figures(codes[:, 1:2], values[:, 1:2], SPRITE_FACTORS[1:2], generator=generator(0, "v"))
    assert one["mig"] == pytest.approx(1, abs=1e-3) and one["infoe"] > 0.99 and one["factor_vae"] == 1 and one["infoc"] == 1
    assert math.isnan(one["modularity"]), "with one factor there is nothing to be modular about"


def test_dead_latents_change_nothing_that_asks_about_factors(sprites):
    codes, values, levels = sprites
    padded = torch.cat([codes, torch.zeros(len(codes), 3)], 1)
    assert counted(padded, values, levels)[:3] == pytest.approx(counted(codes, values, levels)[:3], abs=1e-6)
    for table in (codes, padded): assert factor_vote_score(table, levels, generator=generator(0, "v"), votes=(500, 500)) > 0.98
    assert tree_scores(padded, values, SPRITE_FACTORS, depths=()).disentanglement > 0.97


def test_a_latent_that_switches_rarely_is_seen():
    factor = (torch.arange(4000) % 100 == 0).long()[:, None]  # one row in a hundred
    table = code_information(factor.float(), factor)
    assert mig_parts(table, level_entropies(factor)).item() == pytest.approx(1, abs=1e-5)
    assert shares_of_information(table, level_entropies(factor)) == (1.0, 1.0)


@pytest.mark.parametrize("world", [pendulum(), flow()], ids=lambda w: w.name)
def test_factors_that_take_any_value(world):
    values = world.sample(4000, seed=0)
    codes = (values - values.mean(0)) / values.std(0)
    found = disentanglement_figures(codes, values, world.factors, generator=generator(0, "v"), trees=False) if world.name == "flow" else None
    scores = probe_scores(codes, values, world.factors)
    assert scores.min() > 0.999
    if found: assert found["infoe"] > 0.999 and 0 < found["mig"] < 0.9, "effects are known from their causes: less than 1 is right"


def test_pairs_share_their_level(sprites):
    "A factor alone in the code is told from the others; without any it is not."
    codes, values, levels = sprites
    only = torch.cat([codes[:, 3:4], torch.randn(len(codes), 4, generator=generator(0, "n"))], 1)
    told, none = (factor_pair_score(z, levels, generator=generator(0, "v")) for z in (only, only[:, 1:]))
    assert 0.35 < told < 0.5 and none < 0.3  # one factor in five is told, the rest is guessed among four


def test_wrong_tables_are_refused(unchecked):
    x = (Factor(name="x"),)
    for call, message in (
        (lambda: probe_scores(torch.zeros(5, 2), torch.zeros(4, 1), x), r"got \(5, 2\) and \(4, 1\)"),
        (lambda: tree_scores(torch.full((5, 2), math.nan), torch.zeros(5, 1), x), "`codes` must be finite: got 10 numbers"),
        (lambda: single_scores(torch.zeros(5, 2), torch.full((5, 1), 2.0), x), "`x` must be from 0 to 1: got 2"),
        (lambda: factor_vote_score(torch.rand(100, 2), torch.arange(100)[:, None], generator=generator(0)),
         "`levels` must have at least 64 rows in some level: got at most 1"),
    ):
        with pytest.raises(ValueError, match=message): call()
