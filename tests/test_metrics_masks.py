"""Metrics of masks: perfect, constant, duplicated and shuffled input, odd shapes, dtypes, and independent references."""
import math

import pytest
import torch
from latentlab.metrics import masks as m

PER_MAP = [m.high_frequency_share, m.line_score, m.border_share, m.corner_share]


def draw(*shape, seed=0): return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def disc(side, radius):
    at = torch.arange(side) - (side - 1) / 2
    return ((at[:, None] ** 2 + at**2).sqrt() < radius * side).float()


# hard masks ------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("shape", [(28, 28), (1, 2, 2), (5, 7, 11), (2, 3, 64, 48)])
def test_hard_keep_counts_like_python(shape):
    for share in [0.0, 1e-4, 0.03, 0.25, 1 / 3, 0.5, 0.999, 1.0]:
        n = shape[-2] * shape[-1]
        found = m.hard_keep(draw(*shape), torch.full(shape[:-2], share))
        assert set(found.unique().tolist()) <= {0.0, 1.0} and found.shape == shape
        assert (found.sum((-2, -1)) == math.ceil(round(n * share, 6))).all()


def test_hard_keep_keeps_the_highest_with_the_first_of_ties():
    z = torch.tensor([[3.0, 1.0], [1.0, 1.0]])
    assert m.hard_keep(z, torch.tensor(0.5)).tolist() == [[1, 1], [0, 0]]
    assert m.hard_keep(-z, torch.tensor(0.75)).tolist() == [[0, 1], [1, 1]]


def test_hard_keep_survives_the_rounding_of_a_mean():
    for count in [1, 7, 196, 783]:
        keep = torch.zeros(784)
        keep[torch.randperm(784, generator=torch.Generator().manual_seed(count))[:count]] = 1
        keep = keep.view(28, 28)
        assert torch.equal(m.hard_keep(keep, keep.mean()), keep)


def test_hard_keep_takes_its_own_area_for_each_image():
    z = draw(3, 8, 8)
    together = m.hard_keep(z, torch.tensor([0.1, 0.5, 0.9]))
    alone = torch.stack([m.hard_keep(z[i], torch.tensor(a)) for i, a in enumerate((0.1, 0.5, 0.9))])
    assert torch.equal(together, alone)


# moving ----------------------------------------------------------------------------------------------------------------

def test_move_equals_a_padded_crop():
    for down, right in [(0, 0), (1, 0), (-1, 0), (0, 2), (3, -2), (50, -50)]:
        keep = draw(2, 9, 7)
        reach = 60
        padded = torch.nn.functional.pad(keep[:, None], [reach] * 4, mode="replicate")[:, 0]
        expected = padded[:, reach - down : reach - down + 9, reach - right : reach - right + 7]
        assert torch.equal(m.move(keep, down, right), expected)


# localisation ----------------------------------------------------------------------------------------------------------

def test_top_share_of_a_perfect_an_opposite_and_a_constant_map():
    truth = disc(28, 0.3)
    assert m.top_share(truth, truth) == 1 and m.top_share(-truth, truth) == 0
    for value in (0.0, -7.0, 1e9):
        assert torch.isclose(m.top_share(torch.full((28, 28), value), truth), truth.mean())


def test_top_share_is_the_expectation_over_the_order_of_ties():
    g = torch.Generator().manual_seed(0)
    z = torch.randint(0, 4, (12, 12), generator=g).float()
    truth = (draw(12, 12, seed=1) < 0.3).float()
    k = int(truth.sum())
    broken = torch.stack([((z + 0.5 * torch.rand(12, 12, generator=g)).flatten().topk(k).indices) for _ in range(4000)])
    assert torch.isclose(m.top_share(z, truth), truth.flatten()[broken].mean(), atol=0.005)


def test_top_share_agrees_with_a_count_by_hand_where_nothing_is_tied():
    z, truth = draw(5, 16, 16), draw(5, 16, 16, seed=1) < 0.2
    for i in range(5):
        top = z[i].flatten().topk(int(truth[i].sum())).indices
        assert torch.isclose(m.top_share(z, truth)[i], truth[i].flatten()[top].float().mean())


def test_a_random_order_scores_the_share_of_the_truth():
    for share in [0.05, 0.3, 0.7]:
        truth = (draw(32, 32, seed=2) < share).float()
        z = m.random_logits(300, (32, 32), generator=torch.Generator().manual_seed(0))
        every = truth.expand(300, 32, 32)
        error = 3 * m.top_share(z, every).std() / math.sqrt(300)
        assert abs(m.top_share(z, every).mean() - truth.mean()) < error
        assert abs(m.pointing_game(z, every).mean() - truth.mean()) < 3 * 0.5 / math.sqrt(300)
        assert abs(m.relevance_mass(z.sigmoid(), every).mean() - truth.mean()) < 0.01


def test_scores_do_not_change_under_monotone_maps_and_shuffled_pixels():
    z, truth = draw(4, 10, 10), draw(4, 10, 10, seed=1) < 0.25
    order = torch.randperm(100, generator=torch.Generator().manual_seed(3))
    shuffle = lambda x: x.flatten(1)[:, order].view_as(x)
    for score in (m.top_share, m.pointing_game):
        assert torch.allclose(score(z, truth), score(torch.exp(5 * z), truth))
        assert torch.allclose(score(z, truth), score(shuffle(z), shuffle(truth)))


def test_what_has_no_answer_is_nan():
    assert m.top_share(draw(4, 4), torch.zeros(4, 4)).isnan()
    assert m.relevance_mass(torch.zeros(4, 4), disc(4, 0.5)).isnan()


# artefacts -------------------------------------------------------------------------------------------------------------

def test_combs_are_fast_and_blobs_are_slow():
    for side in [28, 29, 64]:
        comb = (torch.arange(side) % 2 == 0).float()
        rows, columns, board = comb[:, None].expand(side, side), comb.expand(side, side), (comb[:, None] - comb).abs()
        for keep in (rows, columns, board): assert m.high_frequency_share(keep) > 0.9
        assert m.high_frequency_share(disc(side, 0.35)) < 0.1
        soft = torch.exp(-((torch.arange(side) - side / 2) ** 2) / (side / 6) ** 2)
        assert m.high_frequency_share(soft[:, None] * soft) < 0.01


def test_high_frequency_share_is_a_share_of_parseval_power():
    keep = draw(3, 15, 20)
    slow = torch.fft.fft2(keep - keep.mean((-2, -1), keepdim=True))
    slow[..., torch.fft.fftfreq(15).abs() > 0.25, :] = 0
    slow[..., torch.fft.fftfreq(20).abs() > 0.25] = 0
    rest = torch.fft.ifft2(slow).real.square().mean((-2, -1)) / keep.var((-2, -1), correction=0)
    assert torch.allclose(m.high_frequency_share(keep), 1 - rest, atol=1e-5)


def test_a_constant_has_no_artefact():
    for value in [0.0, 0.3, 0.9999, 1.0]:
        keep = torch.full((2, 28, 28), value)
        assert torch.equal(m.high_frequency_share(keep), torch.zeros(2)) and torch.equal(m.line_score(keep), torch.zeros(2))
        assert (torch.allclose(m.border_share(keep), torch.ones(2), atol=1e-4)
                and torch.allclose(m.corner_share(keep), torch.ones(2), atol=1e-4))


@pytest.mark.parametrize("side", [28, 64])
@pytest.mark.parametrize("ground", [0.0, 0.3])
def test_a_line_is_found_and_named_wherever_it_is(side, ground):
    for at in [0, 1, 9, -2, -1]:
        keep = torch.maximum(0.9 * disc(side, 0.25), torch.tensor(ground))
        across = keep.clone()
        across[at] = 1
        assert m.line_score(across) > 15 > 5 > m.line_score(keep)
        assert m.line_excess(across).argmax() == at % side
        assert m.line_excess(across.T).argmax() == side + at % side


def test_a_comb_is_no_line():
    comb = (torch.arange(28) % 2 == 0).float()[:, None].expand(28, 28)
    assert m.line_score(comb) < 3 and m.line_score(comb * disc(28, 0.4)) < 5


def test_border_share_is_bounded_by_the_ring():
    for shape in [(28, 28), (64, 64), (20, 40)]:
        ring = torch.zeros(shape)
        high, wide = (max(1, round(0.05 * n)) for n in shape)
        ring[:high], ring[-high:], ring[:, :wide], ring[:, -wide:] = 1, 1, 1, 1
        assert torch.isclose(m.border_share(ring), 1 / ring.mean(), rtol=1e-3)
        assert m.border_share(1 - ring) < 1e-5
        assert torch.isclose(m.border_share(torch.full(shape, 0.2)), torch.tensor(1.0), atol=1e-4)


@pytest.mark.parametrize("metric", PER_MAP, ids=lambda f: f.__name__)
def test_each_map_is_measured_by_itself(metric):
    for lead in [(), (1,), (2, 3)]:
        keep = draw(*lead, 17, 23)
        found = metric(keep)
        assert found.shape == lead and found.dtype == torch.float32 and found.isfinite().all()
        for one, alone in zip(keep.reshape(-1, 17, 23), found.reshape(-1)): assert torch.isclose(metric(one), alone, rtol=1e-4)


@pytest.mark.parametrize("metric", PER_MAP, ids=lambda f: f.__name__)
def test_rows_and_columns_are_treated_alike(metric):
    keep = draw(3, 18, 26)
    assert torch.allclose(metric(keep), metric(keep.mT), rtol=1e-4)


@pytest.mark.parametrize("metric", [*PER_MAP, m.line_excess], ids=lambda f: f.__name__)
def test_the_smallest_mask_is_measured_and_less_is_refused(metric):
    assert metric(draw(2, 2)).isfinite().all()
    with pytest.raises(ValueError, match=r"a mask must be \[\*batch, height, width\]"): metric(draw(1, 5))


# agreement -------------------------------------------------------------------------------------------------------------

def test_common_share_of_duplicates_and_of_strangers():
    one = draw(1, 28, 28)
    assert torch.isclose(m.common_share(one.expand(9, 28, 28)), torch.tensor(1.0), atol=1e-5)
    assert abs(m.common_share(draw(50, 28, 28)) - 1 / 50) < 0.01
    assert torch.isclose(m.common_share(torch.full((5, 8, 8), 0.4)), torch.tensor(1.0), atol=1e-5)


def test_soft_iou_of_hard_masks_is_intersection_over_union():
    a, b = (draw(6, 12, 12, seed=s) < 0.4 for s in (0, 1))
    expected = (a & b).sum((-2, -1)) / (a | b).sum((-2, -1))
    assert torch.allclose(m.soft_iou(a.float(), b.float()), expected, atol=1e-5)
    assert torch.allclose(m.soft_iou(b.float(), a.float()), expected, atol=1e-5)


def test_rank_agreement_equals_scipy():
    stats = pytest.importorskip("scipy.stats")
    a, b = draw(4, 9, 9), torch.randint(0, 5, (4, 9, 9), generator=torch.Generator().manual_seed(1)).float()
    expected = [stats.spearmanr(x.flatten(), y.flatten()).statistic for x, y in zip(a, b)]
    assert torch.allclose(m.rank_agreement(a, b), torch.tensor(expected, dtype=torch.float32), atol=1e-4)


def test_rank_agreement_of_copies_reverses_and_constants():
    a = draw(3, 16, 16)
    assert torch.allclose(m.rank_agreement(a, a.exp()), torch.ones(3), atol=1e-4)
    assert torch.allclose(m.rank_agreement(a, -a), -torch.ones(3), atol=1e-4)
    assert torch.equal(m.rank_agreement(a, torch.ones(3, 16, 16)), torch.zeros(3))


# baselines -------------------------------------------------------------------------------------------------------------

def test_channel_mean_keeps_means_and_does_not_stretch():
    maps = draw(2, 8, 4, 4)
    found = m.channel_mean(maps, (28, 28))
    assert found.shape == (2, 28, 28) and found.max() <= maps.mean(1).max() and found.min() >= maps.mean(1).min()
    assert torch.allclose(m.channel_mean(maps.mean((-2, -1), keepdim=True).expand_as(maps), (9, 5))[:, 0, 0], maps.mean((1, 2, 3)),
                          atol=1e-6)


def test_random_logits_follow_their_generator():
    draws = [m.random_logits(2, (5, 6), generator=torch.Generator().manual_seed(s)) for s in (0, 0, 1)]
    assert torch.equal(draws[0], draws[1]) and not torch.equal(draws[0], draws[2])
