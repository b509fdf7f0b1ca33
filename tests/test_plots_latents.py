"Stills of latents: what is drawn, its limits and its words."

import numpy as np
import pytest
from matplotlib.figure import Figure

from latentlab.plots import latents
from latentlab.plots.style import figure_png, new_figure

RNG = np.random.default_rng(0)


def plane(layers: int = 2, **more) -> dict[str, np.ndarray]:
    "Views of a made-up model of points."
    codes = {f"{kind}{i + 1}": RNG.normal(size=(40, 2)) for i in range(layers) for kind in ("z", "prior")}
    return dict(field=RNG.normal(size=(12, 16)), extent=np.array([-2.0, 2.0, -1.0, 2.0]), points=RNG.normal(size=(40, 2)),
                labels=np.arange(40) % 2, kl=np.linspace(2, 0,
            layers), active=np.full(layers, 2),
                width=np.full(layers, 2)) | codes | more


def titles(figure: Figure) -> list[str]: return [title for ax in figure.axes if (title := ax.get_title(loc="left"))]


def test_row_zero_of_a_field_is_the_largest_y():
    ax = new_figure(3, 3).subplots()
    field = np.zeros((3, 4))
    field[0] = 9.0
    latents.draw_plane(ax, field, (0, 3, 0, 2), span=20)
    left, right, low, high = ax.images[0].get_extent()
    # the numbers stand on the nodes 0..3 and 0..2
    assert ax.images[0].origin == "upper" and (left, right, low, high) == (-0.5, 3.5, -0.5, 2.5)
    assert ax.images[0].get_array()[0, 0] == 9 and ax.get_ylim() == (0, 2)


def test_contours_run_where_the_field_has_their_level():
    ax = new_figure(3, 3).subplots()
    axis = np.linspace(-3, 3, 61)
    latents.draw_plane(ax, -(axis[None] ** 2 + axis[:, None] ** 2), (-3, 3, -3, 3), levels=(-4.0,))
    (lines,) = (c for c in ax.collections if len(c.get_paths()))
    radius = np.hypot(*lines.get_paths()[0].vertices.T)
    assert radius.min() > 1.97 and radius.max() < 2.03


def test_colours_reach_as_far_as_was_said_and_no_further():
    for span in [1.0, 14.0, 1000.0]:
        ax = new_figure(3, 3).subplots()
        latents.draw_plane(ax, np.linspace(-100, 2, 100).reshape(10, 10), (0, 1, 0, 1), span=span)
        assert ax.images[0].norm.vmax == 2 and np.isclose(ax.images[0].norm.vmin, max(-100, 2 - span))


def test_the_difference_is_open_where_neither_has_density():
    model, oracle = np.array([[0.0, -50.0, -50.0, -3.0]]), np.array([[-1.0, -60.0, 0.0, -40.0]])
    found = latents.difference(model, oracle)[0]
    assert np.isnan(found[1]) and found[[0, 2, 3]].tolist() == [1.0, -50.0, 37.0]


@pytest.mark.parametrize("layers", [1, 2, 5])
def test_any_number_of_layers(layers):
    figure = latents.plot_latents(plane(layers), title="T")
    assert titles(figure)[: layers + 1] == [*(f"z{i + 1}" for i in range(layers - 1)), f"z{layers}, top", "KL per layer, nats"]
    assert (figure_png(figure, dpi=40)[:4] == b"\x89PNG"
            and all(part.get_facecolor()[:3] == figure.get_facecolor()[:3] for part in figure.subfigs))


def test_points_of_the_codes_are_all_drawn_in_their_colours():
    ax = new_figure(3, 3).subplots()
    latents.draw_codes(ax, RNG.normal(size=(30, 2)), labels=np.arange(30) % 3)
    (dots,) = ax.collections
    assert len(dots.get_offsets()) == 30 and len(np.unique(dots.get_facecolors(), axis=0)) == 3
    assert ax.get_xlim()[0] < -2.45 and ax.get_xlim()[1] > 2.45  # the 95 % circle is inside


def test_the_area_is_the_share_of_ordered_pairs():
    for seed in range(5):
        rng = np.random.default_rng(seed)
        inside, outside = rng.integers(0, 6, 23).astype(float), rng.integers(1, 8, 17).astype(float)  # many ties
        curve = latents.roc_points(inside, outside)
        pairs = [(b > a) + 0.5 * (b == a) for a in inside for b in outside]
        assert np.isclose(np.trapezoid(curve[:, 1], curve[:, 0]), np.mean(pairs))
        assert curve[0].tolist() == [0, 0] and curve[-1].tolist() == [1, 1] and (np.diff(curve, axis=0) >= 0).all()


def test_images_with_their_scores():
    views = {key: value for key, value in plane(3).items() if key not in ("field", "extent", "points")}
    grey = RNG.uniform(size=(5, 8, 8))
    views |= {f"recon{k}": grey for k in range(3)} | dict(generated=grey) | {f"{side}_{score}": RNG.normal(size=50)
                                                                             for score in ("elbo", "llr1", "llr2")
                                                                             for side in ("in", "out")}
    figure = latents.plot_latents(views, images=grey, names=("A", "B"))
    assert [t for t in titles(figure) if t.startswith("AUROC")] and len([t for t in titles(figure) if t.startswith("AUROC")]) == 3
    assert [ax.get_xlabel() for ax in figure.axes
            if ax.get_xlabel().endswith("more out")] == [f"{word}, nats, higher = more out" for word in ("-ELBO", "LLR>1", "LLR>2")]
