"""Masks of latents: what a drawn decoder must give, sizes, colours, files that are refused, and nuisances that keep their law."""
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from latentlab.families.compvae.masks import (MaskedImages, MaskSettings, change_maps, check_live, hard_mask, latent_masks, load_masked,
                                              mask_origin, normalise_maps, proportional_filter, resize_keep, save_masked, subtract_masks,
                                              unite_masks)
from latentlab.families.compvae.nuisance import GaussianLaw, fit_law, nuisance_maps, two_traversals


def stream(seed: int = 0) -> torch.Generator: return torch.Generator().manual_seed(seed)


def draw_square(z: torch.Tensor, side: int = 32) -> torch.Tensor:
    "A square: right with latent 0, down with latent 1, larger with latent 2; latent 3 does nothing."
    at = torch.arange(side) + 0.5
    half = side * (0.14 + 0.04 * z[:, 2])[:, None]
    edge = lambda centre: torch.sigmoid(2 * (half - (at - side * (0.5 + 0.1 * centre[:, None])).abs()))
    return (edge(z[:, 1])[:, :, None] * edge(z[:, 0])[:, None, :])[:, None]


CODES = torch.tensor([[0.0, 0.0, 0.0, 0.0], [-1.5, 0.5, 0.8, 1.0]])


def test_all_latents_at_once_are_each_alone() -> None:
    together = change_maps(draw_square, CODES)
    for latent in range(4):
        assert torch.allclose(change_maps(draw_square, CODES, latents=(latent,))[0], together[latent], atol=1e-6)
    assert torch.allclose(change_maps(draw_square, CODES[1:]), together[:, 1:], atol=1e-6)  # an image does not know its batch


def test_a_mask_is_one_number_a_pixel_for_any_colours() -> None:
    tint = torch.tensor([1.0, 0.3, 0.01])[:, None, None]
    for kind in ("soft", "hard"):
        keep = latent_masks(lambda z: draw_square(z) * tint, CODES, MaskSettings(kind=kind))
        assert keep.shape == (4, 2, 32, 32) and keep.min() >= 0 and keep.max() == 1 and keep[3].max() == 0
    assert hard_mask(lambda z: draw_square(z) * tint, CODES, 0, per_channel=True).shape == (2, 3, 32, 32)  # the journal's fault, on request


def test_the_soft_mask_of_a_stretched_latent_is_the_same() -> None:
    stretched = lambda z: draw_square(z * torch.tensor([0.2, 1, 1, 1]))
    codes = CODES * torch.tensor([5.0, 1, 1, 1])
    assert torch.allclose(latent_masks(stretched, codes)[0], latent_masks(draw_square, CODES)[0], atol=1e-4)
    unit = torch.tensor([5.0, 1, 1, 1])
    assert torch.allclose(change_maps(stretched, codes, unit=unit), change_maps(draw_square, CODES), atol=1e-4)


@pytest.mark.parametrize("side", [8, 20, 32, 33, 64, 100, 128])
def test_resizing_keeps_mass_everywhere(side: int) -> None:
    for row in (0, 1, 17, 31):
        line = torch.zeros(32, 32)
        line[row] = 1
        assert resize_keep(line, (side, side)).mean().item() == pytest.approx(1 / 32, rel=1e-3)
    assert torch.allclose(resize_keep(torch.ones(2, 32, 32), (side, side + 3)), torch.ones(2, side, side + 3), atol=1e-5)


@pytest.mark.parametrize("share", [0.0, 0.05, 0.3, 2.0])
def test_the_filter_keeps_the_sum_of_every_map(share: float) -> None:
    maps = torch.rand(3, 2, 16, 20, generator=stream()) * (torch.rand(3, 2, 16, 20, generator=stream(1)) > 0.7)
    maps[0, 0] = 0
    assert torch.allclose(proportional_filter(maps, share).sum((-2, -1)), maps.sum((-2, -1)), rtol=1e-4)
    assert torch.equal(proportional_filter(maps, share)[0, 0], maps[0, 0])


def test_noise_of_a_dead_latent_is_no_mask() -> None:
    noise = 1e-3 * torch.rand(1, 16, 16, generator=stream())
    assert normalise_maps(noise).sum() == 0 < normalise_maps(noise, floor=0.0).sum()


def test_a_dead_latent_is_refused_with_those_alive() -> None:
    with pytest.raises(ValueError, match=r"got 2 with 0\.010, which is dead\. Choose 1 \(3\.00\), 0 \(1\.00\)"):
        check_live(2, torch.tensor([1.0, 3.0, 0.01]))
    for wrong in (-1, 3):
        with pytest.raises(ValueError, match="whole number from 0 to 2"): check_live(wrong, torch.tensor([1.0, 3.0, 0.01]))


def test_masks_of_another_size_are_refused(unchecked: None) -> None:
    a, b = torch.rand(2, 8, 8), torch.rand(2, 16, 16)
    for join in (unite_masks, subtract_masks):
        with pytest.raises(ValueError, match="resize_keep"): join(a, b)
    with pytest.raises(ValueError, match="resize_keep"):
        MaskedImages(images=torch.zeros(2, 1, 16, 16, dtype=torch.uint8), keep=a, origin=mask_origin("d", 0, "p", MaskSettings()))


def masked_set() -> MaskedImages:
    return MaskedImages(images=(255 * draw_square(CODES)).to(torch.uint8), keep=latent_masks(draw_square, CODES)[0],
                        origin=mask_origin("squares", 0, "abc", MaskSettings(smooth=0.1), seed=3))


def test_a_masked_set_comes_back_and_is_not_written_over(tmp_path: Path) -> None:
    masked, path = masked_set(), tmp_path / "a.npz"
    save_masked(path, masked)
    before = path.read_bytes()
    with pytest.raises(ValueError, match="must not exist: got a.npz"): save_masked(path, masked)
    assert path.read_bytes() == before and [f.name for f in tmp_path.iterdir()] == ["a.npz"]
    back = load_masked(path)
    assert torch.equal(back.images, masked.images) and (back.keep - masked.keep).abs().max() < 0.003
    assert back.origin["mask"]["smooth"] == 0.1 and back.origin["seed"] == 3


def test_a_damaged_or_foreign_file_is_refused(tmp_path: Path) -> None:
    masked = masked_set()
    good = dict(images=masked.images.numpy(), keep=(255 * masked.keep).byte().numpy(), origin=np.array(json.dumps(dict(masked.origin))))
    for n, (change, words) in enumerate([({"origin": np.array("{")}, "must be JSON"), ({"origin": np.array("[1]")}, "named values"),
                                         ({"origin": np.array("{}")}, "got no data"), ({"keep": good["keep"].astype(float)}, "images, keep"),
                                         ({"origin": np.array({"a": 1}, dtype=object)}, "whole .npz")]):
        path = tmp_path / f"{n}.npz"
        np.savez(path, **(good | change))
        with pytest.raises(ValueError, match=words): load_masked(path)
    whole = save_masked(tmp_path / "good.npz", masked).read_bytes()
    (tmp_path / "cut.npz").write_bytes(whole[:len(whole) // 2])
    with pytest.raises(ValueError, match="whole .npz"): load_masked(tmp_path / "cut.npz")
    with pytest.raises(ValueError, match="whole .npz"): load_masked(tmp_path / "good.npz", most=10)


@pytest.mark.parametrize("kind", ["gaussian", "copula", "neighbours"])
def test_every_law_holds_the_latent_and_keeps_the_codes_of_strength_zero(kind: str) -> None:
    codes = torch.randn(500, 4, generator=stream()) @ torch.randn(4, 4, generator=stream(1))
    law, noise = fit_law(codes, kind=kind), torch.randn(3, 500, 4, generator=stream(2))
    for latent in range(4):
        assert torch.allclose(law.draw(codes, latent, noise, 0.0), codes.expand(3, -1, -1), atol=1e-4)
        drawn = law.draw(codes, latent, noise, 1.0)
        assert torch.equal(drawn[..., latent], codes[:, latent].expand(3, -1)) and not torch.allclose(drawn[0], codes)
        both = two_traversals(codes[:5], latent, codes[:5, latent], law)
        assert torch.equal(both.natural[..., latent], both.held[..., latent])
        assert torch.allclose(torch.diagonal(both.natural).T, codes[:5], atol=1e-3)  # at its own value a code is itself


@pytest.mark.parametrize("strength", [0.2, 0.6, 1.0])
def test_the_gaussian_law_is_kept_at_every_strength(strength: float) -> None:
    root = torch.randn(5, 5, generator=stream(4))
    truth = root @ root.T / 5
    codes = torch.randn(40_000, 5, generator=stream()) @ torch.linalg.cholesky(truth).T
    drawn = GaussianLaw(mean=torch.zeros(5), covariance=truth).draw(codes, 2, torch.randn(1, 40_000, 5, generator=stream(5)), strength)[0]
    assert (torch.cov(drawn.T) - truth).abs().max() < 0.04 * truth.abs().max()


def test_nuisances_that_do_not_matter_change_no_mask() -> None:
    codes = torch.randn(300, 4, generator=stream())
    law = GaussianLaw(mean=torch.zeros(4), covariance=torch.eye(4))
    weight = torch.randn(4, 64, generator=stream(1))
    linear = lambda z: (z @ weight).view(-1, 1, 8, 8)
    drawn = nuisance_maps(linear, codes[:2], law, strength=1.0, draws=5, generator=stream(2))
    assert torch.allclose(drawn, change_maps(linear, codes[:2]), atol=1e-5)
