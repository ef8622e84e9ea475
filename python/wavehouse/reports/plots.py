"""Small static plots as SVG text: no script, no network, the same bytes for the same numbers."""

import io
from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
from matplotlib import colors, dates
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

INK, MUTED, GRID = "#1d2433", "#5b6475", "#e3e6ec"
SERIES = ("#b3541e", "#2a6f97", "#6a7f3f", "#8a5a83", "#5b6475")  # told apart without red and green
GAIN, LOSS = "#2a6f97", "#c0392b"
DIVERGING = colors.LinearSegmentedColormap.from_list("diverging", [LOSS, "#f6f6f6", GAIN])
SIZE = (4.6, 2.9)  # inches: a phone's width, so that the text stays readable there
STYLE = {
    **{"font.size": 9, "font.family": "sans-serif", "svg.fonttype": "none"},
    **{"axes.edgecolor": GRID, "axes.labelcolor": MUTED, "axes.titlesize": 10},
    **{"axes.titlelocation": "left", "axes.titlecolor": INK, "text.color": INK},
    **{"xtick.color": MUTED, "ytick.color": MUTED, "xtick.labelsize": 8, "ytick.labelsize": 8},
    **{"axes.grid": True, "grid.color": GRID, "grid.linewidth": 0.6, "axes.axisbelow": True},
    **{"axes.spines.top": False, "axes.spines.right": False, "legend.frameon": False},
    **{"legend.fontsize": 8, "lines.linewidth": 1.4, "xtick.major.size": 0, "ytick.major.size": 0},
}


def svg(figure: Figure, name: str) -> str:
    """Return a figure as an `<svg>` element whose ids no other figure shares."""
    buffer = io.StringIO()
    with matplotlib.rc_context({**STYLE, "svg.hashsalt": name, "svg.id": name}):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]


def new_figure(height: float = SIZE[1], rows: int = 1, **options) -> tuple[Figure, list[Axes]]:
    """Return a figure of the page's width and its axes from top to bottom."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(SIZE[0], height), layout="constrained")
        axes = figure.subplots(rows, 1, squeeze=False, **options)[:, 0]
    return figure, list(axes)


def tell_time(axes: Axes) -> None:
    """Label a time axis briefly, at most six ticks."""
    locator = dates.AutoDateLocator(minticks=3, maxticks=6)
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(dates.ConciseDateFormatter(locator))


def equity(name: str, title: str, curves: Mapping[str, Mapping[str, np.ndarray]]) -> str:
    """Plot running sums above what they lie below their maximum.

    Args:
        name: unique on the page.
        title: above the plot.
        curves: {label: {"time", "equity_bps", "drawdown_bps"}}, arrays of one length, by time.

    Returns SVG text.
    """
    with matplotlib.rc_context(STYLE):
        figure, (upper, lower) = new_figure(
            3.6, 2, sharex=True, gridspec_kw={"height_ratios": [2, 1]}
        )
        for (label, curve), colour in zip(curves.items(), SERIES, strict=False):
            upper.plot(curve["time"], curve["equity_bps"], color=colour, label=label)
            lower.fill_between(
                curve["time"], -curve["drawdown_bps"], color=colour, alpha=0.35, linewidth=0
            )
        upper.axhline(0, color=MUTED, linewidth=0.6)
        upper.set_title(title)
        upper.set_ylabel("equity, bps")
        lower.set_ylabel("drawdown, bps")
        if curves:
            upper.legend(loc="best")
            tell_time(lower)
        return svg(figure, name)


def lines(
    name: str,
    title: str,
    series: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    x_label: str,
    y_label: str,
    *,
    diagonal: bool = False,
) -> str:
    """Plot lines with a mark at every point; `diagonal` adds y = x."""
    with matplotlib.rc_context(STYLE):
        figure, (axes,) = new_figure()
        for (label, (x, y)), colour in zip(series.items(), SERIES, strict=False):
            axes.plot(x, y, marker="o", markersize=3, color=colour, label=label)
        if diagonal:
            low, high = axes.get_xlim()
            axes.plot([low, high], [low, high], color=MUTED, linewidth=0.8, linestyle=":")
        axes.set_title(title)
        axes.set_xlabel(x_label)
        axes.set_ylabel(y_label)
        if len(series) > 1:
            axes.legend(loc="best")
        return svg(figure, name)


def bars(
    name: str,
    title: str,
    labels: Sequence[str],
    series: Mapping[str, Sequence[float]],
    y_label: str,
    *,
    horizontal: bool = False,
    by_sign: bool = False,
) -> str:
    """Plot groups of bars, one group a label; `by_sign` colours one series by gain and loss."""
    with matplotlib.rc_context(STYLE):
        height = max(SIZE[1], 0.24 * len(labels) * len(series) + 1.0) if horizontal else SIZE[1]
        figure, (axes,) = new_figure(height)
        places = np.arange(len(labels))
        width = 0.8 / max(len(series), 1)
        for index, (label, values) in enumerate(series.items()):
            values = np.asarray(values, dtype=float)
            at = places + (index - (len(series) - 1) / 2) * width
            colour = np.where(values < 0, LOSS, GAIN).tolist() if by_sign else SERIES[index]
            draw = axes.barh if horizontal else axes.bar
            draw(at, np.nan_to_num(values), width * 0.92, color=colour, label=label)
        if horizontal:
            axes.set_yticks(places, labels)
            axes.invert_yaxis()
            axes.axvline(0, color=MUTED, linewidth=0.6)
            axes.grid(visible=False, axis="y")
            axes.locator_params(axis="x", nbins=5)
            axes.set_xlabel(y_label)
        else:
            axes.set_xticks(places, labels)
            axes.axhline(0, color=MUTED, linewidth=0.6)
            axes.grid(visible=False, axis="x")
            axes.set_ylabel(y_label)
        axes.set_title(title)
        if len(series) > 1:
            axes.legend(loc="best")
        return svg(figure, name)


def heatmap(
    name: str,
    title: str,
    values: np.ndarray,
    x_labels: Sequence[str],
    y_labels: Sequence[str],
    x_label: str,
    y_label: str,
    marked: tuple[int, int] | None = None,
) -> str:
    """Plot a matrix (rows are y) with its numbers; `marked` is the (row, column) to frame."""
    with matplotlib.rc_context(STYLE):
        figure, (axes,) = new_figure()
        known = values[np.isfinite(values)]
        low, high = (known.min(), known.max()) if known.size else (0.0, 1.0)
        axes.imshow(values, aspect="auto", cmap="YlGnBu", vmin=low, vmax=high)
        axes.grid(visible=False)
        axes.set_xticks(range(len(x_labels)), x_labels)
        axes.set_yticks(range(len(y_labels)), y_labels)
        axes.set_xlabel(x_label)
        axes.set_ylabel(y_label)
        axes.set_title(title)
        if values.size <= 80:
            for (row, column), value in np.ndenumerate(values):
                if np.isfinite(value):
                    dark = value > low + 0.6 * (high - low)
                    axes.text(
                        column,
                        row,
                        f"{value:.0f}",
                        ha="center",
                        va="center",
                        fontsize=7,
                        color="white" if dark else INK,
                    )
        if marked:
            corner = (marked[1] - 0.5, marked[0] - 0.5)
            axes.add_patch(Rectangle(corner, 1, 1, fill=False, edgecolor=LOSS, linewidth=2))
        return svg(figure, name)


def histogram(name: str, title: str, values: np.ndarray, mark: float, x_label: str) -> str:
    """Plot how values are distributed, and where `mark` lies."""
    with matplotlib.rc_context(STYLE):
        figure, (axes,) = new_figure()
        values = values[np.isfinite(values)]
        if values.size:
            axes.hist(values, bins=min(20, max(5, values.size // 2)), color=SERIES[4], alpha=0.7)
        axes.axvline(mark, color=SERIES[0], linewidth=2, label="the winner")
        axes.set_title(title)
        axes.set_xlabel(x_label)
        axes.set_ylabel("draws")
        axes.legend(loc="best")
        return svg(figure, name)


def month_map(
    name: str,
    title: str,
    values: np.ndarray,
    months: Sequence[str],
    labels: Sequence[str],
    scale_label: str,
    *,
    limit: float,
    signed: bool,
) -> str:
    """Plot a matrix of months (columns) as colours: red to blue about 0, or white to blue.

    Args:
        name: unique on the page.
        title: above the plot.
        values: a row for each label, a column for each month; NaN stays blank.
        months: such as 2024-01; every January is labelled, or every month of a short span.
        labels: of the rows.
        scale_label: what the colours are.
        limit: value of the darkest colour; what lies beyond has it too.
        signed: colours also tell below 0.

    Returns SVG text, twice as wide as other plots.
    """
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(2 * SIZE[0], 0.17 * len(labels) + 1.1), layout="constrained")
        axes = figure.subplots()
        low = -limit if signed else 0.0
        picture = axes.imshow(
            values, aspect="auto", cmap=DIVERGING if signed else "Blues", vmin=low, vmax=limit,
            interpolation="nearest",
        )  # fmt: skip
        axes.grid(visible=False)
        short = len(months) <= 15
        shown = [i for i, month in enumerate(months) if short or month.endswith("-01")]
        axes.set_xticks(shown, [months[i] if short else months[i][:4] for i in shown])
        axes.set_yticks(range(len(labels)), labels, fontsize=7)
        axes.set_title(title)
        bar = figure.colorbar(picture, ax=axes, shrink=min(1.0, 14 / (len(labels) + 1)), pad=0.01)
        bar.set_label(scale_label)
        bar.outline.set_visible(False)
        return svg(figure, name)


def scatter(
    name: str,
    title: str,
    groups: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    x_label: str,
    y_label: str,
    notes: Mapping[str, tuple[float, float]],
) -> str:
    """Plot points by group, those after the last colour in grey; `notes` are points to name."""
    with matplotlib.rc_context(STYLE):
        figure, (axes,) = new_figure(3.6)
        for index, (label, (x, y)) in enumerate(groups.items()):
            colour = SERIES[index] if index < len(SERIES) - 1 else GRID
            edge = MUTED if index >= len(SERIES) - 1 else colour
            last = index == len(SERIES) - 1
            said = label if index < len(SERIES) - 1 else "others" if last else None
            axes.scatter(x, y, s=14, color=colour, edgecolors=edge, linewidths=0.4, label=said)
        for label, (x, y) in notes.items():
            axes.annotate(
                label, (x, y), xytext=(4, 3), textcoords="offset points", fontsize=6.5, color=MUTED
            )
        axes.set_title(title)
        axes.set_xlabel(x_label)
        axes.set_ylabel(y_label)
        axes.set_ylim(bottom=0)
        axes.margins(x=0.12)
        if len(groups) > 1:
            figure.legend(loc="outside lower center", ncols=3, handletextpad=0.2)
        return svg(figure, name)


def counts(name: str, title: str, values: np.ndarray, x_label: str, y_label: str) -> str:
    """Plot how values are distributed."""
    with matplotlib.rc_context(STYLE):
        figure, (axes,) = new_figure(3.6)
        values = values[np.isfinite(values)]
        if values.size:
            axes.hist(values, bins=20, color=GAIN, alpha=0.85, edgecolor="white", linewidth=0.5)
        axes.set_title(title)
        axes.set_xlabel(x_label)
        axes.set_ylabel(y_label)
        axes.grid(visible=False, axis="x")
        return svg(figure, name)
