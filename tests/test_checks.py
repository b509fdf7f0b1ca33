"""Checks: every planted failure is caught, healthy masks of many kinds are quiet, and sentences carry their numbers and a
setting that exists.
"""
import dataclasses
import math
import re
from pathlib import Path

import latentlab
import pytest
import torch
import torch.nn.functional as F
from latentlab.families.nem.checks import (MASK_LIMITS, NEM_CHECKS, MaskProbe, describe, lost_images, loud_switches, mask_border, mask_collapse,
                                           mask_combs, mask_dimming, mask_lines,
                                           mask_saturation, mask_switches)
from latentlab.metrics.masks import hard_keep, move

HOT = dict(penalty="kl", kl_scale=0.01, area_scale=0.1, prior=1e-4, distance="half_cosine", fill="mean", neighbourhood="off", gate="soft",
           smoothing=0.0, jitter=1, complement_scale=0.0, variation_scale=0.0, border_scale=0.0, binarity_scale=0.0)


def world(n=32, side=28, seed=0):
    "Images of textured things on a dark ground, and the field whose high values are the thing."
    g = torch.Generator().manual_seed(seed)
    at = torch.linspace(0, 1, side)
    y, x, width = (low + (high - low) * torch.rand(n, 3, 1, 1, generator=g) for low, high in ((0.2, 0.8), (0.2, 0.8), (0.1, 0.22)))
    hills = torch.exp(-((at[:, None] - y) ** 2 + (at - x) ** 2) / (2 * width**2)).sum(1)
    texture = F.interpolate(torch.rand(n, 1, 7, 7, generator=g), size=(side, side), mode="bilinear")[:, 0]
    return (0.05 + 0.9 * texture * (hills > 0.5))[:, None], hills


def encode(x):
    "Every second row and column, a convolution without bias, coarse pooling: what combs and dimming deceive."
    weight = torch.randn(16, x.shape[1], 3, 3, generator=torch.Generator().manual_seed(7))
    return F.adaptive_avg_pool2d(F.conv2d(x[..., ::2, ::2], weight, padding=1).relu(), 4).flatten(1)


def cut(field, area, steep=8.0):
    return steep * (field - field.flatten(1).quantile(1 - area, dim=1)[:, None, None])


def measure(images, logits, **changes):
    "The probe that a masker with these logits would give."
    keep, live = logits.sigmoid(), HOT | changes
    ground = torch.zeros_like(images) if live["fill"] == "zero" else images.mean().expand_as(images)
    hard, code = hard_keep(logits, keep.mean((-2, -1))), encode(images)
    far = lambda mask: (1 - F.cosine_similarity(encode(torch.lerp(ground, images, mask[:, None])), code, dim=-1)) / 2
    moved = torch.stack([far(move(hard, *shift)) for shift in ((1, 0), (-1, 0), (0, 1), (0, -1))]).mean(0)
    return MaskProbe(images=images, keep=keep, logits=logits, distance_soft=far(keep), distance_hard=far(hard), distance_moved=moved,
                     distance_blank=far(torch.zeros_like(keep)), distance_name="half_cosine", live=live)


def healthy(seed, side):
    images, field = world(side=side, seed=seed)
    g = torch.Generator().manual_seed(seed)
    for area in (0.08, 0.15, 0.25, 0.4, 0.6, 0.75):
        for steep in (4.0, 8.0, 30.0): yield f"area {area} steep {steep}", measure(images, cut(field, area, steep))
    for bias in (-2.0, 0.0, 2.0):  # untrained: nearly flat, different for each image
        rough = F.interpolate(torch.randn(len(images), 1, 9, 9, generator=g), size=(side, side), mode="bicubic")[:, 0]
        yield f"untrained at bias {bias}", measure(images, bias + 0.6 * rough)


@pytest.mark.parametrize("side", [28, 64])
@pytest.mark.parametrize("seed", [3, 4, 5])
def test_healthy_masks_are_quiet(seed, side):
    for name, probe in healthy(seed, side):
        wrong = [verdict for verdict in (check(probe) for check in NEM_CHECKS) if verdict.level != "ok"]
        assert not wrong, (name, wrong)


def spoil(kind, images, field, area):
    good, side = cut(field, area), field.shape[-1]
    at = torch.arange(side)
    edge = lambda width: (at < width) | (at >= side - width)
    grey = math.log(0.1 / 0.9) + 0.01 * torch.randn(good.shape, generator=torch.Generator().manual_seed(0))
    put = lambda where: torch.where(where, torch.tensor(9.0), good)
    fat = max(2, side // 14)
    return {
        "all kept": lambda: measure(images, good + 18), "all hidden": lambda: measure(images, good - 30),
        "constant": lambda: measure(images, torch.zeros_like(good) - 1), "constant, almost": lambda: measure(images, 1e-4 * good),
        "same for all": lambda: measure(images, good[:1] + 0.1 * good), "dimming": lambda: measure(images, grey, fill="zero"),
        "line above": lambda: measure(images, put((at == 0)[:, None])), "line below": lambda: measure(
            images, put((at == side - 1)[:, None])),
        "line left": lambda: measure(images, put(at == 0)), "line within": lambda: measure(images, put((at // 2 == side // 4)[:, None])),
        "ring": lambda: measure(images, put(edge(fat)[:, None] | edge(fat))),
        "comb of rows": lambda: measure(images, torch.where((at % 2 == 0)[:, None], good + 3, -9.0)),
        "comb of columns": lambda: measure(images, torch.where(at % 2 == 0, good + 3, -9.0)),
        "grid": lambda: measure(images, torch.where((at % 2 == 0)[:, None] & (at % 2 == 0), good + 3, -9.0)),
        "saturated": lambda: measure(images, 1000 * good),
    }[kind]()


FAILURES = [
    ("all kept", mask_collapse, "warn", "all kept"), ("all hidden", mask_collapse, "bad", "all hidden"),
    ("constant", mask_collapse, "bad", "constant"),
    ("constant, almost", mask_collapse, "bad", "constant"), ("same for all", mask_collapse, "bad", "one mask for all"),
    ("dimming", mask_dimming, "bad", "dimmed"),
    ("line above", mask_lines, "bad", "row 0 "), ("line below", mask_lines, "bad", "row {last} "),
    ("line left", mask_lines, "bad", "column 0 "),
    ("line within", mask_lines, "bad", "row "), ("ring", mask_border, "bad", "outer ring"), ("comb of rows", mask_combs, "bad", "strides"),
    ("comb of columns", mask_combs, "bad", "strides"), ("grid", mask_combs, "bad", "strides"),
    ("saturated", mask_saturation, "warn", "beyond 6"),
]


@pytest.mark.parametrize(("seed", "side", "area"), [(0, 28, 0.25), (1, 64, 0.25), (2, 28, 0.12)])
@pytest.mark.parametrize(("kind", "check", "grade", "words"), FAILURES, ids=[case[0] for case in FAILURES])
def test_a_planted_failure_is_caught_and_explained(kind, check, grade, words, seed, side, area):
    verdict = check(spoil(kind, *world(side=side, seed=seed), area))
    assert verdict.level == grade, verdict
    assert words.format(last=side - 1) in verdict.sentence and verdict.remedy
    assert verdict.value >= verdict.threshold
    assert re.search(r"\d", verdict.sentence), "a sentence has its numbers"


ALONE = [(-50.0, "keeps 1.9e-20 %", "lower kl_scale"), (50.0, "keeps 100 %", "raise kl_scale"), (0.3, "has a constant mask", "lower kl_scale")]


@pytest.mark.parametrize(("seed", "side", "which"), [(6, 28, 0), (7, 64, 31), (8, 28, 12)])
@pytest.mark.parametrize(("logit", "words", "remedy"), ALONE, ids=["hides all", "keeps all", "constant"])
def test_one_image_without_an_explanation_is_caught_and_named(logit, words, remedy, seed, side, which):
    images, field = world(side=side, seed=seed)
    logits = cut(field, 0.25)
    logits[which] = logit
    found = mask_collapse(measure(images, logits))
    assert found.level == "warn" and f"1 of 32 images without an explanation: image {which} {words}" in found.sentence, found
    assert remedy in found.remedy and found.value >= found.threshold
    healthy_rest = measure(images, cut(field, 0.25))
    on_screen = dataclasses.replace(measure(images, logits), names=tuple(f"image {i + 1} on screen (thing)" for i in range(32)))
    found = mask_collapse(dataclasses.replace(healthy_rest, others=on_screen))
    assert found.level == "warn" and f"1 of 64 images without an explanation: image {which + 1} on screen (thing) {words}" in found.sentence
    assert {check(measure(images, logits)).level for check in NEM_CHECKS if check is not mask_collapse} == {"ok"}, "no other check sees it"


def test_many_images_without_an_explanation_are_bad_and_three_more_are_named():
    images, field = world()
    logits = cut(field, 0.25)
    logits[[1, 4, 5, 9, 11, 20, 30, 31]] = -50.0
    found = mask_collapse(measure(images, logits))
    assert found.level == "bad" and "8 of 32" in found.sentence and "; also image 4, image 5, image 9 and 4 more" in found.sentence, found


def test_an_image_that_its_fill_equals_may_be_hidden_whole():
    images, field = world()
    images[3], logits = images.mean(), cut(field, 0.25)
    logits[3] = -50.0
    probe = measure(images, logits)
    assert probe.distance_blank[3] < 1e-6 and lost_images(probe) == () and mask_collapse(probe).level == "ok"


def test_a_start_from_a_high_bias_is_a_warning_and_nothing_worse():
    images, field = world()
    rough = F.interpolate(torch.randn(32, 1, 9, 9, generator=torch.Generator().manual_seed(0)), size=(28, 28), mode="bicubic")[:, 0]
    flat = 5 + 0.4 * rough
    levels = {v.name: v.level for v in (check(measure(images, flat)) for check in NEM_CHECKS)}
    assert levels.pop("collapse") == "warn" and set(levels.values()) == {"ok"}


def test_an_empty_mask_that_keeps_the_distance_is_dimmed_and_not_hidden():
    images, field = world()
    dark = math.log(1e-3) + 0.01 * torch.randn(field.shape, generator=torch.Generator().manual_seed(0))
    probe = measure(images, dark, fill="zero")
    assert mask_collapse(probe).level == "ok" and mask_dimming(probe).level == "bad"
    assert "fill" in mask_dimming(probe).remedy and "relative_l2" in mask_dimming(probe).remedy


def test_the_remedy_fits_the_settings():
    images, field = world()
    hidden = measure(images, cut(field, 0.2) - 30, penalty="area")
    assert "area_scale" in mask_collapse(hidden).remedy and "kl_scale" not in mask_collapse(hidden).remedy
    grey = math.log(0.1 / 0.9) + 0.01 * torch.randn(field.shape, generator=torch.Generator().manual_seed(0))
    probe = dataclasses.replace(measure(images, grey, fill="zero"), distance_name="relative_l2", live=HOT)
    assert "set fill" not in mask_dimming(probe).remedy and "relative_l2" not in mask_dimming(probe).remedy


def test_a_belt_that_moves_with_its_image_is_no_line_and_one_that_stays_is():
    images, field = world()
    belts = torch.stack([torch.where(torch.arange(28)[:, None] == 4 + i % 20, 9.0, -9.0) for i in range(32)])
    assert mask_lines(measure(images, torch.maximum(cut(field, 0.25), belts))).level == "ok"
    assert mask_lines(measure(images, torch.maximum(cut(field, 0.25), belts[:1]))).level == "bad"


def test_fine_texture_alone_is_no_comb():
    images, field = world()
    probe = measure(images, torch.where((torch.arange(28) % 2 == 0)[:, None], cut(field, 0.25) + 3, -9.0))
    still = dataclasses.replace(probe, distance_moved=probe.distance_hard)
    assert mask_combs(still).level == "warn"  # a share of .7, but nothing jumps
    jumpy = dataclasses.replace(measure(images, cut(field, 0.25)), distance_moved=probe.distance_blank)
    assert mask_combs(jumpy).level == "ok"


@pytest.mark.parametrize("name", ["keep", "logits", "distance_soft", "distance_hard", "distance_moved", "distance_blank"])
def test_what_is_not_finite_is_never_well(name):
    probe = measure(*(lambda images, field: (images, cut(field, 0.25)))(*world()))
    value = getattr(probe, name).clone()
    value.view(-1)[3] = math.nan
    found = mask_collapse(dataclasses.replace(probe, **{name: value}))
    assert found.level == "bad" and "not a finite number" in found.sentence


def test_one_image_is_not_called_the_same_mask_for_all():
    images, field = world(n=1)
    assert all(check(measure(images, cut(field, 0.25))).level == "ok" for check in (mask_collapse, mask_dimming, mask_combs,
                                                                                    mask_saturation))


def test_figures_are_plain_finite_numbers():
    images, field = world(n=4)
    figures = measure(images, cut(field, 0.25)).figures()
    assert all(type(value) is float and math.isfinite(value) for value in figures.values())
    assert {"area", "distance_soft", "distance_hard", "distance_moved", "distance_blank", "high_frequency", "line",
            "border"} <= set(figures)


def test_limits_have_reasons_and_an_order():
    for name, limit in MASK_LIMITS.items(): assert limit.reason and limit.warn <= limit.bad, name


# words ----------------------------------------------------------------------------------------------------------------

def test_defaults_are_quiet_but_say_what_is_off():
    assert loud_switches(HOT) == () and describe(HOT) == ("Off, with weight 0: complement, total variation, border, binarity.",)


@pytest.mark.parametrize(("change", "words", "light"), [
    (dict(neighbourhood="train"), "averaging is on in training", True), (dict(neighbourhood="always"), "averaging is always on", True),
    (dict(smoothing=1.5), "Smoothing of 1.5 px", True), (dict(penalty="area", area_scale=0.0), "The area penalty has weight 0", True),
    (dict(kl_scale=0.0), "The KL penalty has weight 0", True), (dict(gate="straight_through"), "straight-through", False),
    (dict(fill="zero"), "dimming", False), (dict(jitter=0), "jitter is off", False), (dict(prior=0.01), "4.61 nats", False),
    (dict(new_term_scale=0.0), "new term", False),
])
def test_each_switch_is_said(change, words, light):
    live = HOT | change
    assert any(words in sentence for sentence in describe(live)), describe(live)
    assert bool(loud_switches(live)) == light
    images, field = world(n=4)
    assert mask_switches(measure(images, cut(field, 0.25), **change)).level == ("warn" if light else "ok")


def test_a_penalty_that_is_not_chosen_may_be_zero():
    assert loud_switches(HOT | dict(area_scale=0.0)) == () and not any("area" in s for s in describe(HOT | dict(area_scale=0.0)))
    assert not any("prior" in s for s in describe(HOT | dict(penalty="area", prior=0.01)))


def test_settings_of_another_family_say_nothing():
    assert describe({}) == () and describe({"learning_rate": 1e-3}) == ()


def test_remedies_name_settings_that_exist():
    from latentlab.families.nem.model import NEMSettings

    known = set(NEMSettings().fields()) | {"learning_rate", "mask_bias"}
    for kind, check, *_ in FAILURES:
        remedy = check(spoil(kind, *world(), 0.25)).remedy
        named = re.findall(r"\b[a-z]+_(?:scale|bias|rate)\b", remedy)
        assert set(named) <= known, remedy
        assert any(re.search(rf"\b{name}\b", remedy) for name in known), f"no setting in: {remedy}"


def test_no_share_is_written_by_a_format_that_rounds_it_to_nothing() -> None:
    "One function writes shares, `core.checks.percent`: a format with a percent sign makes 0.0 % of 0.0004."
    package = Path(latentlab.__file__).parent
    found = [f"{path.relative_to(package)}: {line.strip()}" for path in package.rglob("*.py") for line in path.read_text().splitlines()
             if re.search(r":\.?\d*%\}", line)]
    assert found == []
