"""The table of a benchmark: the claims it bears out, Markdown, and one chart."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from distildire.io.writing import write_json, write_text

Row = Mapping[str, Any]

TARGETS = {
    "distildire": {"flops_saved": 0.974, "faster": 35.0},
    "nano": {"flops_saved": 0.9999, "faster": 10_000.0},
}
"""Against `dire`: share of FLOPs saved, and times faster from decoding to verdict."""


def claims(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Each method of `TARGETS` against the row `dire`, where both were measured."""
    by_method = {row["method"]: row for row in rows if row["flops"] and row["seconds_total"]}
    base = by_method.get("dire")
    found = []
    for method, target in TARGETS.items():
        row = by_method.get(method)
        if base is None or row is None:
            continue
        values = {
            "flops_saved": 1.0 - row["flops"] / base["flops"],
            "faster": base["seconds_total"] / row["seconds_total"],
        }
        found += [
            {"method": method, "claim": name, "value": values[name], "target": least,
             "holds": values[name] >= least}
            for name, least in target.items()
        ]  # fmt: skip
    return found


def save(result: Mapping[str, Any], out: Path) -> None:
    """Write bench.json, bench.md and bench.png."""
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / "bench.json", result, indent=2)
    write_text(out / "bench.md", markdown(result))
    measured = [row for row in result["rows"] if row["flops"] and row["seconds_total"]]
    if not measured:
        return
    try:
        figure = chart(measured)
    except ImportError:  # a GPU machine may hold torch and little else
        return
    figure.savefig(out / "bench.png", dpi=120)


def markdown(result: Mapping[str, Any]) -> str:
    """The table, the claims, the machine and the notes."""
    about = result["machine"]
    lines = [
        "# What a verdict costs", "",
        "For one picture (JPEG, 500 x 375); cold is a new process with its imports and weights, "
        "warm the whole way from the file's bytes to the logit.", "",
        "| method | parameters | FLOPs | noise network | cold | warm | best batch | "
        "peak memory | of matmul peak |",
        "|---|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]  # fmt: skip
    lines += [f"| {' | '.join(_cells(row))} |" for row in result["rows"]]
    lines += _by_batch(result["rows"])
    if result["claims"]:
        lines += ["", "| against DIRE | measured | aim | |", "|---|--:|--:|---|"]
    for claim in result["claims"]:
        saved = claim["claim"] == "flops_saved"
        what = "FLOPs saved" if saved else "times faster, decode to verdict"
        form = "{:.4%}" if saved else "{:,.1f}"
        lines.append(
            f"| {claim['method']}: {what} | {form.format(claim['value'])} | at least "
            f"{claim['target'] if not saved else format(claim['target'], '.2%')} | "
            f"{'holds' if claim['holds'] else 'fails'} |"
        )
    lines += ["", _machine(about)]
    lines += ["", "The share of the matmul peak can pass 100%: convolutions run through another "
              "library than the matrix products it is measured by. Times of single passes vary "
              "by a few percent, so a ratio extrapolated from two may lie above that of the "
              "FLOPs."]  # fmt: skip
    lines += ["", *(f"- {row['method']}: {row['note']}." for row in result["rows"])]
    return "\n".join(lines) + "\n"


def _cells(row: Row) -> tuple[str, ...]:
    if row["seconds_total"] is None:
        return (row["title"], "not measured", *["-"] * 7)
    return (
        row["title"], _or_dash(row["params"], "{:,}".format), _or_dash(row["flops"], _scaled),
        _or_dash(row["seconds_unet"], _time), _or_dash(row["seconds_cold"], _time),
        _time(row["seconds_total"]),
        f"{_time(row['seconds_best_batch'])} at {row['best_batch']}",
        f"{row['peak_rss_bytes'] / 2**30:.2f} GiB",
        _or_dash(row["matmul_peak_share"], "{:.0%}".format),
    )  # fmt: skip


def _by_batch(rows: Sequence[Row]) -> list[str]:
    """Seconds per picture and the GPU's memory at every batch, where these were swept."""
    swept = [row for row in rows if row.get("peak_gpu_bytes_by_batch")]
    if not swept:
        return []
    lines = [
        "", "| method | pictures at once | noise network | decode to verdict | pictures a second "
        "| GPU memory beside the weights |", "|---|--:|--:|--:|--:|--:|",
    ]  # fmt: skip
    for row in swept:
        for size, seconds in row["seconds_by_batch"].items():
            unet = row["seconds_unet_by_batch"][size]
            memory = row["peak_gpu_bytes_by_batch"][size]
            cells = (
                row["title"], size, _or_dash(unet, _time), _time(seconds), f"{1 / seconds:,.4g}",
                _or_dash(memory, lambda count: f"{count / 2**30:.2f} GiB"),
            )  # fmt: skip
            lines.append(f"| {' | '.join(cells)} |")
    return lines


def _machine(about: Mapping[str, Any]) -> str:
    text = f"Machine: {about['processor']}, {about['cores']} cores, {about['system']}"
    if "gpu" in about:
        text += f", {about['gpu']} (CUDA {about['cuda']})"
    if "torch" in about:
        text += f"; torch {about['torch']} on {about['threads']} threads"
    text += f", onnxruntime {about['onnxruntime']}"
    if "matmul_flops_per_second" in about:
        speed = f"{about['matmul_flops_per_second'] / 1e9:,.0f}"
        text += f"; float32 matrix products at {speed} GFLOP/s"
    if "matmul_flops_per_second_bf16" in about:
        text += f", bfloat16 at {about['matmul_flops_per_second_bf16'] / 1e9:,.0f} GFLOP/s"
    if about.get("load_before") is not None:
        text += f". Load before the run: {about['load_before']:.2f}"
    return text + "."


def chart(rows: Sequence[Row]) -> Any:
    """FLOPs and seconds per image, as bars on logarithmic axes."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.5, 1.2 + 0.5 * len(rows)), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    titles = [row["title"] for row in rows]
    for ax, key, label, text in zip(
        panels, ("flops", "seconds_total"), ("FLOPs per image", "seconds, decode to verdict"),
        (_scaled, _time), strict=True,
    ):  # fmt: skip
        values = [row[key] for row in rows]
        ax.barh(titles, values, color="#0969da")
        ax.set(xscale="log", xlabel=label, xlim=(min(values) / 5, max(values) * 30))
        for y, value in enumerate(values):
            ax.text(value * 1.2, y, text(value), va="center", fontsize=8)
    panels[0].invert_yaxis()
    return figure


def _or_dash(value: Any, form: Callable[[Any], str]) -> str:
    return "-" if value is None else form(value)


def _scaled(flops: float) -> str:
    for unit, size in (("T", 1e12), ("G", 1e9), ("M", 1e6)):
        if flops >= size:
            return f"{flops / size:.4g} {unit}FLOP"
    return f"{flops:.0f} FLOP"


def _time(seconds: float) -> str:
    if seconds >= 0.9995:
        return f"{seconds:,.4g} s"
    return f"{seconds * 1e3:.3g} ms"
