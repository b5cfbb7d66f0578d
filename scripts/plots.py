"""Plots of docs/performance.md, from the CSV that `cargo bench --bench e2e -- factors` and `-- load` print."""

import csv
import pathlib
import sys

import matplotlib

matplotlib.use("svg")
# Text stays text, and the same figures give the same file.
matplotlib.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "daisi-cdc-consumer", "font.size": 9})
from matplotlib import pyplot


def rows(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def plot(path, title, x, y, lines, log_y=False):
    """Draws lines, each a name and a list of points, and saves them."""
    figure, axes = pyplot.subplots(figsize=(6.4, 3.6), layout="constrained")
    for name, points in lines:
        axes.plot(*zip(*sorted(points)), marker="o", label=name)
    axes.set(title=title, xlabel=x, ylabel=y, xscale="log")
    if log_y:
        axes.set_yscale("log")
    else:
        axes.set_ylim(bottom=0)
    ticks = sorted({point[0] for _, points in lines for point in points})
    axes.set_xticks(ticks, [f"{tick:,.0f}".replace(",", " ") for tick in ticks], minor=False)
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)


def main(directory):
    factors = rows(directory / "factors.csv")
    names = {"PassThrough": "pass-through", "Service": "service"}

    def points(factor, contender, figure):
        chosen = [row for row in factors if (row["factor"], row["contender"]) == (factor, contender)]
        return [(float(row["value"]), float(row[figure])) for row in chosen]

    def each(factor, figure):
        return [(name, points(factor, contender, figure)) for contender, name in names.items()]

    throughput, cpu = each("payload", "events_per_second"), each("payload", "cpu_process")
    plot(directory / "throughput.svg", "Throughput against payload", "bytes of payload", "events/s", throughput, log_y=True)
    plot(directory / "cpu.svg", "CPU of the process against payload", "bytes of payload", "µs per event", cpu, log_y=True)
    for factor, what in [("rows", "number of rows"), ("backlog", "events in the backlog")]:
        title = f"CPU of the process against the {what}"
        plot(directory / f"{factor}.svg", title, what, "µs per event", each(factor, "cpu_process"))

    load = rows(directory / "load.csv")
    quantiles = {"p50_ms": "P50", "p95_ms": "P95", "p99_ms": "P99", "p999_ms": "P99.9"}
    latency = [(name, [(float(row["rate"]), float(row[key])) for row in load]) for key, name in quantiles.items()]
    plot(directory / "latency.svg", "Commit to published against load", "events/s", "ms", latency, log_y=True)


main(pathlib.Path(sys.argv[1]))
