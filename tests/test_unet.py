"""The mask decoder: its start, its borders, which maps it reads, odd sizes, grids, gradients, and what it can learn."""
import pytest
import torch
import torch.nn.functional as F
from latentlab.nn.unet import Level, MaskUNet, reflect

CHANNELS = (4, 6, 8, 10, 12)


def seeded(seed=0): return torch.Generator().manual_seed(seed)


def maps_for(sides, channels=CHANNELS, batch=2, seed=0):
    g = seeded(seed)
    return tuple(torch.randn(batch, c, s, s, generator=g) for c, s in zip(channels, sides))


@pytest.mark.parametrize("sides, size", [
    ((28, 14, 7, 4, 4), (28, 28)), ((33, 17, 9, 5, 3), (33, 33)), ((32, 16, 8, 4, 4), (64, 64)), ((14, 14, 7, 2, 1), (29, 31)),
    ((4, 4, 4, 4, 4), (32, 32)),
])
def test_a_mask_of_the_images_size_from_maps_of_any(sides, size):
    for layers in (1, 2, 5):
        logits = MaskUNet(CHANNELS, layers=layers, width=4, generator=seeded())(maps_for(sides), size)
        assert logits.shape == (2, *size) and logits.dtype == torch.float32 and logits.isfinite().all()


def test_blank_maps_give_the_bias_exactly():
    for layers in [1, 5]:
        for bias in [-8.0, 0.0, 2.0]:
            blank = tuple(torch.zeros_like(m) for m in maps_for((28, 14, 7, 4, 4)))
            assert torch.equal(MaskUNet(CHANNELS, layers=layers, bias=bias)(blank, (28, 28)), torch.full((2, 28, 28), bias))


def test_before_training_the_mask_is_the_bias_with_a_little_of_the_image():
    logits = MaskUNet(CHANNELS, layers=3, bias=-3.0, generator=seeded())(maps_for((28, 14, 7, 4, 4)), (28, 28))
    assert abs(logits.mean() + 3) < 0.5 and 0.01 < logits.std() < 1.0  # output weights of 0.02 on 72 inputs of order 1


def test_reflected_borders_draw_no_frame():
    for layers in [1, 2, 3]:
        flat = tuple(m[:, :, :1, :1].expand_as(m).contiguous() for m in maps_for((28, 14, 7, 4, 4)))
        logits = MaskUNet(CHANNELS, layers=layers, generator=seeded())(flat, (28, 28))
        assert (logits - logits[:, :1, :1]).abs().max() < 1e-4  # the same sum everywhere, up to its order


def test_padding_mirrors_and_a_lone_pixel_repeats():
    assert reflect(torch.arange(9.0).reshape(1, 1, 3, 3))[0, 0].tolist()[0] == [4, 3, 4, 5, 4]
    assert torch.equal(reflect(torch.full((1, 2, 1, 1), 7.0)), torch.full((1, 2, 3, 3), 7.0))
    assert reflect(torch.rand(1, 1, 1, 5)).shape == (1, 1, 3, 7)


def test_every_used_map_counts_and_no_other():
    for layers in [1, 2, 3, 4]:
        unet, maps = MaskUNet(CHANNELS, layers=layers, width=4, generator=seeded()), maps_for((28, 14, 7, 4, 4))
        before = unet(maps, (28, 28))
        for i in range(5):
            moved = unet(tuple(m + 1 if j == i else m for j, m in enumerate(maps)), (28, 28))
            assert torch.equal(moved, before) == (i >= layers), i


def test_one_level_agrees_with_the_formula_written_out():
    unet, (m, *_) = MaskUNet(CHANNELS, layers=1, width=4, generator=seeded()), maps_for((9, 5, 3, 2, 1))
    level, p = unet.levels[0], lambda h: F.pad(h, (1, 1, 1, 1), mode="reflect")
    h = F.silu(F.conv2d(m, level.skip.weight, level.skip.bias))
    h = F.silu(F.conv2d(p(h), level.mix.weight, level.mix.bias))
    # the same sums, perhaps in another order
    assert torch.allclose(unet((m,), (9, 9)), F.conv2d(p(h), unet.out.weight, unet.out.bias)[:, 0], atol=1e-6)


def test_what_comes_from_below_is_added_after_its_own_1x1():
    level = Level(3, 5, 4)
    skip, below = torch.randn(2, 3, 8, 8, generator=seeded()), torch.randn(2, 5, 4, 4, generator=seeded(1))
    larger = F.conv2d(below.repeat_interleave(2, -1).repeat_interleave(2, -2), level.coarser.weight)
    h = F.silu(F.conv2d(skip, level.skip.weight, level.skip.bias) + larger)
    assert torch.allclose(level(skip, below), F.silu(level.mix(reflect(h))), atol=1e-5)  # float32 sums in another order


@pytest.mark.parametrize("grid, cell", [(0.5, 2), (0.25, 4)])
def test_a_coarse_grid_decides_by_the_cell(grid, cell):
    maps, fine, coarse = maps_for((28, 14, 7, 4, 4)), MaskUNet(CHANNELS,
                                                               generator=seeded()), MaskUNet(CHANNELS, grid=grid, generator=seeded())
    cells = fine(maps, (28, 28)).unflatten(-1, (-1, cell)).unflatten(-3, (-1, cell)).mean((-1, -3))
    assert cells.shape[-1] == 28 // cell
    expected = F.interpolate(cells[:, None], size=(28, 28), mode="bilinear")[:, 0]
    assert torch.allclose(coarse(maps, (28, 28)), expected, atol=1e-5)


def test_a_grid_coarser_than_the_image_has_one_cell():
    logits = MaskUNet((2,), layers=1, grid=0.25, generator=seeded())((torch.randn(1, 2, 2, 2, generator=seeded()),), (2, 2))
    assert logits.shape == (1, 2, 2) and torch.allclose(logits, logits[:, :1, :1].expand_as(logits))


@pytest.mark.parametrize("grid", [1.0, 0.5, 0.25])
def test_every_weight_has_a_gradient(grid):
    for layers in [1, 3, 5]:
        unet = MaskUNet(CHANNELS, layers=layers, width=4, grid=grid, generator=seeded())
        (unet(maps_for((28, 14, 7, 4, 4)), (28, 28)) * torch.randn(2, 28, 28, generator=seeded(1))).sum().backward()
        idle = [name for name, p in unet.named_parameters() if p.grad is None or not p.grad.isfinite().all() or not p.grad.any()]
        assert not idle


def test_gradients_agree_with_finite_differences():
    unet = MaskUNet((2, 3), layers=2, width=4, generator=seeded()).double()
    maps = tuple(torch.randn(1, c, s, s, generator=seeded(c), dtype=torch.float64, requires_grad=True) for c, s in ((2, 5), (3, 3)))
    assert torch.autograd.gradcheck(lambda *m: unet(m, (5, 5)), maps)


def test_weights_follow_their_generator_and_not_the_global_one():
    def weights(seed, of_torch):
        torch.manual_seed(of_torch)
        return [p.detach() for p in MaskUNet(CHANNELS, generator=seeded(seed)).parameters()]
    assert all(map(torch.equal, weights(0, 1), weights(0, 2)))
    assert not all(map(torch.equal, weights(0, 1), weights(1, 1)))


def test_width_doubles_with_depth():
    unet = MaskUNet(CHANNELS, layers=4, width=8)
    assert [level.mix.out_channels for level in unet.levels] == [8, 16, 32, 64] and unet.levels[-1].coarser is None


def test_depths_without_maps_are_refused():
    for layers in [0, -1, 6]:
        with pytest.raises(ValueError, match=f"`layers` must be in 1 to 5, the encoder's feature maps: got {layers}. Choose fewer"):
            MaskUNet(CHANNELS, layers=layers)


def test_an_image_does_not_see_the_others_of_its_batch():
    unet, maps = MaskUNet(CHANNELS, generator=seeded()), maps_for((28, 14, 7, 4, 4), batch=4)
    alone = torch.cat([unet(tuple(m[i:i + 1] for m in maps), (28, 28)) for i in range(4)])
    assert torch.allclose(alone, unet(maps, (28, 28)), atol=1e-5)  # another batch may take another kernel, which adds in another order


def test_it_learns_eight_masks_by_heart():
    maps, target = maps_for((16, 8, 4), batch=8), (torch.rand(8, 4, 4, generator=seeded(9)) > 0.5).float().repeat_interleave(
        4, -1).repeat_interleave(4, -2)
    unet = MaskUNet(CHANNELS, layers=3, width=8, bias=0.0, generator=seeded())
    optimiser = torch.optim.Adam(unet.parameters(), lr=0.02)
    for _ in range(120):
        optimiser.zero_grad()
        F.binary_cross_entropy_with_logits(unet(maps, (16, 16)), target).backward()
        optimiser.step()
    assert ((unet(maps, (16, 16)) > 0) == target.bool()).float().mean() > 0.95  # one half is chance
