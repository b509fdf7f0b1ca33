"""Plots: what is drawn (extents, ticks, colours, limits, units), nothing cut off, no pyplot, safe in threads."""
import io
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import matplotlib.image
import numpy as np
import pytest
import torch
from latentlab.plots import curves, masks, style


def draw(*shape, seed=0): return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def case(n=4, channels=1, height=28, width=28):
    images, keep = draw(n, channels, height, width), draw(n, height, width, seed=1)
    return images, keep, keep[:, None] * images, torch.logit(keep, 1e-6)


def shown(figure): return [ax for ax in figure.axes if not ax.axison]


def cut_off(figure):
    "Texts that reach over the edge of a figure."
    style.figure_png(figure)
    renderer, (w, h) = figure.canvas.get_renderer(), figure.canvas.get_width_height()
    hidden = {t for ax in shown(figure) for t in [*ax.get_xticklabels(), *ax.get_yticklabels()]}
    for ax in figure.axes:  # matplotlib keeps ticks outside of the limits and does not draw them
        for axis, (low, high) in ((ax.xaxis, sorted(ax.get_xlim())), (ax.yaxis, sorted(ax.get_ylim()))):
            hidden |= {tick.label1 for tick in axis.get_major_ticks() if not low <= tick.get_loc() <= high}
    texts = [t for t in figure.findobj(lambda o: hasattr(o, "get_text")) if t.get_visible() and t.get_text() and t not in hidden]
    boxes = [(t.get_text(), t.get_window_extent(renderer)) for t in texts]
    return [text for text, box in boxes if box.x0 < -1 or box.y0 < -1 or box.x1 > w + 1 or box.y1 > h + 1]


# style ------------------------------------------------------------------------------------------------------------------

def test_another_process_draws_the_same_colours_and_loads_no_pyplot():
    script = "import sys, latentlab.plots.masks, latentlab.plots.curves\nfrom latentlab.plots.style import term_colour\n"
    # Hashes of text differ between processes
    script += "print('matplotlib.pyplot' in sys.modules, *map(term_colour, ('elbo', 'tc', 'something')))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", *map(style.term_colour, ("elbo", "tc", "something"))]


def test_every_term_of_nem_has_its_own_colour():
    from latentlab.families.nem.model import EXTRAS

    terms = ["distance", "mask_kl", "area", "complement", *EXTRAS]
    assert set(terms) <= set(style.TERM_COLOURS)
    for theme in (style.LIGHT, style.DARK): assert len({theme.colour(name) for name in terms}) == len(terms)


def test_themes_differ_in_ground_and_never_hide_a_term():
    for name in style.TERM_COLOURS:
        for theme in (style.LIGHT, style.DARK):
            ground, colour = (np.array([int(c[i : i + 2], 16) for i in (1, 3, 5)]) for c in (theme.ground, theme.colour(name)))
            assert np.abs(ground - colour).max() > 80, (name, theme.name)


def test_png_has_the_size_that_was_asked_for():
    figure = style.new_figure(3, 2)
    picture = matplotlib.image.imread(io.BytesIO(style.figure_png(figure, dpi=50)), format="png")
    assert picture.shape[:2] == (100, 150)


def test_threads_draw_what_the_main_thread_draws():
    arrays = case(2)
    alone = style.figure_png(masks.plot_explanations(*arrays))
    with ThreadPoolExecutor(4) as pool: found = list(pool.map(lambda _: style.figure_png(masks.plot_explanations(*arrays)), range(4)))
    assert found == [alone] * 4


# explanations -----------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize(("n", "channels", "height", "width"), [(1, 1, 28, 28), (2, 3, 20, 40), (12, 1, 40, 20)])
def test_nothing_is_cut_off_or_overlaps(n, channels, height, width):
    figure = masks.plot_explanations(*case(n, channels, height, width), columns=[f"class number {i}" for i in range(n)], title="T")
    assert cut_off(figure) == []
    boxes = [ax.get_position() for ax in shown(figure)]
    assert len(boxes) == 4 * n
    for i, a in enumerate(boxes):
        assert 0 <= a.x0 < a.x1 <= 1 and 0 <= a.y0 < a.y1 <= 1
        for b in boxes[:i]: assert a.x0 >= b.x1 or b.x0 >= a.x1 or a.y0 >= b.y1 or b.y0 >= a.y1
    w, h = figure.get_size_inches()
    assert np.isclose(boxes[0].width * w / (boxes[0].height * h), width / height, rtol=1e-3)  # pixels are square


def test_colour_limits_are_fixed_by_meaning():
    images, keep, seen, logits = case(3)
    figure = masks.plot_explanations(images, 0.5 + 1e-3 * keep, seen, 0.01 * logits)
    assert {ax.images[0].get_clim() for ax in shown(figure)} == {(0.0, 1.0)}
    drawn = shown(figure)[-1].images[0].get_array()
    assert np.allclose(drawn, masks.rank_pixels(logits)[-1], atol=1e-3)  # a shallow map has the ranks of a steep one
    overlaid = shown(figure)[3].images[0].get_array()
    assert np.allclose(overlaid, masks.overlay(images, torch.full_like(keep, 0.5))[0], atol=2e-3)  # and is not stretched to look alive


def test_rows_stand_in_their_order_and_rank_may_be_left_out():
    images, keep, seen, logits = case(2)
    assert len(shown(masks.plot_explanations(images, keep, seen))) == 6
    rows = shown(masks.plot_explanations(images, keep, seen, logits))
    assert (np.allclose(rows[0].images[0].get_array(), masks.as_rgb(images)[0])
            and np.allclose(rows[4].images[0].get_array(), masks.as_rgb(seen)[0]))
    assert rows[0].get_position().y0 > rows[2].get_position().y0 > rows[4].get_position().y0 > rows[6].get_position().y0


def test_numpy_torch_bytes_and_floats_draw_the_same():
    images, keep, seen, logits = case(2, 3)
    a = style.figure_png(masks.plot_explanations(images, keep, seen, logits))
    assert a == style.figure_png(masks.plot_explanations(images.numpy(), keep.numpy(), seen.numpy(), logits.numpy()))
    as_bytes = (255 * images).round().byte()
    assert (np.allclose(masks.as_rgb(as_bytes), masks.as_rgb(images), atol=0.51 / 255)
            and np.allclose(masks.as_rgb(as_bytes.numpy()), masks.as_rgb(as_bytes)))


def test_an_overlay_keeps_texture_and_stays_in_range():
    for strength in [0.2, 0.6, 1.0]:
        images, keep = draw(2, 3, 12, 12), draw(2, 12, 12, seed=1)
        found = masks.overlay(images, keep, strength=strength)
        assert found.min() >= 0 and found.max() <= 1
        kept = masks.overlay(images, torch.ones(2, 12, 12), strength=strength)
        light = masks.as_rgb(images) @ np.array([0.299, 0.587, 0.114])
        assert np.corrcoef(kept.mean(-1).ravel(), light.ravel())[0, 1] > 0.85  # one still sees what was kept


def test_ranks_of_ties_are_their_mean():
    assert np.allclose(masks.rank_pixels(np.zeros((2, 4, 4), dtype=np.float32)), 0.5)
    found = masks.rank_pixels(np.array([[[0.0, 0.0], [1.0, 2.0]]], dtype=np.float32))
    assert np.allclose(found.ravel(), [1 / 6, 1 / 6, 2 / 3, 1])


@pytest.mark.parametrize(("call", "words"), [
    (lambda: masks.plot_explanations(*case(2), columns=["a"]), "must name every image: got 1 names for 2"),
    (lambda: masks.as_rgb(draw(1, 4, 5, 5)), "must have 1 or 3 channels: got 4"),
    (lambda: curves.plot_curves(np.arange(3), {"area": np.arange(2)}), "curves of 3 points"),
    (lambda: curves.plot_path(np.full(2, np.nan), np.zeros(2), np.zeros(2)), "none finite"),
])
def test_bad_input_is_refused_in_words(unchecked, call, words):
    with pytest.raises(ValueError, match=words): call()


# curves -----------------------------------------------------------------------------------------------------------------

STEPS = np.arange(0, 100, 5)


def test_each_unit_has_its_panel_and_no_axis_is_twinned():
    values = {"distance": STEPS * 1e-3, "area": 1 - STEPS / 200, "complement": -STEPS * 1e-3, "mask_kl": STEPS * 0.1, "own": STEPS * 1.0}
    units = {"distance": "(1-cos)/2", "complement": "(1-cos)/2", "area": "share of pixels", "mask_kl": "nats"}
    figure = curves.plot_curves(STEPS, values, units=units)
    assert [ax.get_ylabel() for ax in figure.axes] == ["(1-cos)/2", "share of pixels", "nats", "dimensionless"]
    assert len({ax.get_position().bounds for ax in figure.axes}) == 4  # a twin would lie upon another
    assert [t.get_text() for t in figure.axes[0].get_legend().get_texts()] == ["distance", "complement"]
    assert figure.axes[2].get_legend().get_texts()[0].get_text() == "mask KL"
    assert figure.axes[1].get_ylim() == (0, 1) and figure.axes[0].get_ylim()[0] < 0 and figure.axes[2].get_ylim()[0] == 0
    for name, line in zip(("distance", "complement"), figure.axes[0].lines[::2]):
        assert np.allclose(line.get_ydata(), values[name]) and line.get_color() == style.term_colour(name)
    assert cut_off(figure) == []


def test_holes_stay_holes_and_single_points_are_seen():
    y = np.full(20, np.nan)
    y[[3, 10, 11, 12, 19]] = 1.0
    line, dots = curves.plot_curves(STEPS, {"area": y}).axes[0].lines
    assert np.array_equal(np.isnan(line.get_ydata()), np.isnan(y)) and dots.get_xdata().tolist() == [15, 95]


def test_a_curve_without_a_number_does_not_break_the_figure():
    figure = curves.plot_curves(STEPS, {"area": np.full(20, np.nan), "distance": STEPS * 1.0}, units={"area": "share of pixels"})
    assert style.figure_png(figure).startswith(b"\x89PNG")


@pytest.mark.parametrize("theme", [style.LIGHT, style.DARK], ids=lambda theme: theme.name)
@pytest.mark.parametrize("down", [True, False])
def test_the_path_marks_its_ends_and_the_gap_between_them(down, theme):
    areas = np.linspace(0.97, 0.04, 30) if down else np.linspace(0.04, 0.97, 30)
    soft, hard = 0.1 * (1 - areas), 0.3 * (1 - areas)
    figure = curves.plot_path(areas, soft, hard, unit="(1-cos)/2", blank=0.35, steps=(0, 12000), theme=theme)
    ax = figure.axes[0]
    assert ax.get_xlim() == (-0.02, 1.02) and ax.get_ylim()[1] > 0.35
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("area kept, share of pixels", "distance, (1-cos)/2")
    ends = [line for line in ax.lines if line.get_marker() == "o"]
    assert np.allclose([line.get_xdata()[0] for line in ends], [areas[0], areas[-1]] * 2)
    assert [line.get_markerfacecolor() == theme.ground for line in ends] == [True, False] * 2  # open at the start, full at the end
    gap = [line for line in ax.lines if np.allclose(line.get_xdata(), areas[-1]) and len(line.get_xdata()) == 2]
    assert np.isclose(np.ptp(gap[0].get_ydata()), 0.2 * (1 - areas[-1]))
    assert [t.get_text() for t in ax.texts] == ["start, step 0", "end, step 12,000"] and cut_off(figure) == []


def test_a_path_skips_points_that_are_not_finite():
    areas = np.array([0.9, np.nan, 0.5, 0.3])
    line = curves.plot_path(areas, areas * 0.1, np.array([0.1, 0.1, np.nan, 0.1])).axes[0].lines[0]
    assert line.get_xdata().tolist() == [np.float32(0.9), np.float32(0.3)]


def test_a_path_of_one_point_is_drawn():
    for n in [1, 2]:
        figure = curves.plot_path(np.full(n, 0.5), np.zeros(n), np.zeros(n))
        assert cut_off(figure) == [] and figure.axes[0].get_ylim()[1] > 0
