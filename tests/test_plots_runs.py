"""Figures from a journal of runs: what is drawn, intervals as scipy has them, numbers of runs in words, texts of any length
inside the page.
"""
import subprocess
import sys
from functools import lru_cache

import numpy as np
import pytest
from latentlab.plots import runs, style

stats = pytest.importorskip("scipy.stats")
STEPS = np.arange(0, 200, 10)
THEMES = pytest.mark.parametrize("theme", [style.LIGHT, style.DARK], ids=lambda theme: theme.name)
NASTY = "The <b>mask</b> $x_ keeps $\\frac{ & \\alpha% " * 12


def draw(*shape, seed=0): return np.random.default_rng(seed).normal(size=shape)


@lru_cache(maxsize=4)
def drawn_texts(figure, dpi=100):
    "Every text that is drawn, with its box in pixels."
    style.figure_png(figure, dpi=dpi)
    renderer = figure.canvas.get_renderer()
    outside = {t for ax in figure.axes for axis, (low, high) in ((ax.xaxis, sorted(ax.get_xlim())), (ax.yaxis, sorted(ax.get_ylim())))
               for tick in axis.get_major_ticks() if not low <= tick.get_loc() <= high for t in (tick.label1,)}
    hidden = outside | {t for ax in figure.axes if not ax.axison or not ax.get_visible()
                        for t in ax.findobj(lambda o: hasattr(o, "get_text"))}
    texts = [t for t in figure.findobj(lambda o: hasattr(o, "get_text")) if t.get_visible() and t.get_text() and t not in hidden]
    return [(t, t.get_window_extent(renderer)) for t in texts]


def cut_off(figure, dpi=100):
    "Texts that reach over the edge of the figure."
    found = drawn_texts(figure, dpi)
    width, height = figure.canvas.get_width_height()
    return [t.get_text() for t, box in found if box.x0 < -1 or box.y0 < -1 or box.x1 > width + 1 or box.y1 > height + 1]


def touching(figure, dpi=100):
    "Pairs of texts of the page that lie on each other."
    found = [(t.get_text(), box) for t, box in drawn_texts(figure, dpi) if t in figure.texts]
    over = lambda a, b: min(a.x1, b.x1) - max(a.x0, b.x0) > 1 and min(a.y1, b.y1) - max(a.y0, b.y0) > 0.035 * dpi
    return [(a, b) for i, (a, one) in enumerate(found) for b, other in found[:i] if over(one, other)]


def legend(figure): return [t.get_text() for t in figure.legends[0].get_texts()]


def small(figure): return figure.get_supxlabel().replace("\n", " ")


def group(name="a", n=5, seed=0, **other):
    return runs.GroupCurve(**{"name": name, "steps": STEPS, "values": 1 + 0.1 * draw(n, len(STEPS), seed=seed), **other})


def test_these_plots_know_nothing_of_pyplot():
    script = "import sys, latentlab.plots.runs; print('matplotlib.pyplot' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.strip() == "False"


# intervals --------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("n", [2, 3, 5, 30])
def test_intervals_are_those_of_scipy(n):
    values = 3 + 2 * draw(n, 4, seed=n)
    found = runs.summarise(values)
    low, high = stats.t.interval(0.95, n - 1, loc=values.mean(0), scale=stats.sem(values))
    assert np.allclose(found.mean, values.mean(0)) and np.allclose(found.low, low, rtol=1e-10) and np.allclose(found.high, high, rtol=1e-10)


def test_what_is_not_finite_is_no_value():
    values = draw(6, 3)
    values[2, 0], values[:, 1], values[1:, 2] = np.inf, np.nan, -np.inf
    found = runs.summarise(values)
    rest = np.delete(values[:, 0], 2)
    assert found.n.tolist() == [5, 0, 1] and np.isclose(found.mean[0], rest.mean()) and found.mean[2] == values[0, 2]
    assert np.isclose(found.high[0], stats.t.interval(0.95, 4, rest.mean(), stats.sem(rest))[1])
    assert np.isnan([found.mean[1], found.low[1], found.low[2], found.high[2]]).all()


def test_identical_runs_have_an_interval_of_no_width():
    found = runs.summarise(np.full(4, 0.3))
    assert np.isclose(found.low, 0.3) and np.isclose(found.high, 0.3) and int(found.n) == 4


# looks ------------------------------------------------------------------------------------------------------------------

@THEMES
def test_eight_looks_differ_and_are_seen(theme):
    eight = list(runs.series_styles([str(i) for i in range(8)], theme).values())
    assert len({look.colour for look in eight}) == len({look.mark for look in eight}) == 8
    ground = np.array([int(theme.ground[i : i + 2], 16) for i in (1, 3, 5)])
    for look in eight: assert np.abs(ground - [int(look.colour[i : i + 2], 16) for i in (1, 3, 5)]).max() > 80


# bands ------------------------------------------------------------------------------------------------------------------

@THEMES
def test_bands_draw_every_run_their_mean_and_their_interval(theme):
    groups = [group("five", 5, 1), group("two", 2, 2), group("one", 1, 3)]
    figure = runs.plot_bands(groups, metric="area", unit="share of pixels", theme=theme)
    ax = figure.axes[0]
    assert legend(figure) == ["five (n = 5)", "two (n = 2)", "one (n = 1, no interval)"]
    assert len(ax.lines) == 5 + 2 + 1 + 3 and len(ax.collections) == 2
    low, high = stats.t.interval(0.95, 4, groups[0].values.mean(0), stats.sem(groups[0].values))
    corners = ax.collections[0].get_paths()[0].vertices
    for x, a, b in zip(STEPS, low, high):
        assert np.isclose(corners[corners[:, 0] == x][:, 1].min(), a) and np.isclose(corners[corners[:, 0] == x][:, 1].max(), b)
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("training step", "area, share of pixels") and cut_off(figure) == []


def test_runs_that_ended_are_counted_and_stay_open():
    values = 1 + 0.1 * draw(4, len(STEPS))
    values[0, 5:], values[1, 9] = np.nan, np.inf
    figure = runs.plot_bands([group(values=values), group("b", values=np.full((2, len(STEPS)), np.nan))], metric="area")
    assert legend(figure) == ["a (n = 2 to 4 of 4)", "b (2 runs, nothing finite)"]
    assert np.isnan(figure.axes[0].lines[0].get_ydata()[5:]).all() and np.isnan(figure.axes[0].lines[1].get_ydata()[9])


def test_an_interval_that_leaves_the_axis_is_said_and_the_runs_are_seen():
    values = np.stack([np.full(len(STEPS), 3.0), np.full(len(STEPS), 3.2)])
    figure = runs.plot_bands([group(values=values)], metric="area")
    low, high = figure.axes[0].get_ylim()
    assert 2.5 < low < 3 and 3.2 < high < 3.7 and runs.CUT in small(figure)
    assert runs.CUT not in small(runs.plot_bands([group(values=1 + 0.1 * draw(9, len(STEPS)))], metric="area"))


def test_a_zero_that_would_hide_part_of_the_interval_is_said():
    assert runs.room([np.array([0.1, 1.0])], [np.array([-0.2, 1.2])]).cut
    assert not runs.room([np.array([0.1, 1.0])], [np.array([0.05, 1.2])]).cut


@pytest.mark.parametrize("names", [[NASTY, "$" * 200], ["a", "b", "c", "d", "e", "f", "g", "h"]])
def test_band_texts_stay_inside_and_are_literal(names):
    figure = runs.plot_bands([group(name, 3, i) for i, name in enumerate(names)], metric="x" * 100, unit=NASTY)
    assert cut_off(figure) == [] and len(legend(figure)) == len(names)
    assert legend(figure)[0].startswith(runs.short(names[0], 3.0))


# groups -----------------------------------------------------------------------------------------------------------------

def point(x, n=4, series="", seed=0, values=None):
    return runs.GroupPoint(x=x, series=series, values=2 + 0.1 * draw(n, seed=seed) if values is None else values)


@THEMES
@pytest.mark.parametrize("log_x", [True, False])
def test_groups_draw_every_seed_means_and_intervals(theme, log_x):
    points = [point(x, series=series, seed=i) for i, (x, series) in enumerate([(0.1, "a"), (10.0, "a"), (1.0, "a"), (0.1, "b"),
                                                                               (1.0, "b")])]
    figure = runs.plot_groups(points, metric="area", unit="share of pixels", x_label="kl scale", series_label="fill", log_x=log_x,
                              theme=theme)
    ax = figure.axes[0]
    assert ax.get_xscale() == ("log" if log_x else "linear") and (ax.get_xlabel(), ax.get_ylabel()) == ("kl scale", "area, share of pixels")
    assert legend(figure) == ["a", "b"] and figure.legends[0].get_title().get_text() == "fill" and "n = 4 each" in small(figure)
    first, second = ax.containers
    # in order of x
    assert (np.allclose(first[0].get_xdata(), [0.1, 1, 10])
            and np.allclose(first[0].get_ydata(), [points[i].values.mean() for i in (0, 2, 1)]))
    for bar, i in zip(second[2][0].get_segments(), (3, 4)):
        assert np.allclose(bar[:, 1], stats.t.interval(0.95, 3, points[i].values.mean(), stats.sem(points[i].values)))
    dots = [line for line in ax.lines if len(line.get_xdata()) == 4]
    assert sorted(np.concatenate([line.get_ydata() for line in dots])) == sorted(np.concatenate([p.values for p in points]))
    assert cut_off(figure) == [] and len(ax.texts) == 0


def test_numbers_of_runs_are_written_when_they_vary_or_are_one():
    varied = runs.plot_groups([point(1.0, 3), point(2.0, 5)], metric="area")
    assert [t.get_text() for t in varied.axes[0].texts] == ["n", "3", "5"] and "each" not in small(varied) and cut_off(varied) == []
    single = runs.plot_groups([point(1.0, 1), point(2.0, 1)], metric="area")
    assert [t.get_text() for t in single.axes[0].texts] == ["n", "1", "1"] and "no interval" in small(single)
    assert all(np.ptp(bar[:, 1]) == 0 for bar in single.axes[0].containers[0][2][0].get_segments())


def test_runs_without_a_number_are_counted_in_words():
    gone = np.array([np.nan, 1.0, np.inf, 1.1])
    figure = runs.plot_groups([point("blur", values=gone, series="s"), point("mean", series="s"),
                               point("black", values=np.full(2, np.nan), series="s")], metric="area")
    assert "2 of 4 not finite at blur, s; 2 of 2 not finite at black, s." in small(figure)
    assert [t.get_text() for t in figure.axes[0].texts] == ["n", "2", "4", "0"] and cut_off(figure) == []
    many = runs.missing([point(float(i), values=gone) for i in range(10)])[0]
    assert many.endswith("not finite at 3; 12 more elsewhere.")


def test_a_word_among_the_settings_makes_categories_in_their_order():
    ax = runs.plot_groups([point(0.5), point("none"), point(0.1)], metric="area").axes[0]
    assert ax.get_xticks().tolist() == [0, 1, 2] and [t.get_text() for t in ax.get_xticklabels()] == ["0.5", "none", "0.1"]


@pytest.mark.parametrize("xs", [[NASTY + str(i) for i in range(8)], [0.1, 0.11, 0.12, 50.0], list(map(float, range(30)))])
@pytest.mark.parametrize("series", [[""], ["$a_", NASTY, "c", "d", "e", "f", "g", "h"]])
def test_group_texts_stay_inside(xs, series):
    points = [point(x, 2 + i % 2, name, seed=i) for name in series for i, x in enumerate(xs)]
    figure = runs.plot_groups(points, metric="area", x_label=NASTY, series_label=NASTY)
    assert cut_off(figure) == []
    labels = [box for t, box in drawn_texts(figure) if t in figure.axes[0].get_xticklabels() and t.get_rotation() == 0]
    for a, b in zip(labels, labels[1:]): assert a.x1 < b.x0 + 1
    lowest = min(box.y0 for t, box in drawn_texts(figure) if t in figure.axes[0].get_xticklabels())
    assert all(box.y1 < lowest + 4 for t, box in drawn_texts(figure) if t in figure.axes[0].texts)  # the table stands below the ticks
    ends = [line.get_transform().transform([[x, 0]])[0, 0] for line in figure.axes[0].lines if line.get_linestyle() != "None"
            for x in line.get_xdata()]
    assert len({round(end) for end in ends}) >= (len(xs) if xs[0] != 0.1 else 2)  # settings stand apart
    numbers = [box for t, box in drawn_texts(figure) if t in figure.axes[0].texts]
    for i, a in enumerate(numbers):
        for b in numbers[:i]: assert a.x1 < b.x0 + 1 or b.x1 < a.x0 + 1 or min(a.y1, b.y1) - max(a.y0, b.y0) < 4


# paths ------------------------------------------------------------------------------------------------------------------

def path(name="a", panel="", n=20, seed=0, **other):
    way = np.linspace(0.9, 0.2, n)
    return runs.Path(**{"name": name, "panel": panel, "x": way, "y": (1 - way) + 0.01 * draw(n, seed=seed), **other})


@THEMES
def test_paths_share_axes_colours_and_one_legend(theme):
    paths = [path(name, panel, seed=i) for i, (name, panel) in enumerate((name, panel) for name in ("a", "b") for panel in ("-5", "0", "5")
                                                                         for _ in range(2))]
    figure = runs.plot_paths(paths, x_label="area kept, share of pixels", y_label="distance", panels=["5", "0", "-5"], title="T",
                             theme=theme)
    assert [ax.get_title() for ax in figure.axes] == ["5", "0", "-5"] and {ax.get_xlim() for ax in figure.axes} == {(-0.02, 1.02)}
    assert len({ax.get_ylim() for ax in figure.axes}) == 1 and len(figure.legends) == 1 and not any(ax.get_legend() for ax in figure.axes)
    assert legend(figure) == ["a (6 runs)", "b (6 runs)", "start", "end"]
    for ax in figure.axes:
        assert len(ax.lines) == 4 * 3 and [line.get_color()
                                           for line in ax.lines[::3]] == [runs.series_styles(["a", "b"], theme)[name].colour for name in "aabb"]
        assert [line.get_markerfacecolor() == theme.ground for line in ax.lines[1::3]] == [True] * 4  # open at the start
        assert (np.allclose([line.get_xdata()[0] for line in ax.lines[1::3]], 0.9)
                and np.allclose([line.get_xdata()[0] for line in ax.lines[2::3]], 0.2))
    assert cut_off(figure) == []


def test_a_path_that_went_bad_ends_in_a_cross_and_one_without_points_is_counted():
    bad = path("bad")
    bad.y[10:] = np.nan
    figure = runs.plot_paths([bad, path("never", x=np.full(20, np.inf)), path("odd", panel="q")], x_label="x", y_label="y",
                             panels=["", "q", "empty"])
    line, _, end = figure.axes[0].lines
    assert len(line.get_xdata()) == 10 and end.get_marker() == "x" and end.get_xdata()[0] == bad.x[9]
    assert "ended not finite" in legend(figure) and "1 of 3 runs without a finite point" in figure.get_supxlabel()
    assert [t.get_text() for t in figure.axes[2].texts] == ["nothing to draw"] and cut_off(figure) == []


@pytest.mark.parametrize("count", [1, 4, 9])
def test_panels_of_any_number_stay_inside(count):
    figure = runs.plot_paths([path("$n_" * 30, NASTY + str(i), group=f"g{i % 3}") for i in range(count)], x_label="x", y_label="y",
                             title="a $title_")
    assert cut_off(figure) == [] and sum(ax.get_visible() for ax in figure.axes) == count
    for column in range(min(count, 4)):  # the lowest panel of every column has its numbers
        assert any(t.get_visible() and t.get_text() for t in figure.axes[max(i for i in range(count) if i % 4 == column)].get_xticklabels())
    assert legend(figure)[: min(count, 3)] == [f"g{i} ({len(range(i, count, 3))} "
                                               f"run{'s' * (len(range(i, count, 3)) > 1)})" for i in range(min(count, 3))]


@pytest.mark.parametrize(("call", "words"), [
    (lambda: runs.plot_bands([group(str(i)) for i in range(9)], metric="a"), "at most 8: got 9. Choose the groups to compare"),
    (lambda: runs.plot_bands([], metric="a"), "at least one group"),
    (lambda: runs.plot_bands([group(), group()], metric="a"), "must have different names"),
    (lambda: group(values=np.zeros((2, 3))), r"one column per step \(20\): got \(2, 3\)"),
    (lambda: group(values=np.zeros((0, 20))), "one row per run"),
    (lambda: runs.plot_groups([], metric="a"), "at least one point"),
    (lambda: runs.plot_groups([point(1.0), point(1.0)], metric="a"), "once per series"),
    (lambda: runs.plot_groups([point(-1.0)], metric="a", log_x=True), "above 0 on a logarithmic axis: got .-1.0.. Set log_x=False"),
    (lambda: runs.plot_groups([point("a")], metric="a", log_x=True), "False where settings are words"),
    (lambda: runs.plot_groups([point(float("nan"))], metric="a"), "must be finite"),
    (lambda: point(1.0, values=np.zeros((2, 2))), "one number per run"),
    (lambda: runs.plot_paths([], x_label="", y_label=""), "at least one path"),
    (lambda: runs.plot_paths([path(panel="b")], x_label="", y_label="", panels=["a"]), "panel of every path: got .'a'. without .'b'."),
    (lambda: path(y=np.zeros(3)), "must have one length"),
])
def test_bad_input_is_refused_in_words(unchecked, call, words):
    with pytest.raises(ValueError, match=words): call()
