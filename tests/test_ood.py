"""Telling two sets apart, and the scores that do it from arrays: known cases, invariances, independent references, refusals."""
import io
import itertools
import math
import time

import numpy as np
import pytest
import torch
from latentlab.metrics import ood, scores

FOUR = [ood.auroc, ood.auprc, ood.aupr_in, lambda a, b: ood.fpr_at(0.8, a, b), lambda a, b: ood.fpr_at(0.95, a, b)]


def rng(seed=0): return torch.Generator().manual_seed(seed)


def draw(*shape, seed=0): return torch.randn(*shape, generator=rng(seed), dtype=torch.float64)


def five(inside, outside): return [figure(inside, outside) for figure in FOUR]


# figures ---------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("sizes", [(1, 1), (1, 7), (40, 3), (200, 200), (31, 500)])
def test_figures_equal_scikit_learn_with_ties(sizes):
    for levels in [1, 2, 5, 1000]:
        metrics = pytest.importorskip("sklearn.metrics")
        inside, outside = (torch.randint(levels, (n,), generator=rng(seed + n)).float() + seed * levels / 3 for seed, n in enumerate(sizes))
        outside = outside.round()
        truth, score = np.repeat([0, 1], sizes), torch.cat([inside, outside]).numpy()
        fpr, tpr, _ = metrics.roc_curve(truth, score, drop_intermediate=False)
        expected = [metrics.roc_auc_score(truth, score), metrics.average_precision_score(truth, score),
                    metrics.average_precision_score(1 - truth, -score)]
        expected += [fpr[np.argmax(tpr >= share - 1e-12)] for share in (0.8, 0.95)]
        assert five(inside, outside) == pytest.approx(expected, abs=1e-12)
        points = ood.curve(inside, outside)
        assert points.fpr.numpy() == pytest.approx(fpr) and points.tpr.numpy() == pytest.approx(tpr)


def test_auroc_is_the_count_of_pairs():
    for levels in [2, 6, 10**6]:
        inside, outside = (torch.randint(levels, (n,), generator=rng(n)).double() for n in (83, 57))
        pairs = outside[:, None] - inside
        assert ood.auroc(inside, outside) == (2 * (pairs > 0).sum() + (pairs == 0).sum()).item() / (2 * 83 * 57)


def test_perfect_reversed_constant():
    low, high, same = draw(50), draw(60) + 100, torch.full((50,), 0.3)
    assert five(low, high) == [1, 1, 1, 0, 0]
    assert ood.auroc(high, low) == 0 and ood.fpr_at(0.8, high, low) == 1
    assert five(same, same) == [0.5, 0.5, 0.5, 1, 1]
    assert ood.auprc(same, same[:10]) == pytest.approx(10 / 60) and ood.aupr_in(same, same[:10]) == pytest.approx(50 / 60)


def test_ranks_alone_matter():
    for transform in [lambda s: 3 * s - 7, torch.exp, torch.atan, lambda s: s**3]:
        inside, outside = draw(70).round(decimals=1), (draw(90, seed=1) + 0.5).round(decimals=1)
        assert five(transform(inside), transform(outside)) == five(inside, outside)


def test_order_and_duplication_do_not_matter():
    inside, outside = draw(40).round(decimals=1), (draw(40, seed=1) + 0.5).round(decimals=1)
    shuffled = inside[torch.randperm(40, generator=rng())], outside[torch.randperm(40, generator=rng(1))]
    assert five(*shuffled) == five(inside, outside)
    assert five(inside.repeat(3), outside.repeat(3)) == pytest.approx(five(inside, outside), abs=1e-12)
    assert ood.auroc(inside, outside) == pytest.approx(1 - ood.auroc(outside, inside)) == pytest.approx(1 - ood.auroc(-inside, -outside))
    assert ood.aupr_in(inside, outside) == pytest.approx(ood.auprc(-outside, -inside))


def test_any_precision_and_numpy():
    for dtype in [torch.float16, torch.bfloat16, torch.float32, torch.float64]:
        inside, outside = draw(30).to(dtype), (draw(30, seed=1) + 1).to(dtype)
        expected = ood.auroc(inside.double(), outside.double())
        assert ood.auroc(inside, outside) == expected == ood.auroc(inside.double().numpy(), outside.requires_grad_())


def test_neighbouring_floats_are_no_tie():
    one = torch.tensor([1.0])
    assert ood.auroc(one, torch.nextafter(one, one + 1)) == 1 and ood.auroc(one.double(), one.double() + 1e-15) == 1


def test_share_found_is_counted_not_rounded():
    for share, n in itertools.product((0.07, 0.1, 0.29, 0.3, 0.55, 0.56, 0.7, 0.8, 0.95, 1.0), (5, 10, 20, 100)):
        inside = outside = torch.arange(float(n))
        needed = math.ceil(round(share * n, 9))
        expected = (inside >= n - needed).double().mean().item()
        assert ood.fpr_at(share, inside, outside) == expected


@pytest.mark.parametrize(("wrong", "rule"), [
    (torch.zeros(0), "must hold at least one score"), (torch.zeros(2, 2), "must be one score per example"),
    (torch.tensor(1.0), "must be one score per example"),
    (torch.tensor([1.0, math.nan]), "must be finite: got 1 of 2"), (torch.tensor([math.inf, -math.inf, 0]), "must be finite: got 2 of 3"),
    (np.array([np.nan]), "must be finite"),
])
def test_scores_without_ranks_are_refused(unchecked, wrong, rule):
    good = torch.arange(3.0)
    calls = [*FOUR, ood.curve, ood.count, lambda a, b: ood.compare_sets(a, b, seed=0), lambda a, b: ood.gain(a, b, a, b, seed=0)]
    for call in calls:
        with pytest.raises(ValueError, match=f"`scores_in` {rule}"): call(wrong, good)
        with pytest.raises(ValueError, match=f"`scores_out` {rule}"): call(good, wrong)


def test_an_impossible_share_is_refused():
    for tpr in [0, -0.1, 1.01, 95, math.nan]:
        with pytest.raises(ValueError, match=r"`tpr` must be in \(0, 1\]"): ood.fpr_at(tpr, draw(3), draw(3))


def test_curve_rises_and_its_points_are_rates():
    inside, outside = draw(60).round(decimals=1), (draw(45, seed=1) + 0.5).round(decimals=1)
    points = ood.curve(inside, outside)
    assert (points.threshold.diff()[1:] < 0).all() and points.threshold[0] == math.inf
    assert (points.fpr.diff() >= 0).all() and (points.tpr.diff() >= 0).all() and points.fpr[-1] == points.tpr[-1] == 1
    assert torch.trapezoid(points.tpr, points.fpr).item() == pytest.approx(ood.auroc(inside, outside))
    for threshold in (-9.0, -0.25, 0.0, 0.1, 0.15, 9.0, math.inf):
        point = points.at(threshold)
        assert [point.fpr.item(), point.tpr.item()] == [(scores_of >= threshold).double().mean().item() for scores_of in (inside, outside)]


# intervals -------------------------------------------------------------------------------------------------------------

def test_a_resample_by_weights_equals_a_resample_by_copies():
    inside, outside = draw(25).round(decimals=1), (draw(30, seed=1) + 0.5).round(decimals=1)
    found = ood.bootstrap(inside, outside, resamples=40, generator=rng(7))
    g = rng(7)
    weights = [ood.draw_weights(len(s), 40, generator=g) for s in (inside, outside)]
    for i in range(40):
        copies = [s.repeat_interleave(w[i].long()) for s, w in zip((inside, outside), weights)]
        assert found[:, 1 + i].tolist() == pytest.approx(five(*copies), abs=1e-12)
    assert found[:, 0].tolist() == pytest.approx(five(inside, outside))


def test_blocks_do_not_change_the_length():
    assert ood.bootstrap(draw(3_000), draw(3_000, seed=1), resamples=700, generator=rng()).shape == (5, 701)  # two blocks: 666 and 34


def test_weights_are_uniform_and_independent():
    weights = ood.draw_weights(20, 5000, generator=rng())
    assert (weights.sum(1) == 20).all() and weights.min() == 0
    assert (weights.mean(0) - 1).abs().max() < 4 * math.sqrt(0.95 / 5000)
    assert weights.var().item() == pytest.approx(0.95, abs=0.02)  # binomial(20, 1/20)


def test_the_spread_is_that_of_hanley_and_mcneil():
    inside, outside = draw(400), draw(400, seed=1) + 1
    a = ood.auroc(inside, outside)
    q1, q2 = a / (2 - a), 2 * a * a / (1 + a)
    error = math.sqrt((a * (1 - a) + 399 * (q1 - a * a) + 399 * (q2 - a * a)) / 400**2)
    found = ood.compare_sets(inside, outside, seed=0, resamples=2000).auroc
    assert (found.high - found.low) / (2 * 1.96) == pytest.approx(error, rel=0.1)


def test_compare_sets_is_replayed_by_its_seed_and_says_what_it_left_out():
    inside, outside = draw(300), draw(80, seed=1) + 0.5
    one, two, other = (ood.compare_sets(inside, outside, seed=s, resamples=50) for s in (1, 1, 2))
    assert one == two and one != other and (one.n_in, one.n_out, one.resamples) == (80, 80, 50)
    assert one.note == "80 of the 300 in-distribution scores, drawn with seed 1 to make the sets equal"
    assert "of the 300 out-of-distribution scores" in ood.compare_sets(outside, inside, seed=1, resamples=50).note
    assert ood.compare_sets(inside[:80], outside, seed=1, resamples=50).note == ""
    assert set(one.values()) == set(ood.FIGURES)


def test_the_subsample_is_without_replacement_and_from_all_over():
    inside, outside = torch.arange(1000.0), torch.full((500,), 499.5)
    found = ood.compare_sets(inside, outside, seed=0, resamples=10).auroc.value
    assert abs(found - 0.5) < 4 * 0.5 / math.sqrt(500) and found != 0.5
    near = ood.compare_sets(torch.arange(1000.0), torch.arange(999.0), seed=0, resamples=2)  # with replacement the AUROC would move by .01
    assert near.auroc.value == pytest.approx(0.5, abs=0.002)


def test_gain_is_paired():
    inside, outside = draw(200), draw(200, seed=1) + 0.5
    ours = inside + 0.1 * draw(200, seed=2), outside + 0.1 + 0.1 * draw(200, seed=3)
    paired = ood.gain(*ours, inside, outside, seed=0)["auroc"]
    loose = ood.compare_sets(*ours, seed=0).auroc
    assert paired.value == pytest.approx(ood.auroc(*ours) - ood.auroc(inside, outside))
    assert paired.high - paired.low < 0.5 * (loose.high - loose.low)
    assert all(one == ood.BootstrapInterval(value=0, low=0, high=0) for one in ood.gain(inside, outside, 2 * inside, 2 * outside,
                                                                                        seed=0).values())


def test_a_thousand_resamples_of_two_thousand_are_quick():
    inside, outside = draw(2000), draw(2000, seed=1)
    seconds = []
    for _ in range(3):
        start = time.process_time()
        ood.compare_sets(inside, outside, seed=0, resamples=1000)
        seconds.append(time.process_time() - start)
    assert min(seconds) < 2


# control and choice ----------------------------------------------------------------------------------------------------

@pytest.mark.parametrize(("shift", "passed", "word"), [
    (0.0, True, "as it should be"), (0.05, True, "as it should be"), (0.5, False, "overfit"), (-0.5, False, "not prepared alike"),
])
def test_control_speaks_only_when_train_and_test_differ(shift, passed, word):
    found = ood.control(draw(3000), draw(2000, seed=1) + shift, seed=0, resamples=200)
    assert found.passed == passed and word in found.verdict and f"{found.auroc.value:.3f}" in found.verdict


def test_control_does_not_accuse_on_few_examples():
    found = ood.control(draw(8), draw(8, seed=1), seed=0, resamples=200)
    assert found.passed and "too few examples" in found.verdict


def test_the_best_k_is_marked_and_the_rest_left_alone():
    by_k = {k: ood.compare_sets(draw(50), draw(50, seed=1) + k, seed=0, resamples=20, k=k) for k in (0, 2, 1)}
    best = ood.best_of(by_k)
    assert (best.k, best.chosen_afterwards, best.chosen_among) == (2, True, 3) and "chosen afterwards among 3" in str(best)
    assert best.auroc == by_k[2].auroc and not any(one.chosen_afterwards for one in by_k.values())
    assert ood.best_of(by_k, "fpr95").k == 2 and ood.best_of({0: by_k[0]}).chosen_afterwards


@pytest.mark.parametrize(("figures", "by", "rule"), [({}, "auroc", "`figures` must hold"),
                                                     ({0: None}, "accuracy", "`by` must be one of auroc")])
def test_a_choice_from_nothing_or_by_nothing_is_refused(unchecked, figures, by, rule):
    with pytest.raises(ValueError, match=rule): ood.best_of(figures, by)


# scores ----------------------------------------------------------------------------------------------------------------

def test_typicality_is_the_distance_of_means():
    nll = draw(60)
    assert torch.allclose(scores.typicality(nll, 0.3, group=5), (nll.view(12, 5).mean(1) - 0.3).abs())
    assert torch.equal(scores.typicality(nll, 0.3), (nll - 0.3).abs())
    assert torch.allclose(scores.typicality(2 * nll + 1, 1.6), 2 * scores.typicality(nll, 0.3))


def test_threshold_of_a_normal_nll_is_its_quantile():
    for group in [1, 4, 25]:
        nll = 5 * draw(20_000)
        bar = scores.typicality_threshold(nll, 0.0, group=group, level=0.95, resamples=20_000, generator=rng(1))
        assert bar == pytest.approx(1.96 * 5 / math.sqrt(group), rel=0.04)


def test_waic_is_variance_minus_mean():
    log_p = 4 * draw(5, 30) - 80
    assert torch.allclose(scores.waic(log_p), torch.from_numpy(log_p.numpy().var(0) - log_p.numpy().mean(0)))
    assert torch.allclose(scores.waic(log_p[:1].expand(5, 30)), -log_p[0])


def test_likelihood_ratio_is_odd_and_cancels_what_is_shared():
    full, background, shared = draw(9), draw(9, seed=1), 100 * draw(9, seed=2)
    assert torch.allclose(scores.likelihood_ratio(full, background), -scores.likelihood_ratio(background, full))
    assert torch.allclose(scores.likelihood_ratio(full + shared, background + shared), scores.likelihood_ratio(full, background))


def test_mahalanobis_equals_scikit_learn():
    for latent in [1, 2, 8]:
        covariance = pytest.importorskip("sklearn.covariance")
        z = draw(200, latent) @ draw(latent, latent, seed=1) + 3
        reference = covariance.EmpiricalCovariance().fit(z.numpy())
        assert scores.Mahalanobis.fit(z, ridge=0.0).score(z).numpy() == pytest.approx(reference.mahalanobis(z.numpy()), rel=1e-6, abs=1e-8)


def test_mahalanobis_with_classes_takes_the_nearest_mean_in_the_shared_metric():
    labels = torch.arange(300) % 3 * 4 - 1  # any integers
    z = draw(300, 2) + torch.stack([5.0 * labels, -labels], -1)
    found = scores.Mahalanobis.fit(z, labels, ridge=0.0)
    means = torch.stack([z[labels == one].mean(0) for one in (-1, 3, 7)])
    rest = torch.cat([z[labels == one] - mean for one, mean in zip((-1, 3, 7), means)])
    inverse = torch.linalg.inv(rest.T @ rest / 300)
    gap = z[:, None] - means
    assert torch.allclose(found.means, means) and torch.allclose(found.score(z), torch.einsum("nci,ij,ncj->nc", gap, inverse, gap).amin(1))


def test_mahalanobis_survives_a_collapsed_latent():
    z = torch.cat([draw(100, 2), torch.full((100, 1), 0.4, dtype=torch.float64)], 1)
    found = scores.Mahalanobis.fit(z).score(z)
    assert found.isfinite().all() and found.mean().item() == pytest.approx(2, rel=1e-3)


def test_knn_equals_scikit_learn():
    for k, chunk in [(1, 1), (3, 7), (50, 4096)]:
        neighbors = pytest.importorskip("sklearn.neighbors")
        train, z = draw(50, 4).float(), draw(33, 4, seed=1).float()
        expected = neighbors.NearestNeighbors(n_neighbors=k, algorithm="brute").fit(train.numpy()).kneighbors(z.numpy())[0][:, -1]
        assert scores.knn_distance(train, z, k=k, chunk=chunk).numpy() == pytest.approx(expected, rel=1e-4)


def test_knn_keeps_small_distances_far_from_zero():
    train = torch.full((200, 3), 1000.0) + torch.arange(200.0)[:, None] / 64  # exact in float32
    assert torch.equal(scores.knn_distance(train, train, k=1), torch.zeros(200))


def test_compressed_length_is_that_of_a_png_less_its_wrapping():
    for channels in [None, 1, 3]:
        image_file = pytest.importorskip("PIL.Image")
        side = torch.arange(32)
        shape = (32, 32) if channels is None else (channels, 32, 32)
        ramp, noise = (5 * side[:, None] + 2 * side).remainder(256).to(torch.uint8).expand(shape), torch.randint(
            256, shape, generator=rng(), dtype=torch.uint8)
        wave = (128 + 90 * torch.sin(side[:, None] / 9 + side / 7) + 1.5 * draw(*shape)).round().to(torch.uint8)
        pictures = torch.stack([ramp, noise, wave])
        for image, length in zip(pictures, scores.compressed_bits(pictures) / 8):
            array = image.numpy() if channels is None else image.squeeze(0).numpy() if channels == 1 else image.permute(1, 2, 0).numpy()
            file = io.BytesIO()
            image_file.fromarray(np.ascontiguousarray(array)).save(file, "PNG", compress_level=9)
            assert abs(len(file.getvalue()) - 63 - length) <= 0.02 * length + 8  # encoders may choose other filters where two are as good


def test_filters_can_be_undone():
    "A decoder written from the PNG specification, pixel by pixel, gives back the picture from each of the five."
    for levels in [5, 256]:
        for channels in [1, 3]:
            rows = torch.randint(levels, (1, 12, 10 * channels), generator=rng(), dtype=torch.uint8)
            found = scores.row_filters(rows, channels)[:, 0].tolist()

            def paeth(a, b, c): return min((abs(a + b - c - v), i, v) for i, v in enumerate((a, b, c)))[2]

            guesses = [lambda a, b, c: 0, lambda a, b, c: a, lambda a, b, c: b, lambda a, b, c: (a + b) // 2, paeth]
            for guess, filtered in zip(guesses, found):
                undone = []
                for y, line in enumerate(filtered):
                    undone.append([])
                    for x, byte in enumerate(line):
                        a = undone[y][x - channels] if x >= channels else 0
                        b, c = (undone[y - 1][x] if y else 0), (undone[y - 1][x - channels] if y and x >= channels else 0)
                        undone[y].append((byte + guess(a, b, c)) % 256)
                assert undone == rows[0].tolist()


def test_input_complexity_has_one_unit():
    images = torch.randint(256, (4, 28, 28), generator=rng(), dtype=torch.uint8)
    nll = torch.full((4,), 1000.0)
    first, second = scores.input_complexity(images, nll), scores.input_complexity(images, nll + 784 * math.log(2))
    assert torch.allclose(second - first, torch.ones(4).double(), atol=1e-5)  # ln 2 nats a pixel are one bit a pixel
    assert torch.allclose(first + scores.compressed_bits(images) / 784, nll.double() / 784 / math.log(2))


def test_perturb_replaces_the_share_it_says_by_uniform_levels():
    for rate in [0.0, 0.1, 0.3, 1.0]:
        images = torch.full((40, 28, 28), 77, dtype=torch.uint8)
        found = scores.perturb(images, rate, generator=rng(3))
        expected = rate * 255 / 256
        assert abs((found != 77).double().mean().item() - expected) <= 4 * math.sqrt(expected * (1 - expected) / images.numel())
        assert found.dtype == torch.uint8 and torch.equal(found, scores.perturb(images, rate, generator=rng(3)))
        assert torch.allclose(scores.perturb(images / 255, rate, generator=rng(3)), found / 255)
        if rate == 1:
            assert (torch.bincount(found.flatten().int(), minlength=256) - images.numel()
                    / 256).abs().max() < 6 * math.sqrt(images.numel() / 256)


@pytest.mark.parametrize(("call", "rule"), [
    (lambda: scores.likelihood_ratio(torch.zeros(2), torch.zeros(3)), "`log_p_background` must be of the same examples"),
    (lambda: scores.likelihood_ratio(torch.tensor([math.inf]), torch.zeros(1)), "`log_p_full` must be finite"),
    (lambda: scores.typicality(torch.zeros(4), 0.0, group=0), "`group` must divide"),
    (lambda: scores.typicality(torch.zeros(0), 0.0), r"`nll` must be \[example\] and not empty"),
    (lambda: scores.waic(torch.zeros(3)), r"`log_p` must be \[model, example\]"),
    (lambda: scores.waic(torch.zeros(1, 3)), "at least 2 models"),
    (lambda: scores.Mahalanobis.fit(torch.zeros(3, 3)), "more examples than latents"),
    (lambda: scores.Mahalanobis.fit(torch.zeros(9, 3)), "must vary"),
    (lambda: scores.knn_distance(torch.zeros(3, 2), torch.zeros(1, 2), k=0), "`k` must be in 1 to 3"),
    (lambda: scores.knn_distance(torch.zeros(3, 2), torch.full((1, 2), math.nan), k=1), "`latents` must be finite: got 2 of 2"),
    (lambda: scores.compressed_bits(torch.zeros(2, 3, dtype=torch.uint8)), "`images` must be uint8"),
    (lambda: scores.compressed_bits(torch.zeros(2, 3, 3)), "`images` must be uint8"),
    (lambda: scores.input_complexity(torch.zeros(2, 3, 3, dtype=torch.uint8), torch.zeros(3)), "one number per image"),
    (lambda: scores.input_complexity(torch.zeros(1, 3, 3, dtype=torch.uint8), torch.tensor([-1.0])), "Add D ln 256"),
    (lambda: scores.perturb(torch.zeros(1, 3, 3), 1.5, generator=rng()), "`rate` must be in"),
])
def test_scores_refuse_what_has_none(unchecked, call, rule):
    with pytest.raises(ValueError, match=rule): call()
