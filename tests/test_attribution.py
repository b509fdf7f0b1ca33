"""Baselines of explanations and how faithful an order is: odd shapes, channels, fills, and what is refused. Known answers stand in the notebook."""
import pytest
import torch
from latentlab.metrics.attribution import (centre_blob, edges, faithfulness, gradient_size, gradient_times_input, integrated_gradients,
                                           random_masks, relax)
from test_nem import pictures, seeded, small


@pytest.mark.parametrize("channels, side", [(1, 14), (3, 17)])
def test_every_baseline_gives_one_finite_score_a_pixel(channels, side):
    encoder, x = small(channels), pictures(3, channels, side)
    fill = torch.zeros_like(x)
    found = relax(encoder, x, fill=fill, masks=30, chunk=7, generator=seeded())
    maps = (found.importance, found.uncertainty, found.error, found.rise, found.certain, gradient_size(encoder, x),
            gradient_times_input(encoder, x, fill), integrated_gradients(encoder, x, fill, steps=3).sum(1), edges(x),
            centre_blob(3, (side, side)))
    assert found.masks == 30
    assert all(one.shape == (3, side, side) and one.isfinite().all() for one in maps)


def test_chunks_and_neighbours_change_nothing():
    encoder, x = small(), pictures(4)
    whole = relax(encoder, x, fill=torch.zeros_like(x), masks=24, chunk=24, generator=seeded())
    alone = relax(encoder, x[2:3], fill=torch.zeros_like(x[:1]), masks=24, chunk=24, generator=seeded())
    assert torch.allclose(whole.importance[2], alone.importance[0], atol=1e-5)


def test_masks_are_moved_by_more_than_a_published_few_pixels():
    masks = random_masks(400, (28, 28), cells=7, generator=seeded())
    spread = masks.var(0)
    assert abs(masks.mean() - 0.5) < 0.03 and spread.std() / spread.mean() < 0.15  # no pixel of the grid stands out


def test_insertion_and_deletion_of_the_same_order_turned_round_change_places():
    encoder, x = small(), pictures(4)
    scores = torch.rand(4, 28, 28, generator=seeded())
    there, back = (faithfulness(encoder, x, s, fill=torch.zeros_like(x), points=4, generator=seeded()) for s in (scores, -scores))
    assert torch.allclose(there.insertion, back.deletion, atol=1e-5) and torch.allclose(there.difference, -back.difference, atol=1e-5)


def test_a_comb_is_worth_nothing_one_pixel_to_the_side():
    from latentlab.metrics.masks import move
    from latentlab.nn.encoders import FrozenEncoder
    from torch import nn

    class Strided(nn.Module):
        "Sees every second pixel of every second row."

        def __init__(self):
            super().__init__()
            self.first = nn.AvgPool2d(1, 2)

        def forward(self, x): return self.first(x).flatten(1)

    encoder, x = FrozenEncoder(Strided(), ("first",), lambda output: output), pictures(4)
    comb = torch.zeros(4, 28, 28)
    comb[:, ::2, ::2] = 1
    score = lambda scores: faithfulness(encoder, x, scores, fill=torch.zeros_like(x), generator=seeded()).difference.mean()
    assert score(comb) > 0.1 and score(move(comb, 1, 1)) < 0
