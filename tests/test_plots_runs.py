"""Figures from a journal of runs: what is drawn, intervals as scipy has them, numbers of runs in words, texts of any length inside the page."""
import io
import subprocess
import sys
import warnings
from functools import lru_cache

import matplotlib.image
import numpy as np
import pytest
from latentlab.plots import card, page, runs, style

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
    hidden = outside | {t for ax in figure.axes if not ax.axison or not ax.get_visible() for t in ax.findobj(lambda o: hasattr(o, "get_text"))}
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
    script = "import sys, latentlab.plots.runs, latentlab.plots.card; print('matplotlib.pyplot' in sys.modules)"
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
    eight = list(runs.looks([str(i) for i in range(8)], theme).values())
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
    for x, a, b in zip(STEPS, low, high): assert np.isclose(corners[corners[:, 0] == x][:, 1].min(), a) and np.isclose(corners[corners[:, 0] == x][:, 1].max(), b)
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

def point(x, n=4, series="", seed=0, values=None): return runs.GroupPoint(x=x, series=series, values=2 + 0.1 * draw(n, seed=seed) if values is None else values)


@THEMES
@pytest.mark.parametrize("log_x", [True, False])
def test_groups_draw_every_seed_means_and_intervals(theme, log_x):
    points = [point(x, series=series, seed=i) for i, (x, series) in enumerate([(0.1, "a"), (10.0, "a"), (1.0, "a"), (0.1, "b"), (1.0, "b")])]
    figure = runs.plot_groups(points, metric="area", unit="share of pixels", x_label="kl scale", series_label="fill", log_x=log_x, theme=theme)
    ax = figure.axes[0]
    assert ax.get_xscale() == ("log" if log_x else "linear") and (ax.get_xlabel(), ax.get_ylabel()) == ("kl scale", "area, share of pixels")
    assert legend(figure) == ["a", "b"] and figure.legends[0].get_title().get_text() == "fill" and "n = 4 each" in small(figure)
    first, second = ax.containers
    assert np.allclose(first[0].get_xdata(), [0.1, 1, 10]) and np.allclose(first[0].get_ydata(), [points[i].values.mean() for i in (0, 2, 1)])  # in order of x
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
    figure = runs.plot_groups([point("blur", values=gone, series="s"), point("mean", series="s"), point("black", values=np.full(2, np.nan), series="s")], metric="area")
    assert "2 of 4 not finite at blur, s; 2 of 2 not finite at black, s." in small(figure)
    assert [t.get_text() for t in figure.axes[0].texts] == ["n", "2", "4", "0"] and cut_off(figure) == []
    many = runs.missing([point(float(i), values=gone) for i in range(10)])[0]
    assert many.endswith("not finite at 3; 12 more elsewhere.")


def test_a_word_among_the_settings_makes_categories_in_their_order():
    ax = runs.plot_groups([point(0.5), point("none"), point(0.1)], metric="area").axes[0]
    assert ax.get_xticks().tolist() == [0, 1, 2] and [t.get_text() for t in ax.get_xticklabels()] == ["0.5", "none", "0.1"]


@pytest.mark.parametrize("xs", [[NASTY + str(i) for i in range(8)], [0.1, 0.11, 0.12, 50.0], ["one"], [0.0], list(map(float, range(30)))])
@pytest.mark.parametrize("series", [[""], ["$a_", NASTY, "c", "d", "e", "f", "g", "h"]])
def test_group_texts_stay_inside(xs, series):
    points = [point(x, 2 + i % 2, name, seed=i) for name in series for i, x in enumerate(xs)]
    figure = runs.plot_groups(points, metric="area", x_label=NASTY, series_label=NASTY)
    assert cut_off(figure) == []
    labels = [box for t, box in drawn_texts(figure) if t in figure.axes[0].get_xticklabels() and t.get_rotation() == 0]
    for a, b in zip(labels, labels[1:]): assert a.x1 < b.x0 + 1
    lowest = min(box.y0 for t, box in drawn_texts(figure) if t in figure.axes[0].get_xticklabels())
    assert all(box.y1 < lowest + 4 for t, box in drawn_texts(figure) if t in figure.axes[0].texts)  # the table stands below the ticks
    ends = [line.get_transform().transform([[x, 0]])[0, 0] for line in figure.axes[0].lines if line.get_linestyle() != "None" for x in line.get_xdata()]
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
    paths = [path(name, panel, seed=i) for i, (name, panel) in enumerate((name, panel) for name in ("a", "b") for panel in ("-5", "0", "5") for _ in range(2))]
    figure = runs.plot_paths(paths, x_label="area kept, share of pixels", y_label="distance", panels=["5", "0", "-5"], title="T", theme=theme)
    assert [ax.get_title() for ax in figure.axes] == ["5", "0", "-5"] and {ax.get_xlim() for ax in figure.axes} == {(-0.02, 1.02)}
    assert len({ax.get_ylim() for ax in figure.axes}) == 1 and len(figure.legends) == 1 and not any(ax.get_legend() for ax in figure.axes)
    assert legend(figure) == ["a (6 runs)", "b (6 runs)", "start", "end"]
    for ax in figure.axes:
        assert len(ax.lines) == 4 * 3 and [line.get_color() for line in ax.lines[::3]] == [runs.looks(["a", "b"], theme)[name].colour for name in "aabb"]
        assert [line.get_markerfacecolor() == theme.ground for line in ax.lines[1::3]] == [True] * 4  # open at the start
        assert np.allclose([line.get_xdata()[0] for line in ax.lines[1::3]], 0.9) and np.allclose([line.get_xdata()[0] for line in ax.lines[2::3]], 0.2)
    assert cut_off(figure) == []


def test_a_path_that_went_bad_ends_in_a_cross_and_one_without_points_is_counted():
    bad = path("bad")
    bad.y[10:] = np.nan
    figure = runs.plot_paths([bad, path("never", x=np.full(20, np.inf)), path("odd", panel="q")], x_label="x", y_label="y", panels=["", "q", "empty"])
    line, _, end = figure.axes[0].lines
    assert len(line.get_xdata()) == 10 and end.get_marker() == "x" and end.get_xdata()[0] == bad.x[9]
    assert "ended not finite" in legend(figure) and "1 of 3 runs without a finite point" in figure.get_supxlabel()
    assert [t.get_text() for t in figure.axes[2].texts] == ["nothing to draw"] and cut_off(figure) == []


@pytest.mark.parametrize("count", [1, 2, 4, 5, 9])
def test_panels_of_any_number_stay_inside(count):
    figure = runs.plot_paths([path("$n_" * 30, NASTY + str(i), group=f"g{i % 3}") for i in range(count)], x_label="x", y_label="y", title="a $title_")
    assert cut_off(figure) == [] and sum(ax.get_visible() for ax in figure.axes) == count
    for column in range(min(count, 4)):  # the lowest panel of every column has its numbers
        assert any(t.get_visible() and t.get_text() for t in figure.axes[max(i for i in range(count) if i % 4 == column)].get_xticklabels())
    assert legend(figure)[: min(count, 3)] == [f"g{i} ({len(range(i, count, 3))} run{'s' * (len(range(i, count, 3)) > 1)})" for i in range(min(count, 3))]


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
    (lambda: card.plot_views({}), "got none"),
    (lambda: card.plot_views({"code": np.zeros((3, 4)), "more": np.zeros((2, 5, 4, 4))}), "stack of pictures"),
    (lambda: card.plot_views({"keep": np.zeros((2, 4, 4))}, columns=["a"]), "got 1 names for 2 examples"),
    (lambda: data(state="over"), "got 'over'"),
    (lambda: data(checks=(("a", "fine", ""),)), "got fine"),
    (lambda: data(curves={"a": np.zeros(3)}), "'a': 3"),
    (lambda: data(picture=b"GIF89a"), "must be a PNG"),
])
def test_bad_input_is_refused_in_words(unchecked, call, words):
    with pytest.raises(ValueError, match=words): call()


# views ------------------------------------------------------------------------------------------------------------------

def views(n=3, channels=1, size=12):
    logits = 3 * draw(n, size, size)
    image = np.random.default_rng(1).uniform(size=(n, channels, size, size))
    return {"image": image, "keep": 1 / (1 + np.exp(-logits)), "logits": logits, "fill": np.full_like(image, 0.25)}


def pictures(figure): return [ax for ax in figure.axes if not ax.axison]


@pytest.mark.parametrize("channels", [1, 3])
def test_an_explanation_shows_what_the_encoder_saw(channels):
    made = views(channels=channels)
    shown = pictures(card.plot_views(made))
    seen = made["keep"][:, None] * made["image"] + (1 - made["keep"][:, None]) * 0.25
    assert len(shown) == 4 * 3 and np.allclose(shown[6].images[0].get_array()[..., 0], seen[0, 0], atol=1e-6)
    without = {name: view for name, view in made.items() if name != "logits"}
    assert len(pictures(card.plot_views(without))) == 3 * 3
    as_bytes = {**made, "image": (255 * made["image"]).astype(np.uint8), "fill": np.full_like(made["image"], 64, dtype=np.uint8)}
    assert np.allclose(pictures(card.plot_views(as_bytes))[6].images[0].get_array()[..., 0], seen[0, 0], atol=0.01)


@pytest.mark.parametrize("change", [{"keep": np.zeros((3, 6, 6))}, {"fill": np.zeros((3, 12))}, {"image": np.zeros((3, 2, 12, 12))}])
def test_views_that_do_not_belong_together_become_a_tile(change):
    figure = card.plot_views({**views(), **change})
    lost = [name for name, view in change.items() if page.tile_row(name, view) is None]
    assert len(pictures(figure)) == 3 * (4 - len(lost)) and cut_off(figure) == []
    assert not any("Not drawn" in t.get_text() for t in figure.texts), "what is no picture is not missed"


def test_a_tile_says_what_it_left_out_and_how_many():
    figure = card.plot_views({"heat": draw(20, 8, 8), "code": draw(20, 16), "a $very_ long name of a view": np.ones((20, 3, 8, 8))}, most=5)
    words = " ".join(t.get_text() for t in figure.texts)
    assert "5 of 20 examples." in words and "code" not in words and len(pictures(figure)) == 10 and cut_off(figure) == []
    low, high = pictures(figure)[0].images[0].get_clim()
    assert low == -high and np.isclose(high, abs(draw(20, 8, 8)[:5]).max())


@pytest.mark.parametrize(("view", "ends"), [(np.array([0.2, 0.9]), (0, 1)), (np.array([0.0, 5.0]), (0, 5)), (np.array([-1.0, 0.5]), (-1, 1)), (np.array([np.nan, 3.0]), (0, 3)),
                                            (np.array([True, False]), (0, 1)), (np.array([0, 255], dtype=np.uint8), (0, 1)), (np.array([0, 7]), (0, 7))])
def test_a_map_has_the_scale_of_its_values(view, ends):
    row = page.tile_row("map", view.reshape(1, 1, 2))
    assert row.ends == ends and row.colours is not None and np.isfinite(row.pictures).all()


@pytest.mark.parametrize("view", [np.array(["a"]), np.zeros((1, 2, 2), dtype=complex), np.zeros((2, 4, 3, 3)), np.zeros(4), np.array(3.0), np.zeros((0, 3, 3))])
def test_what_is_no_stack_of_pictures_has_no_row(view): assert page.tile_row("view", view) is None


# text on a page ---------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("dpi", [100, 150, 200])
@pytest.mark.parametrize("text", [NASTY, "illi lil " * 40, "W" * 300, "word " * 90, "x_1234567890 " * 20])
def test_fitted_lines_are_drawn_as_wide_as_they_may_be_at_most(text, dpi):
    for size, bold in ((7, False), (8.5, False), (15, True)):
        figure = style.new_figure(4, 3, layout=None)
        for line in page.fit_text(text, 2.5, size=size, lines=5, bold=bold): page.write(figure, 0.1, 1, line, style.LIGHT, size=size, bold=bold)
        assert max(box.width for _, box in drawn_texts(figure, dpi)) <= 2.5 * dpi + 1


def test_fitted_lines_lose_nothing_and_end_by_an_ellipsis_when_cut():
    text = " ".join(f"word{i}" for i in range(60))
    assert " ".join(page.fit_text(text, 2.0, lines=99)) == text
    cut = page.fit_text(text, 2.0, lines=3)
    assert len(cut) == 3 and cut[-1].endswith("…") and text.startswith(" ".join(cut)[:-1])
    assert page.fit_text("", 2.0) == page.fit_text(" \n ", 2.0) == () and page.fit_text("ab", 0.0) == ("a…",)


def test_text_that_the_font_lacks_is_drawn_without_a_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        style.figure_png(card.plot_card(data(title="世界 \x00\u200b\U0001faa9", notes=("世" * 900,), curves={"世 $a_": STEPS * 1.0}, steps_axis=STEPS, units={"世 $a_": "世"})))


# card -------------------------------------------------------------------------------------------------------------------

def change(i=0): return card.Change(label=f"setting {i}", old="1", new=str(i))


def data(**other): return card.CardData(**{"id": "0042", "title": "NEM on Fashion-MNIST, SimCLR", "state": "done", **other})


def usual(**other):
    curves = {"distance": 0.01 * STEPS, "area": np.exp(-STEPS / 90), "mask_kl": 9 * np.exp(-STEPS / 90), "loss": 1 + 0.1 * draw(20)}
    units = {"distance": "(1-cos)/2", "area": "share of pixels", "mask_kl": "nats"}
    return data(**{"previous": "0041", "when": "2026-03-02 14:05", "steps": 1500, "seconds": 151.0, "device": "cpu",
                   "changes": (change(1), change(2)), "defaults_changed": (change(3),),
                   "best": "Best: area .3", "steps_axis": STEPS, "curves": curves, "units": units, "events": ((50, "kl scale 0 → 1"), (55, "stop")),
                   "checks": (("line", "ok", "fine"), ("dimming", "bad", "it dims"), ("border", "warn", "the ring")), "notes": ("A note.",),
                   "picture": views(), "footer": "commit abc", **other})


def words(figure): return [t.get_text() for t in figure.texts]


@THEMES
def test_a_card_tells_what_the_run_was(theme):
    figure = card.plot_card(usual(), theme=theme)
    told = words(figure)
    assert figure.get_size_inches().tolist() == [11.0, 7.5]
    for text in ("NEM on Fashion-MNIST, SimCLR", "0042", "done", "Best: area .3", "Changed since 0041", "setting 1", "1 →", "A note.",
                  "commit abc", "1 bad, 1 warn, 1 ok", "training step"):
        assert text in told, text
    assert "2026-03-02 14:05 · 1,500 steps · 2 min 31 s · cpu · seed 0" in told and "1: step 50, kl scale 0 → 1; 2: step 55, stop" in told
    assert [text for text in told if text in card.MARKS] == ["bad", "warn", "ok"] and [text for text in told if text in ("✖", "▲", "●")] == ["✖", "▲", "●"]
    axes = [ax for ax in figure.axes if ax.get_legend()]
    assert len(axes) == 3 and len(figure.axes) == 4  # one for each unit, none for the sum of all, and the picture
    for ax, name in zip(axes, usual().curves):
        assert np.allclose(ax.lines[0].get_ydata(), usual().curves[name]) and ax.lines[0].get_color() == theme.colour(name)
        assert [t.get_text() for t in ax.texts] == ["1", "2"] and [line.get_xdata() for line in ax.lines if line.get_linestyle() == "--"] == [[50, 50], [55, 55]]
    assert cut_off(figure) == [] and touching(figure) == []


CROWDED = dict(
    id="no-space-" * 30, title=NASTY, device=NASTY, when=NASTY, previous="0" * 99, best=NASTY, error=NASTY, footer=NASTY,
    words=(NASTY, "b"), steps=10**12, seconds=1e7, seed=2**63,
    changes=tuple(card.Change(label="long label " * (i % 6), old=NASTY[: 9 * i], new="$new_" * i) for i in range(12)),
    defaults_changed=tuple(map(change, range(40))),
    checks=tuple((NASTY[: 9 * i], level, NASTY) for i in range(6) for level in card.MARKS), notes=(NASTY[:500], "x" * 500, NASTY),
    events=tuple((i * 9, NASTY) for i in range(20)), curves={f"$name_{i} {NASTY}": 10.0**i * STEPS for i in range(14)},
    units={f"$name_{i} {NASTY}": f"$u_{i % 7} {NASTY}" for i in range(14)},
)
CASES = {
    "usual": {}, "crowded": CROWDED, "twelve changes": dict(changes=tuple(map(change, range(12)))), "one long note": dict(notes=("A sentence of a note. " * 23,)),
    "nothing": dict(changes=(), defaults_changed=None, best="", checks=(), notes=(), curves={}, events=(), picture=None, footer=""), "no curves": dict(curves={}, events=()),
    "no picture": dict(picture=None), "failed": dict(state="failed", error="RuntimeError: " + NASTY),
    "lost": dict(state="lost", picture={"code": np.zeros(3)}),
    "one unit": dict(units=dict.fromkeys(("distance", "area", "mask_kl", "loss"), "nats")), "all nan": dict(curves={"area": np.full(20, np.nan), "loss": np.full(20, np.inf)}),
    "one step": dict(steps_axis=np.array([3]), curves={"area": np.array([0.5])}), "png": dict(picture=style.figure_png(style.new_figure(1, 6))),
    "tile": dict(picture={"heat": draw(9, 6, 30), "flag": draw(2, 40, 4) > 0}),
}


@THEMES
@pytest.mark.parametrize("name", CASES)
def test_nothing_on_a_card_is_cut_off_or_overlaps(name, theme):
    figure = card.plot_card(usual(**CASES[name]), theme=theme)
    assert cut_off(figure) == [] and touching(figure) == []
    assert not any(t.get_parse_math() for t in figure.texts)
    boxes = [ax.get_position() for ax in figure.axes]
    for i, a in enumerate(boxes):
        assert 0 <= a.x0 < a.x1 <= 1 and 0 <= a.y0 < a.y1 <= 1
        for b in boxes[:i]: assert a.x0 >= b.x1 or b.x0 >= a.x1 or a.y0 >= b.y1 or b.y0 >= a.y1
    texts = {t.get_text(): box for t, box in drawn_texts(figure)}
    left = [box for t, box in drawn_texts(figure) if t in figure.texts and box.x0 < 400 and 60 < box.y0 and box.y1 < 640]
    assert left and max(box.x1 for box in left) <= 100 * (0.3 + 4.25) + 1  # the left column ends where it should
    assert texts[CASES[name].get("state", "done")].y0 > 690


@pytest.mark.parametrize("dpi", [100, 150, 200])
def test_a_crowded_card_fits_at_any_resolution(dpi):
    figure = card.plot_card(usual(**CROWDED))
    assert cut_off(figure, dpi) == [] and touching(figure, dpi) == []


@pytest.mark.parametrize(("name", "sentence"), [("nothing", "Nothing: the settings are those of 0041."), ("nothing", "No checks were made."), ("nothing", "None."),
                                                ("no curves", "No curves were recorded."), ("no picture", "No picture was saved.")])
def test_an_empty_section_says_so(name, sentence): assert sentence in words(card.plot_card(usual(**CASES[name])))


def test_defaults_are_told_only_when_known():
    sentence, head = "All settings are at their defaults.", "Other than the defaults"
    assert sentence in words(card.plot_card(data(defaults_changed=()))) and head not in words(card.plot_card(data(defaults_changed=None)))
    assert "The first run: nothing to compare with." in words(card.plot_card(data()))


def test_text_is_shown_as_it_was_written():
    told = words(card.plot_card(data(title="<b>$x_$</b> & 5 %", notes=("$\\frac{1}{2}$ <script>",))))
    assert "<b>$x_$</b> & 5 %" in told and "$\\frac{1}{2}$ <script>" in told


def test_an_error_stands_first_and_twelve_changes_all_have_a_row():
    told = words(card.plot_card(usual(state="failed", error="ValueError: no", changes=tuple(map(change, range(12))))))
    assert told.index("Error") < told.index("ValueError: no") < told.index("Changed since 0041")
    assert {f"setting {i}" for i in range(12)} <= set(told)


def test_the_column_is_as_generous_as_it_may_be():
    wide = card.fitted_rows(usual(), 4.25, 6.0)
    assert wide == card.column_rows(usual(), 4.25, card.ALLOWANCES[0])
    full = usual(**CROWDED)
    assert sum(row.height for row in card.fitted_rows(full, 4.25, 5.8)) <= 5.8
    kept = card.fitted_rows(full, 4.25, 5.8)
    assert sum(any(piece.text == "bad" for piece in row.pieces) for row in kept) >= card.ALLOWANCES[-1].checks  # what is wrong is never what is left out first


def test_terms_of_one_colour_differ_in_their_line():
    same = [name for name in (f"name {i}" for i in range(60)) if style.term_colour(name) == style.term_colour("name 0")][:3]
    figure = card.plot_card(usual(curves={name: STEPS * (i + 1.0) for i, name in enumerate(same)}, units={}, events=()))
    lines = figure.axes[0].lines[::2]
    assert len(lines) == 3 and len({line.get_color() for line in lines}) == 1 and len({line._unscaled_dash_pattern for line in lines} | {None}) >= 3


def test_curves_of_very_different_size_have_an_axis_each():
    curves = {"loss": 250 + 0 * STEPS, "nll": 240 + STEPS / 1500, "kl": 9 + STEPS / 1500, "pull": 0 * STEPS, "area": 0.3 + 0 * STEPS}
    figure = card.plot_card(usual(curves=curves, units=dict.fromkeys(("loss", "nll", "kl", "pull"), "nats"), events=()))
    assert [[t.get_text() for t in ax.get_legend().get_texts()] for ax in figure.axes if ax.get_legend()] == [["nll"], ["KL", "pull"], ["area"]]
    near = {"nll": 240 + 0 * STEPS, "kl": 30 + 0 * STEPS}
    assert card.axes_of(usual(curves=near, units={})) == [("", ["nll", "kl"])] and cut_off(figure) == [] and touching(figure) == []


def test_curves_that_are_not_drawn_are_counted():
    figure = card.plot_card(usual(curves={f"a long name of a curve {i}": STEPS * 1.0 for i in range(30)}, units={f"a long name of a curve {i}": "nats" for i in range(30)}))
    shown = [t.get_text() for t in figure.axes[0].get_legend().get_texts()]
    drawn = sum(len(line.get_xdata()) == 20 for line in figure.axes[0].lines)
    assert len(shown) == drawn < 30 and shown[-1].endswith(f", {30 - len(shown)} more")
    assert shown[-1].split(", ")[0].endswith("…") or shown[-1].startswith("a long name of a curve "), "what is cut says so"
    units = card.plot_card(usual(curves={str(i): STEPS * 1.0 for i in range(9)}, units={str(i): f"unit {i}" for i in range(9)}, events=()))
    assert "3 more axes are not drawn" in words(units)


def test_a_picture_keeps_its_form():
    wide = style.figure_png(style.new_figure(4, 1))
    ax = card.plot_card(data(picture=wide)).axes[0]
    box = ax.get_position()
    assert np.isclose(box.width * 11 / (box.height * 7.5), 4, rtol=1e-6) and ax.images[0].get_array().shape == (100, 400, 4)


@pytest.mark.parametrize(("seconds", "text"), [(0.0, "0.0 s"), (59.94, "59.9 s"), (60.0, "1 min 00 s"), (3599.4, "59 min 59 s"), (3600.0, "1 h 00 min"), (90061.0, "25 h 01 min")])
def test_times_are_written_as_people_say_them(seconds, text): assert card.clock(seconds) == text


def test_a_card_is_the_same_picture_twice():
    first, second = (style.figure_png(card.plot_card(usual())) for _ in range(2))
    assert first == second and matplotlib.image.imread(io.BytesIO(first), format="png").shape[:2] == (750, 1100)
