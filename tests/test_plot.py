"""Pictures are judged by the data of their artists; closed forms say what these must be."""

import errno
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from matplotlib.collections import PolyQuadMesh
from matplotlib.contour import ContourSet
from matplotlib.figure import Figure
from matplotlib.tri import TriContourSet
from mpl_toolkits.mplot3d.art3d import Poly3DCollection

from landscape import plot
from landscape.errors import UserError
from landscape.results import Quantity, Status, Surface


def quantity(grid, point, *, log=False, basis="extrapolated", stderr=None):
    return Quantity(
        grid=grid,
        point=point,
        point_stderr=np.full(point.shape, np.nan) if stderr is None else stderr,
        log=log,
        error_of_range=0.02,
        error_of_log_range=0.004 if log else np.nan,
        error_relative=0.12,
        error_basis=basis,
        stderr_basis="none" if stderr is None else "examples",
    )


def chebyshev(ends, count):
    low, high = ends
    if count == 1:
        return np.array([low])
    steps = np.cos(np.pi * np.arange(count) / (count - 1))
    return (low + high) / 2 - (high - low) / 2 * steps


def surface(f, *, alpha=(-1, 1), beta=(-1, 1), shape=(21, 31), points=(9, 9), log=False, **fields):
    """The record of f(alpha, beta), as a Chebyshev surface of it would be stored."""
    a, b = np.linspace(*alpha, shape[0]), np.linspace(*beta, shape[1])
    x, y = np.meshgrid(chebyshev(alpha, points[0]), chebyshev(beta, points[1]), indexing="ij")
    grid = f(a[:, None], b[None]) + np.zeros(shape)
    point = (f(x, y) + np.zeros(x.shape)).ravel()
    values = {
        "alpha": a,
        "beta": b,
        "status": np.where(np.isfinite(grid), Status.INTERPOLATED, Status.NON_FINITE).astype("i1"),
        "point_alpha": x.ravel(),
        "point_beta": y.ravel(),
        "quantities": {"loss": quantity(grid, point, log=log)},
        "method": "chebyshev",
        "tolerance": 0.01,
        "converged": True,
        "complete": True,
        "title": "net.pt, test split",
        "alpha_label": "random direction 1",
        "beta_label": "random direction 2",
        "marker_beta": np.empty(0),
    }
    return Surface(**{**values, **fields})


def line(f, *, alpha=(-0.5, 1.5), log=False, stderr=0.1, accuracy=None, **fields):
    a, x = np.linspace(*alpha, 41), chebyshev(alpha, 9)
    status = np.where(np.isfinite(f(a)), Status.INTERPOLATED, Status.NON_FINITE).astype("i1")
    quantities = {"loss": quantity(f(a), f(x), log=log, stderr=stderr * np.abs(f(x)))}
    if accuracy:
        quantities["accuracy"] = quantity(accuracy(a), accuracy(x))
    return replace(
        surface(lambda a, b: a + b),
        alpha=a,
        beta=None,
        status=status,
        point_alpha=x,
        point_beta=None,
        quantities=quantities,
        marker_beta=None,
        **fields,
    )


def basin(a, b):
    """A trained network as they look: 1e-3 at the bottom, 20 at the edge."""
    return 1e-3 * np.exp(5.5 * a**2 + 3 * b**2 + a * b)


def interrupted(record, count):
    """The record as it was left after its first points, in random order."""
    keep = np.random.default_rng(0).permutation(record.point_alpha.size)[:count]
    loss = record.loss
    grid = np.full_like(loss.grid, np.nan)
    return replace(
        record,
        complete=False,
        converged=False,
        status=np.zeros_like(record.status),
        point_alpha=record.point_alpha[keep],
        point_beta=record.point_beta[keep],
        quantities={"loss": quantity(grid, loss.point[keep], log=loss.log, basis="unknown")},
    )


def texts(figure):
    return [text.get_text() for text in figure.findobj(matplotlib.text.Text) if text.get_text()]


def footer(figure):
    return figure.get_supxlabel().replace("\n", " ")


def contours(axes, *, filled):
    return next(c for c in axes.collections if isinstance(c, ContourSet) and c.filled == filled)


def ends(figure):
    return tuple(contours(figure.axes[0], filled=True).levels[[0, -1]])


def relief(figure):
    """The corners of the faces of a surface in 3D, (faces * corners, 3)."""
    faces = next(c for c in figure.axes[0].collections if isinstance(c, Poly3DCollection))
    if hasattr(faces, "_faces"):
        return np.asarray(faces._faces).reshape(-1, 3)
    return faces._vec[:3].T  # matplotlib before 3.10


def labelled(axes, label):
    return next(artist for artist in axes.get_children() if artist.get_label() == label)


def test_alpha_runs_along_x_and_beta_along_y():
    record = surface(lambda a, b: 3 * a + b, beta=(-0.7, 0.9), shape=(5, 9))
    axes = plot.figure(record).axes[0]
    lines = contours(axes, filled=False)
    assert len(lines.levels) > 5
    for level, path in zip(lines.levels, lines.get_paths(), strict=True):
        np.testing.assert_allclose(3 * path.vertices[:, 0] + path.vertices[:, 1], level, atol=1e-9)
    assert axes.get_xlim() == (-1, 1)
    assert axes.get_ylim() == (-0.7, 0.9)


def test_the_relief_has_alpha_along_x_and_the_loss_as_its_height():
    record = surface(lambda a, b: 3 * a + b, beta=(-0.7, 0.9), shape=(5, 9))
    figure = plot.figure(record, style="3d")
    x, y, z = relief(figure).T
    assert x.size == 4 * 8 * 4
    np.testing.assert_allclose(z, 3 * x + y, atol=1e-9)
    assert figure.axes[0].get_zlabel() == "loss (mean per example)"


def test_a_positive_loss_over_decades_has_one_two_five_levels():
    axes = plot.figure(surface(basin, log=True)).axes[0]
    levels = contours(axes, filled=True).levels
    assert {"0.01", "1"} <= {number.get_text() for number in axes.texts}
    round_values = np.outer(10.0 ** np.arange(-5, 3), [1, 2, 5]).ravel()
    assert all(np.isclose(round_values, value).any() for value in 10**levels)
    assert levels[0] <= -3
    assert levels[-1] >= np.log10(basin(1, 1))


def test_many_decades_have_levels_at_powers_of_ten():
    record = surface(lambda a, b: 10 ** (20 * (a**2 + b**2) - 12), log=True)
    levels = contours(plot.figure(record).axes[0], filled=True).levels
    np.testing.assert_allclose(levels, np.round(levels), atol=1e-12)
    assert {"$10^{-12}$", "$10^{28}$"} <= set(texts(plot.figure(record)))


def test_a_linear_loss_has_evenly_spaced_round_levels():
    levels = contours(plot.figure(surface(lambda a, b: 2 + a + b)).axes[0], filled=True).levels
    steps = np.diff(levels)
    np.testing.assert_allclose(steps, steps[0])
    assert (levels[0], levels[-1]) == (0, 4)


@pytest.mark.parametrize("count", [3, 6, 30])
def test_levels_asks_for_about_so_many(count):
    for log in (True, False):
        figure = plot.figure(surface(basin, log=log), levels=count)
        drawn = contours(figure.axes[0], filled=True).levels.size
        assert count / 2.5 <= drawn <= 1.5 * count + 2


def test_log_can_be_chosen_against_the_record():
    assert ends(plot.figure(surface(basin, log=True), log=False))[0] == 0
    assert ends(plot.figure(surface(basin, log=False), log=True))[0] <= -3


def test_the_logarithm_of_a_negative_loss_is_refused_in_words():
    record = surface(lambda a, b: a + b)
    with pytest.raises(UserError, match=r"logarithm of 'loss'.*not positive.*smallest is -2"):
        plot.figure(record, log=True)


def test_a_loss_that_turns_out_not_positive_is_drawn_linear():
    assert ends(plot.figure(surface(lambda a, b: a + b, log=True))) == (-2, 2)


def test_limits_end_the_colours_and_say_what_lies_beyond():
    figure = plot.figure(surface(basin, log=True), limits=(0.01, 1))
    filled = contours(figure.axes[0], filled=True)
    assert filled.extend == "both"
    np.testing.assert_allclose(ends(figure), (-2, 0), atol=1e-12)
    figure = plot.figure(surface(basin, log=True), limits=(None, 1e3))
    assert contours(figure.axes[0], filled=True).extend == "neither"
    np.testing.assert_allclose(ends(figure)[1], 3)


@pytest.mark.parametrize("limits", [(1, 1), (2, 1), (np.nan, 1), (0, np.inf)])
def test_limits_that_do_not_rise_are_refused(limits):
    with pytest.raises(UserError, match="have to be finite and to rise"):
        plot.figure(surface(basin), limits=limits)


@pytest.mark.parametrize("sign", [1, -1])
def test_what_lies_beyond_the_limits_takes_no_line_from_what_is_drawn(sign):
    f = surface(lambda a, b: sign * (0.01 + a**2 + b**2 + np.where(a > 0.9, 1e4, 0)))
    limits = (None, 0.5) if sign == 1 else (-0.5, None)
    axes = plot.figure(f, log=False, limits=limits).axes[0]
    filled, lines = contours(axes, filled=True), contours(axes, filled=False)
    end, inner = (0, 1) if sign == 1 else (-1, -2)
    np.testing.assert_allclose(lines.levels[end], filled.levels[inner])


def test_unknown_words_are_refused_with_the_words_that_exist():
    with pytest.raises(UserError, match="no quantity 'f1' in this result: use loss"):
        plot.figure(surface(basin), quantity="f1")
    with pytest.raises(UserError, match="no style 'pie': use 'contour' or '3d'"):
        plot.figure(surface(basin), style="pie")
    with pytest.raises(UserError, match="0 contour levels cannot be drawn"):
        plot.figure(surface(basin), levels=0)
    with pytest.raises(UserError, match="'3d' needs a surface and this result is a line"):
        plot.figure(line(np.cos), style="3d")


def test_labels_name_the_axes_the_quantity_and_the_record():
    found = texts(plot.figure(surface(basin, log=True)))
    assert r"random direction 1, $\alpha$" in found
    assert r"random direction 2, $\beta$" in found
    assert "loss (mean per example)" in found
    assert "net.pt, test split" in found


def test_a_metric_is_drawn_under_its_own_name():
    record = surface(basin, log=True)
    accuracy = quantity(1 / (1 + record.loss.grid), 1 / (1 + record.loss.point))
    record = replace(record, quantities={"loss": record.loss, "accuracy": accuracy})
    figure = plot.figure(record, quantity="accuracy")
    assert "accuracy" in texts(figure)
    assert "loss (mean per example)" not in texts(figure)
    assert ends(figure)[1] == 1


@pytest.mark.parametrize(
    ("basis", "log", "words"),
    [
        ("extrapolated", True, "0.4 % of the log range, 12 % of the local value (extrapolated)"),
        ("measured", False, "2 % of the range, 12 % of the local value (measured)"),
        ("unknown", True, "no error estimate"),
        ("none", True, "81 evaluations, every cell evaluated"),
    ],
)
def test_the_footer_says_how_good_the_picture_is(basis, log, words):
    record = surface(basin, log=log)
    loss = quantity(record.loss.grid, record.loss.point, log=log, basis=basis)
    said = footer(plot.figure(replace(record, quantities={"loss": loss})))
    assert said.endswith(words)
    assert ("81 evaluations for 651 cells" in said) == (basis != "none")


def test_the_footer_says_when_the_tolerance_was_missed():
    said = footer(plot.figure(surface(basin, log=True, converged=False)))
    assert said.endswith("above the tolerance of 1 %")


def test_cells_that_are_not_finite_are_hatched_and_explained():
    record = surface(lambda a, b: np.where((a > 0.85) & (b < -0.9), np.nan, 2 + a + b))
    figure = plot.figure(record)
    hatched = next(c for c in figure.axes[0].collections if isinstance(c, PolyQuadMesh))
    corners = np.concatenate([path.vertices for path in hatched.get_paths()])
    np.testing.assert_allclose(corners.min(axis=0), (0.8, -1))
    np.testing.assert_allclose(corners.max(axis=0), (1, -0.8 - 1 / 15))
    assert hatched.get_hatch()
    assert "not finite" in texts(figure)
    assert "not finite" not in texts(plot.figure(surface(basin)))


def test_a_value_where_the_loss_is_not_finite_is_not_drawn():
    record = surface(lambda a, b: 2 + a + b, shape=(5, 5))
    status = record.status.copy()
    status[4, 0] = Status.NON_FINITE
    axes = plot.figure(replace(record, status=status)).axes[0]
    hatched = next(c for c in axes.collections if isinstance(c, PolyQuadMesh))
    assert hatched.get_paths()[0].vertices.mean(axis=0)[0] > 0.5
    paths = contours(axes, filled=True).get_paths()
    assert not any((path.vertices == (1, -1)).all(axis=1).any() for path in paths)


def test_the_relief_leaves_out_faces_that_touch_a_cell_not_finite():
    record = surface(lambda a, b: np.where((a == 0) & (b == 0), np.nan, 2 + a + b), shape=(5, 5))
    assert len(relief(plot.figure(record, style="3d"))) == (16 - 4) * 4


@pytest.mark.parametrize("complete", [False, True])
def test_scattered_cells_are_triangulated_however_many_there_are(complete):
    # What an exact run that was stopped has: every fourth cell, and no level to interpolate.
    record = surface(lambda a, b: 2 + a + b)
    status = np.zeros_like(record.status)
    status[::4, ::4] = Status.EVALUATED
    cells = np.argwhere(status)
    grid = np.where(status > 0, record.loss.grid, np.nan)
    record = replace(
        record,
        complete=complete,
        status=status,
        point_alpha=record.alpha[cells[:, 0]],
        point_beta=record.beta[cells[:, 1]],
        quantities={"loss": quantity(grid, grid[status > 0], basis="unknown")},
    )
    figure = plot.figure(record)
    drawn = np.concatenate(
        [p.vertices for p in contours(figure.axes[0], filled=True).get_paths() if len(p.vertices)]
    )
    low, high = record.alpha[cells[:, 0]].min(), record.alpha[cells[:, 0]].max()
    assert (drawn[:, 0].min(), drawn[:, 0].max()) == pytest.approx((low, high))
    assert "not finite" not in texts(figure)


def test_a_partial_result_without_a_grid_is_triangulated_between_its_points():
    record = interrupted(surface(lambda a, b: 2 + 3 * a + b), 40)
    figure = plot.figure(record)
    lines = contours(figure.axes[0], filled=False)
    assert isinstance(lines, TriContourSet)
    for level, path in zip(lines.levels, lines.get_paths(), strict=True):
        np.testing.assert_allclose(2 + path.vertices @ [3, 1], level, atol=1e-9)
    assert footer(figure).startswith("partial: 0 of 651 cells, 40 evaluations")
    x, y, z = relief(plot.figure(record, style="3d")).T
    np.testing.assert_allclose(z, 2 + 3 * x + y, atol=1e-9)


@pytest.mark.parametrize("count", [0, 1, 2])
@pytest.mark.parametrize("style", ["contour", "3d"])
def test_a_partial_result_of_a_few_points_still_has_a_picture(count, style):
    figure = plot.figure(interrupted(surface(basin, log=True), count), style=style)
    assert f"{count} evaluations" in footer(figure)
    if style == "contour":
        points = figure.axes[0].collections[0].get_offsets()
        assert len(points) == count


def test_evaluations_are_dots_where_they_were_made():
    record = surface(basin, log=True, points=(5, 7))
    dots = [c.get_offsets() for c in plot.figure(record).axes[0].collections]
    dots = next(np.asarray(d) for d in dots if len(d) == 35)
    np.testing.assert_array_equal(dots, np.column_stack([record.point_alpha, record.point_beta]))


def test_the_centre_is_marked_unless_a_checkpoint_stands_there():
    record = surface(basin, log=True)
    assert labelled(plot.figure(record).axes[0], "centre").get_xydata().tolist() == [[0, 0]]
    zero = np.zeros(1)
    record = replace(record, marker_names=("best.pt",), marker_alpha=zero, marker_beta=zero)
    assert "centre" not in [x.get_label() for x in plot.figure(record).axes[0].get_children()]


def test_checkpoints_are_named_and_names_do_not_cover_each_other():
    names = ("epoch 10", "epoch 20", "best.pt", "final.pt", "corner")
    x, y = np.array([-0.6, -0.6, 0.05, 0.07, 1]), np.array([0.6, 0.6, 0.0, 0.0, 1])
    record = surface(basin, log=True, marker_names=names, marker_alpha=x, marker_beta=y)
    figure = plot.figure(record)
    axes = figure.axes[0]
    np.testing.assert_array_equal(labelled(axes, "checkpoints").get_xydata(), np.stack([x, y], 1))
    notes = [t for t in axes.texts if t.get_text() in names]
    assert len(notes) == 5
    boxes = [note.get_window_extent() for note in notes]
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])
    assert all(axes.bbox.contains(*corner) for box in boxes for corner in box.get_points())


@pytest.mark.parametrize(
    ("beta", "aspect"), [((-1, 1), 1.0), ((-0.6, 0.6), 1.0), ((-0.1, 0.1), "auto")]
)
def test_like_ranges_are_drawn_to_scale_and_others_fill_the_page(beta, aspect):
    assert plot.figure(surface(basin, beta=beta, log=True)).axes[0].get_aspect() == aspect


def test_a_title_of_two_lines_leaves_no_word_alone_on_the_second():
    title = "Loss on the plane through base.pt, noise_0.375.pt, noise_0.39.pt (test split)"
    figure = plot.figure(replace(surface(basin), title=title))
    first, second = figure.axes[0].get_title().splitlines()
    assert f"{first} {second}" == title
    assert len(second) > len(first) / 2


def test_text_of_the_user_is_never_read_as_mathematics_nor_drawn_without_a_glyph(tmp_path):
    record = surface(
        basin,
        title=r"a $x_1 \frac{ $5 # & <b> \u6f22 " + "y" * 500,
        alpha_label="",
        beta_label="\u6f22$b",
        marker_names=("a$b_c$^",),
        marker_alpha=np.array([0.5]),
        marker_beta=np.array([0.5]),
    )
    plot.save(plot.figure(record), tmp_path / "odd.svg")
    assert r"?\$b, $\beta$" in texts(plot.figure(record))


HARD = {
    "constant": surface(lambda a, _: 0.5 + 0 * a),
    "constant one in log": surface(lambda a, _: 1 + 0 * a, log=True),
    "zero": surface(lambda a, _: 0 * a),
    "one cell": surface(basin, shape=(1, 1), points=(1, 1)),
    "one row": surface(basin, shape=(1, 9), points=(1, 5), log=True),
    "one column": surface(basin, shape=(9, 1), points=(5, 1)),
    "two by two": surface(basin, shape=(2, 2), points=(2, 2), log=True),
    "all NaN": surface(lambda a, _: a * np.nan),
    "all infinite, in log": surface(lambda a, _: a + np.inf, log=True),
    "huge": surface(lambda a, b: 1e30 * basin(a, b), log=True),
    "huge, linear": surface(lambda a, b: 1e30 * (a - b)),
    "overflowing": surface(lambda a, _: 1.7e308 * a),
    "tiny": surface(lambda a, b: 1e-12 * basin(a, b), log=True),
    "tiny, linear": surface(lambda a, b: 1e-12 * (a + b)),
    "nearly constant": surface(lambda a, b: 0.693147 + 1e-6 * (a + b)),
    "narrow in log": surface(lambda a, _: 0.6 + 0.03 * a, log=True),
    "small ranges": surface(lambda a, _: 1 + 1e3 * a, alpha=(0, 1e-3), beta=(0, 1e-3)),
    "unlike ranges": surface(basin, beta=(-1e-3, 1e-3), log=True),
    "steep wall": surface(lambda a, b: np.where(a > 0, np.inf, basin(a, b)), log=True),
}


@pytest.mark.parametrize("style", ["contour", "3d"])
@pytest.mark.parametrize("name", HARD)
def test_hard_surfaces_give_a_picture_without_a_warning(name, style):
    figure = plot.figure(HARD[name], style=style)
    if style == "3d":  # the other style draws itself to place its texts
        figure.draw_without_rendering()
    assert "net.pt, test split" in texts(figure)


def test_nearly_equal_levels_are_written_with_enough_digits():
    found = [t for t in texts(plot.figure(HARD["nearly constant"])) if t.startswith("0.6931")]
    assert len(set(found)) >= 5


def test_a_constant_has_one_number_on_its_colour_bar():
    bar = plot.figure(HARD["constant"]).axes[0].child_axes[0]
    assert [label.get_text() for label in bar.get_yticklabels()] == ["0.5"]


def test_a_line_shows_curve_evaluations_and_band():
    record = line(lambda a: 2 + np.cos(a), stderr=0.1)
    axes = plot.figure(record).axes[0]
    drawn = dict(axes.lines[0].get_xydata().tolist())
    at = [*record.alpha, *record.point_alpha]  # in between too, where it was evaluated
    np.testing.assert_array_equal([*drawn], np.unique(at))
    np.testing.assert_array_equal([drawn[a] for a in record.alpha], record.loss.grid)
    np.testing.assert_array_equal([drawn[a] for a in record.point_alpha], record.loss.point)
    dots = labelled(axes, "evaluated").get_xydata()
    np.testing.assert_array_equal(dots, np.stack([record.point_alpha, record.loss.point], 1))
    band = labelled(axes, "1.96 standard errors")
    outline = band.get_paths()[0].vertices
    left = np.sort(outline[np.isclose(outline[:, 0], -0.5), 1])
    value = 2 + np.cos(-0.5)
    np.testing.assert_allclose(left[[0, -1]], value * (1 + 0.196 * np.array([-1, 1])))
    assert "standard error" not in footer(plot.figure(record))


def test_the_band_of_a_log_line_keeps_the_relative_error_between_points():
    record = line(lambda a: np.exp(8 * a**2 - 5), log=True, stderr=0.1)
    axes = plot.figure(record).axes[0]
    assert axes.get_yscale() == "log"
    band = labelled(axes, "1.96 standard errors")
    for x, y in band.get_paths()[0].vertices:
        share = y / np.exp(8 * x**2 - 5) - 1
        assert abs(share) == pytest.approx(0.196)


def test_a_line_without_standard_errors_has_no_band_and_says_so():
    figure = plot.figure(line(np.cos, stderr=np.nan))
    assert not figure.axes[0].collections
    assert footer(figure).endswith("no standard error")


def test_a_line_says_when_its_errors_assume_independent_entries():
    record = line(np.cos)
    loss = replace(record.loss, stderr_basis="entries taken as independent")
    said = footer(plot.figure(replace(record, quantities={"loss": loss})))
    assert said.endswith("standard error: entries taken as independent")


def test_metrics_of_a_line_share_its_alpha_below_the_loss():
    figure = plot.figure(line(np.cos, accuracy=np.sin))
    top, below = figure.axes
    assert below.get_ylabel() == "accuracy"
    assert top.get_shared_x_axes().joined(top, below)
    alpha, curve = below.lines[0].get_data()
    np.testing.assert_array_equal(curve, np.sin(alpha))
    assert len(plot.figure(line(np.cos, accuracy=np.sin), quantity="accuracy").axes) == 1


def test_checkpoints_on_a_line_are_vertical_lines_with_their_own_losses():
    markers = {"marker_names": ("a.pt", "b.pt", "out of sight")}
    markers |= {"marker_alpha": np.array([0, 1, 7.0]), "marker_loss": np.array([2, np.nan, 1.0])}
    figure = plot.figure(line(np.cos, accuracy=np.sin, **markers))
    for axes in figure.axes:
        assert {0, 1} <= {x.get_xdata()[0] for x in axes.lines if x.get_linestyle() == "--"}
        assert axes.get_xlim()[1] < 2
    assert {"a.pt", "b.pt"} <= set(texts(figure))
    assert "out of sight" not in texts(figure)
    own = labelled(figure.axes[0], "checkpoint, evaluated by itself").get_xydata()
    assert own[0].tolist() == [0, 2]


def test_a_line_is_hatched_where_it_is_not_finite():
    axes = plot.figure(line(lambda a: np.where(a > 1, np.inf, 2 + a))).axes[0]
    hatched = next(c for c in axes.collections if c.get_hatch())
    assert hatched.get_paths()[0].vertices[:, 0].min() == 1
    assert hatched.get_paths()[0].vertices[:, 0].max() == 1.5


def test_an_interrupted_line_joins_its_evaluations():
    record = line(np.cos)
    loss = replace(record.loss, grid=np.full(41, np.nan))
    record = replace(record, complete=False, quantities={"loss": loss}, status=0 * record.status)
    x, y = plot.figure(record).axes[0].lines[0].get_data()
    np.testing.assert_array_equal(y, np.cos(x))


def test_limits_of_a_line_are_those_of_its_axis():
    axes = plot.figure(line(np.cosh, log=True, accuracy=np.sin), limits=(0.5, None)).axes
    assert axes[0].get_ylim()[0] == 0.5
    assert axes[0].get_ylim()[1] > np.cosh(1.5)
    assert axes[1].get_ylim()[0] < 0


@pytest.mark.parametrize(
    "f",
    [
        lambda a: 0 * a + 0.5,
        lambda a: a * np.nan,
        lambda a: 1e30 * (1 + a**2),
        lambda a: 1e-12 * (1 + a**2),
        lambda a: a - 3,
        lambda a: np.where(a == 1.5, np.inf, 1 + a**2),
    ],
)
@pytest.mark.parametrize("log", [True, False])
def test_hard_lines_give_a_picture_without_a_warning(f, log):
    figure = plot.figure(line(f, log=log, stderr=3.0, accuracy=lambda a: 0.9 + 0 * a))
    figure.draw_without_rendering()
    assert np.isfinite(figure.axes[0].get_ylim()).all()


@pytest.mark.parametrize("suffix", ["png", "svg", "pdf", "PNG"])
def test_equal_records_give_equal_files(suffix, tmp_path):
    first, second = tmp_path / f"1.{suffix}", tmp_path / f"2.{suffix}"
    for path in (first, second):
        plot.save(plot.figure(HARD["steep wall"]), path)
    assert first.read_bytes() == second.read_bytes()
    assert b"Date" not in first.read_bytes()
    assert sorted(tmp_path.iterdir()) == [first, second]


def test_a_suffix_that_cannot_be_drawn_is_refused_with_those_that_can(tmp_path):
    with pytest.raises(UserError, match=r"the suffix has to be one of \.png, \.svg, \.pdf"):
        plot.save(plot.figure(surface(basin)), tmp_path / "a.gif")


def test_a_place_that_cannot_be_written_is_a_user_error(tmp_path):
    with pytest.raises(UserError, match=r"cannot write .*No such file or directory"):
        plot.save(plot.figure(surface(basin)), tmp_path / "nowhere" / "a.png")
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"cannot write .*Not a directory"):
        plot.save(plot.figure(surface(basin)), tmp_path / "file" / "a.png")


def test_a_full_disk_leaves_the_old_picture_and_no_litter(tmp_path, monkeypatch):
    def fill(self, file, **options):
        file.write(b"half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    path = tmp_path / "a.png"
    path.write_bytes(b"old")
    monkeypatch.setattr(Figure, "savefig", fill)
    with pytest.raises(UserError, match=r"cannot write .*a\.png.*No space left"):
        plot.save(plot.figure(surface(basin)), path)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_drawing_leaves_the_settings_of_matplotlib_alone(tmp_path):
    before = dict(matplotlib.rcParams)
    plot.save(plot.figure(surface(basin)), tmp_path / "a.pdf")
    assert dict(matplotlib.rcParams) == before


def test_neither_torch_nor_pyplot_is_needed_for_a_picture():
    code = (
        "import sys, landscape.plot; "
        "print([m for m in ('torch', 'matplotlib.pyplot') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    assert "pyplot" not in Path(plot.__file__).read_text().replace("never pyplot", "")
