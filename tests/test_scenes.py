"""Scenes: the truth is exact, for every colour and every setting, and scene i is always scene i."""

import time

import pytest
import torch
import torch.nn.functional as F

from latentlab.core.settings import from_json, to_json
from latentlab.data.scenes import (
    COLOURS, GROUND_CHROMA, OBJECT_CHROMA, SHAPES, Scenes, SceneSettings, draw_scenes, hue_to_rgb, inside, name_colours,
)
from latentlab.nn.planted import PlantedEncoder

WORLDS = [
    SceneSettings(), SceneSettings(side=16), SceneSettings(side=33, objects_low=6, objects_high=6),
    SceneSettings(side=96, texture=1.0, pattern="checks", distractors=8),
    SceneSettings(texture=0.0, distractors=0, hue_jitter=0.0, brightness_jitter=0.0),
    SceneSettings(pattern="stripes", objects_high=1, must_have="blue"),
    SceneSettings(pattern="noise", size_low=0.3, size_high=0.3, spread=1), SceneSettings(size_low=0.04, size_high=0.06),
]


@pytest.mark.parametrize("settings", WORLDS, ids=lambda s: str(s.diff())[:60])
def test_every_pixel_has_the_colour_of_its_owner(settings):
    scenes = draw_scenes(120, seed=5, settings=settings)
    owner = F.pad(scenes.colours, (1, 0), value=-1).gather(1, scenes.masks.flatten(1)).view_as(scenes.masks)
    assert torch.equal(name_colours(scenes.images), owner)
    chroma = scenes.float().amax(1) - scenes.float().amin(1)
    assert chroma[scenes.object_mask()].min() > OBJECT_CHROMA
    assert not (~scenes.object_mask()).any() or chroma[~scenes.object_mask()].max() < GROUND_CHROMA
    count = (scenes.colours >= 0).sum(1)
    assert count.min() >= settings.objects_low and count.max() <= settings.objects_high
    assert scenes.masks.max() <= settings.objects_high and scenes.masks.dtype == torch.int64
    assert not (scenes.distractors & scenes.object_mask()).any() and (settings.distractors > 0 or not scenes.distractors.any())


@pytest.mark.parametrize("colour", COLOURS)
def test_the_planted_encoder_sees_its_colour_and_nothing_else(colour):
    scenes = draw_scenes(200, seed=1, settings=SceneSettings(must_have=colour))
    mask = scenes.colour_mask(colour)
    assert torch.equal(PlantedEncoder(colour).cause(scenes.float()), mask)
    assert mask.flatten(1).any(1).all()


def test_scene_i_is_scene_i():
    for n, start in [(1, 0), (1, 299), (7, 250), (256, 0), (257, 0), (44, 256)]:
        whole, part = draw_scenes(300, seed=9), draw_scenes(n, seed=9, start=start)
        for field in whole.per_image(): assert torch.equal(getattr(whole, field)[start:start + n], getattr(part, field)), field


def test_seeds_differ_and_repeat():
    a, b, c = draw_scenes(20, seed=0), draw_scenes(20, seed=1), draw_scenes(20, seed=0)
    assert torch.equal(a.images, c.images) and (a.images != b.images).flatten(1).any(1).all()


def test_torch_s_own_stream_is_left_alone():
    torch.manual_seed(3)
    before = torch.rand(2)
    torch.manual_seed(3)
    draw_scenes(2, seed=0)
    assert torch.equal(torch.rand(2), before)


def test_factors_agree_with_the_masks():
    scenes = draw_scenes(100, seed=2)
    table = scenes.factors()
    assert len({len(v) for v in table.values()}) == 1 and len(table["scene"]) == int((scenes.colours >= 0).sum())
    for scene, k, seen in zip(table["scene"].tolist(), table["object"].tolist(), table["visible"].tolist(), strict=True):
        assert int((scenes.masks[scene] == k).sum()) == seen
    assert torch.equal(scenes.labels, scenes.shapes[:, 0]) and scenes.classes == SHAPES
    # the last object is hidden by none
    whole = (table["shape"] == SHAPES.index("disc")) & (table["object"] == scenes.colours.ge(0).sum(1)[table["scene"]])
    expected = torch.pi * 0.9 * table["size"][whole] ** 2
    assert ((table["visible"][whole] - expected).abs() / expected).max() < 0.2  # pixels on the edge


def test_the_topmost_object_is_whole_and_objects_stay_in_the_picture():
    scenes = draw_scenes(400, seed=4, settings=SceneSettings(objects_low=1, objects_high=1, side=48))
    border = torch.cat([scenes.masks[:, 0], scenes.masks[:, -1], scenes.masks[:, :, 0], scenes.masks[:, :, -1]], 1)
    assert (border > 0).float().mean() < 0.01
    rows = (scenes.masks > 0).float()
    line = torch.arange(48.0)
    middle = torch.stack([(rows.sum(2) * line).sum(1), (rows.sum(1) * line).sum(1)], 1) / rows.sum((1, 2))[:, None]
    round_ones = scenes.labels != SHAPES.index("crescent")
    assert (middle - scenes.centres[:, 0])[round_ones].abs().max() < 1


def test_chances_are_fair():
    scenes = draw_scenes(3000, seed=11)
    there = scenes.colours >= 0
    for values in (scenes.colours[there], scenes.shapes[there]):
        share = values.bincount(minlength=6) / len(values)
        assert (share - 1 / 6).abs().max() < 0.02  # 4 standard deviations of 7,500 draws
    assert ((there.sum(1).bincount(minlength=5)[1:] / 3000) - 0.25).abs().max() < 0.04
    assert (scenes.sizes[:, 1:].amax(1) < scenes.sizes[:, 0]).all()


def test_subset_and_bad_calls():
    scenes = draw_scenes(6, seed=0)
    part = scenes.subset([5, 2])
    assert isinstance(part, Scenes) and torch.equal(part.colour_mask("red"), scenes.colour_mask("red")[[5, 2]])
    for call, message in [(lambda: draw_scenes(0, seed=0), "`n` must be a whole number of at least 1"),
                          (lambda: draw_scenes(1, seed=0, start=-1), "`start` must be"),
                          (lambda: scenes.colour_mask("orange"), "`name` must be one of red"),
                          (lambda: scenes.resize(32), "must be set when scenes are drawn"),
                          (lambda: SceneSettings(size_low=0.2, size_high=0.1), "`size_low` must be at most `size_high`"),
                          (lambda: SceneSettings(hue_jitter=20.0), "`hue_jitter` must be at most 5")]:
        with pytest.raises(ValueError, match=message): call()


def test_settings_round_trip():
    settings = SceneSettings(side=32, must_have="cyan")
    assert from_json(SceneSettings, to_json(settings)) == settings


@pytest.mark.parametrize("shape", SHAPES)
def test_shapes_stay_within_reach(shape):
    line = torch.linspace(-2, 2, 801)
    u, v = line[None].expand(801, -1), line[:, None].expand(-1, 801)
    hit = inside(u, v, shape)
    assert hit.any() and (u.square() + v.square()).sqrt()[hit].max() <= 1.18


def test_hue_to_rgb_against_the_standard_library():
    import colorsys
    hues = torch.arange(-360.0, 720.0, 7.0)
    expected = torch.tensor([colorsys.hsv_to_rgb((h % 360) / 360, 1, 1) for h in hues.tolist()])
    assert torch.allclose(hue_to_rgb(hues), expected, atol=1e-5)


def test_speed():
    start = time.perf_counter()
    draw_scenes(1000, seed=0)
    assert time.perf_counter() - start < 6  # about 0.9 s alone on one core
