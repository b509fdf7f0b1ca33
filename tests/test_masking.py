"""Fill, smoothing, averaging, jitter and gates: known answers, exact ends, refused names, and independent implementations in numpy."""
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from latentlab.nn.masking import (
    Fill, blend, gaussian, glimpse, jitter, move_each, neighbourhood_average, neighbourhood_kernel, recoverable_sigmoid, smoothing_matrix,
    straight_through,
)

FILLS = ("zero", "mean", "blur", "noise", "mixed")


def seeded(seed=0): return torch.Generator().manual_seed(seed)


def pictures(batch=6, channels=3, side=20, seed=0): return torch.rand(batch, channels, side, side, generator=seeded(seed))


# Fill and blend -----------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("name", FILLS)
def test_a_fill_is_an_image_in_range(name):
    for batch, channels, side in [(1, 1, 28), (5, 3, 33), (2, 1, 4)]:
        x = pictures(batch, channels, side)
        fill = Fill.of(x)(name, x, generator=seeded())
        assert fill.shape == x.shape and fill.dtype == torch.float32
        assert fill.min() >= 0 and fill.max() <= 1 + 1e-6  # a blur is a weighted mean whose float32 weights sum to 1 up to rounding


@pytest.mark.parametrize("name", FILLS)
def test_all_kept_is_the_image_and_none_kept_the_fill_to_the_last_bit(name):
    x = pictures()
    fill = Fill.of(x)(name, x, generator=seeded())
    assert torch.equal(blend(x, torch.ones(6, 20, 20), fill), x)
    assert torch.equal(blend(x, torch.zeros(6, 20, 20), fill), fill)


def test_a_mask_keeps_its_own_pixels_in_every_channel():
    x, keep = pictures(), torch.zeros(6, 20, 20)
    keep[:, 3, 5] = 1
    shown = blend(x, keep, torch.zeros_like(x))
    assert torch.equal(shown[:, :, 3, 5], x[:, :, 3, 5]) and shown.count_nonzero() == 6 * 3


def test_statistics_are_those_of_each_channel():
    x = pictures(40) * torch.tensor([0.2, 0.6, 1.0])[:, None, None]
    fill = Fill.of(x)
    array = x.numpy()
    assert (np.allclose(fill.mean.flatten(), array.mean((0, 2, 3)), atol=1e-6)
            and np.allclose(fill.std.flatten(), array.std((0, 2, 3), ddof=1), atol=1e-6))
    assert torch.equal(fill("mean", x, generator=seeded()), fill.mean.expand_as(x))


def test_noise_has_the_spread_of_the_set_and_follows_its_generator():
    x = 0.45 + 0.1 * pictures(64)  # far from 0 and 1, so that cutting takes nothing off
    fill = Fill.of(x)
    noise = fill("noise", x, generator=seeded(1))
    # 77,000 draws of spread 0.03: five standard errors are 0.0006
    assert abs(noise.mean() - x.mean()) < 0.002 and abs(noise.std() - x.std()) < 0.002
    assert torch.equal(noise, fill("noise", x, generator=seeded(1))) and not torch.equal(noise, fill("noise", x, generator=seeded(2)))


def test_mixed_gives_every_image_one_of_the_four():
    x = pictures(200, 1, 8)
    fill = Fill.of(x)
    mixed, exact = fill("mixed", x, generator=seeded()), {name: fill(name, x, generator=seeded()) for name in ("zero", "mean", "blur")}
    hits = {name: int((mixed == other).flatten(1).all(1).sum()) for name, other in exact.items()}
    hits["noise"] = 200 - sum(hits.values())
    assert all(20 < count < 80 for count in hits.values()), hits  # 50 expected each; 30 away is almost five standard deviations


def test_blur_keeps_brightness_and_takes_detail():
    x = pictures(4, 1, 32)
    blurred = Fill.of(x)("blur", x, generator=seeded())
    assert (blurred.mean((-1, -2)) - x.mean((-1, -2))).abs().max() < 0.05  # mirrored borders weigh the rim a little more than once
    assert (blurred.std((-1, -2)) < 0.2 * x.std((-1, -2))).all()


def test_an_unknown_fill_is_refused(unchecked):
    with pytest.raises(ValueError, match="`name` must be zero, mean, blur, noise or mixed: got 'grey'. Choose one"):
        Fill.of(pictures())("grey", pictures(), generator=seeded())


# Gaussian -----------------------------------------------------------------------------------------------------------

def by_hand(image, sigma):
    "The same smoothing with numpy's own mirror and a convolution written out."
    radius = min(int(np.ceil(3 * sigma)), image.shape[0] - 1)
    bell = np.exp(-np.arange(-radius, radius + 1) ** 2 / (2 * sigma**2))
    bell /= bell.sum()
    padded = np.pad(image.astype(float), radius, mode="reflect")
    rows = sum(w * padded[i:i + image.shape[0]] for i, w in enumerate(bell))
    return sum(w * rows[:, i:i + image.shape[1]] for i, w in enumerate(bell))


def test_gaussian_agrees_with_numpy():
    for sigma in [0.3, 1.0, 2.5, 8.0]:
        for side in [8, 28, 33]:
            x = pictures(1, 1, side)[0, 0]
            assert np.allclose(gaussian(x, sigma).numpy(), by_hand(x.numpy(), sigma), atol=1e-5)  # float32 sums of up to 49 weights


def test_gaussian_of_every_rank_and_of_oblong_images():
    for shape in [(9, 9), (3, 12, 7), (2, 3, 7, 12)]:
        x = torch.rand(shape, generator=seeded())
        smooth = gaussian(x, 1.0)
        assert smooth.shape == x.shape and torch.equal(gaussian(x, 0.0), x)
        flipped = gaussian(x.flip(-1).flip(-2), 1.0).flip(-1).flip(-2)
        assert torch.allclose(smooth, flipped, atol=1e-6)  # mirrored: no side is special


def test_a_constant_stays_and_a_spike_spreads_by_sigma():
    assert torch.allclose(gaussian(torch.full((31, 31), 0.7), 3.0), torch.tensor(0.7), atol=1e-6)
    line = smoothing_matrix(101, 4.0)[50]
    assert abs(line.sum() - 1) < 1e-6
    assert abs(((torch.arange(101) - 50).square() * line).sum().sqrt() - 4) < 0.15  # cut at three sigma, which takes 1.4 per cent off


# Neighbourhood averaging --------------------------------------------------------------------------------------------

def test_the_kernel_scales_with_the_image():
    for side, size in [(224, 21), (64, 5), (28, 3), (32, 3), (448, 41), (2, 3)]:
        kernel = neighbourhood_kernel(side, generator=seeded())
        assert kernel.shape == (size, size) and (kernel >= 0).all() and abs(kernel.sum() - 1) < 1e-5


def test_averaging_keeps_constants_and_range_and_follows_its_generator():
    keep = pictures(4, 1, 28)[:, 0]
    mean = neighbourhood_average(keep, generator=seeded(3))
    assert mean.min() >= keep.min() - 1e-6 and mean.max() <= keep.max() + 1e-6  # a weighted mean, up to rounding of its weights
    assert torch.allclose(neighbourhood_average(torch.ones(2, 28, 28), generator=seeded()), torch.ones(()), atol=1e-5)
    assert (torch.equal(mean, neighbourhood_average(keep, generator=seeded(3)))
            and not torch.equal(mean, neighbourhood_average(keep, generator=seeded(4))))


def test_one_pixel_becomes_the_kernel():
    spike = torch.zeros(1, 28, 28)
    spike[0, 14, 14] = 1
    kernel = neighbourhood_kernel(28, generator=seeded(5))
    assert torch.allclose(neighbourhood_average(spike, generator=seeded(5))[0, 13:16, 13:16], kernel.flip(0, 1), atol=1e-7)


# Jitter -------------------------------------------------------------------------------------------------------------

def test_a_move_equals_a_padded_crop():
    for down, right in [(0, 0), (1, 0), (-2, 3), (9, -9)]:
        keep = pictures(3, 1, 11)[:, 0]
        far = 10
        padded = np.pad(keep.numpy(), ((0, 0), (far, far), (far, far)), mode="edge")
        expected = padded[:, far - down:far - down + 11, far - right:far - right + 11]
        assert np.array_equal(move_each(keep, torch.full((3,), down), torch.full((3,), right)).numpy(), expected)


def test_every_shift_happens_and_none_beyond():
    for pixels in [1, 2, 4]:
        spike = torch.zeros(2000, 15, 15)
        spike[:, 7, 7] = 1
        at = jitter(spike, pixels, generator=seeded()).flatten(1).argmax(1)
        shifts = {(int(i) // 15 - 7, int(i) % 15 - 7) for i in at}
        every = {(a, b) for a in range(-pixels, pixels + 1) for b in range(-pixels, pixels + 1)}
        assert shifts <= every and len(shifts) > 0.9 * len(every)  # 2,000 draws over at most 81 places: each is missed with chance e^-25


def test_no_jitter_is_the_mask_itself(): assert torch.equal(jitter(pictures()[:, 0], 0, generator=seeded()), pictures()[:, 0])


def test_gradients_pass_through_a_move():
    keep = torch.rand(2, 6, 6, generator=seeded(), dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda k: move_each(k, torch.tensor([1, -2]), torch.tensor([0, 3])), keep)


# Gate ---------------------------------------------------------------------------------------------------------------

def test_straight_through_is_hard_forwards_and_the_identity_backwards():
    keep = torch.linspace(0, 1, 1001)[None, None].requires_grad_()
    hard = straight_through(keep)
    assert torch.allclose(hard.detach(), (keep > 0.5).float(), atol=2e-7)  # one rounding of 1 + keep - keep
    weights = torch.rand(1, 1, 1001, generator=seeded())
    (hard * weights).sum().backward()
    assert torch.equal(keep.grad, weights)


def test_one_half_is_hidden(): assert straight_through(torch.full((1, 2, 2), 0.5)).sum() == 0


# A way back --------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_way_back_has_a_slope_and_the_way_out_has_the_sigmoids(dtype):
    z = torch.tensor([-200.0, -20.0, -4.0, -3.0, 0.0, 3.0, 4.0, 20.0, 200.0], dtype=dtype)[:, None, None].expand(9, 2, 2)
    q = z.sigmoid()
    natural = (q * (1 - q))[:, 0, 0]
    for sign in (1.0, -1.0):
        at = z.clone().requires_grad_()
        made = recoverable_sigmoid(at)
        made.backward(torch.full_like(at, sign))
        assert torch.equal(made, q)
        slope, back = sign * at.grad[:, 0, 0], sign * z[:, 0, 0] > 0
        assert torch.equal(slope[~back], natural[~back]), "outwards nothing is changed"
        assert torch.allclose(slope[back], natural[back].clamp_min(0.02), atol=0)
        assert slope[back].min() == torch.tensor(0.02, dtype=dtype), "in float32 the sigmoid's own slope is 0 from 17 on"


def test_within_its_floor_the_gradient_is_that_of_the_sigmoid_by_finite_differences():
    near = (3.8 * (2 * torch.rand(2, 4, 4, generator=seeded(), dtype=torch.float64) - 1)).requires_grad_()
    assert torch.autograd.gradcheck(recoverable_sigmoid, (near,))
    for slope in (-0.1, 0.3):
        with pytest.raises(ValueError, match="`slope` must be in"): recoverable_sigmoid(near, slope)


# A glimpse ---------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("shape", [(1, 4, 4), (3, 28, 28), (5, 9, 30)])
def test_a_glimpse_raises_whole_cells_by_one_share_and_lowers_nothing(shape):
    keep = (0.9 * torch.rand(*shape, generator=seeded())).requires_grad_()
    shown = glimpse(keep, generator=seeded())
    raised = ((shown - keep) / (1 - keep)).detach()
    for one in raised:
        share = one.max()
        assert 0 < share < 1 and ((one < 1e-6) | ((one - share).abs() < 1e-4)).all(), "raised by the share, or not at all"
        if shape[1] % 4 == shape[2] % 4 == 0:
            patches = F.interpolate(one[None, None], (4, 4), mode="area")
            assert ((patches < 1e-6) | ((patches - share).abs() < 1e-4)).all(), "cells of a 4 x 4 grid, whole"
    assert torch.equal(shown, glimpse(keep, generator=seeded())) and not torch.equal(shown, glimpse(keep, generator=seeded(1)))
    weights = torch.randn(*shape, generator=seeded(2))
    (weights * shown).sum().backward()
    assert torch.equal(keep.grad, weights), "the gradient of a mask without the raise"


def test_half_of_the_cells_and_every_share():
    shown = glimpse(torch.zeros(2000, 8, 8), generator=seeded())
    shares = shown.amax((1, 2))
    assert abs((shown > 0).double().mean() - 0.5) < 0.02
    assert abs(shares.mean() - 0.5) < 0.03 and shares.min() < 0.01 and shares.max() > 0.99
