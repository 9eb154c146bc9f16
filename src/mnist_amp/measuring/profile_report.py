"""What `profile` prints and its report.md, made from a plain record; no torch here."""

import math
from typing import Any

from mnist_amp.reporting.tables import facts
from mnist_amp.reporting.tables import markdown as table

# in the order of a step
PARTS = {
    "waiting for data": "picking the images out and normalising them, several batches at once",
    "transfer": "moving the batch to the device; it is there already",
    "forward": "the network, with autocast's casts",
    "loss": "cross-entropy, and its scaling where there is a scaler",
    "backward": "the gradients",
    "unscale": "unscaling the gradients, and looking for inf and NaN in them",
    "optimizer": "the update, clipping, and zeroing the gradients",
    "scaler update": "the next loss scale",
    "the loop itself": "all else: Lightning's loop and hooks, autocast's entry, training metrics, schedules",
}
FUSED_UNSCALE = "looking for inf and NaN in the gradients; the fused optimizer unscales them in its own kernel"
OUTSIDE = ("waiting for data", "transfer", "the loop itself")  # of the network and its training
FILES = "report.md, profile.png, gradients.png, results.json"
KERNELS_SHOWN = 15
NO_YES = ("no", "yes")


def terminal(record: dict[str, Any], folder: str) -> str:
    rows = [
        f"{name:<16}  {share:>5.1f}%  {_microseconds(part['median']):>10}  {_range(part)}"
        for name, share, part in _parts(record)
    ]
    header = "part               share   median µs  10% to 90% of steps, µs   (shares are of the mean)"
    lines = {**_circumstances(record), "marks": _cost(record), "files": f"{folder}/ ({FILES})"}
    return "\n".join(["", header, *rows, "", facts(lines)])


def markdown(record: dict[str, Any]) -> str:
    """Return the whole report.md."""
    mean = _microseconds(record["step"]["mean"])
    parts = _parts(record)[:-1]
    slices = [f'    "{name}" : {share:.1f}' for name, share, _ in parts if share > 0]
    sections = [
        "# Where the time of a training step goes",
        f"Made on {record['date']} by `{record['command']}`",
        "\n".join(["```mermaid", f"pie showData title A step of {mean} µs, in percent", *slices, "```"]),
        _parts_table(record),
        f"{_clock(record)} The marks {_cost(record)}. Shares are of the mean, so they add up to the step.",
        "## Which precision the layers ran in",
        _table(["layer", "kind", "weight", "input", "output"], record["layers"]),
        "## Which precision the operations ran in",
        "Recorded from one optimizer step, as torch dispatched it; `_to_copy` is a cast.",
        _table(["part", "name", "inputs", "output", "count"], _operations(record)),
        *_kernels(record["kernels"]),
        "## How large the gradients are",
        _gradients(record["gradients"]),
        "![Gradients by magnitude, against the ranges of fp16 and bfloat16](gradients.png)",
        "## Measured on",
        "\n".join(f"- {name}: {value}" for name, value in _circumstances(record).items()),
    ]
    return "\n\n".join(sections) + "\n"


def percentages(shares: list[float]) -> list[float]:
    """Round shares that add up to 1 to tenths of a percent that add up to 100."""
    tenths = [share * 1000 for share in shares]
    rounded = [math.floor(value) for value in tenths]
    missing = 1000 - sum(rounded)
    for place in sorted(range(len(tenths)), key=lambda place: rounded[place] - tenths[place])[:missing]:
        rounded[place] += 1
    return [value / 10 for value in rounded]


def _parts(record: dict[str, Any]) -> list[tuple[str, float, dict[str, Any]]]:
    """Return name, percentage and figures of the parts, and of the step last."""
    shares = percentages([part["share"] for part in record["parts"]])
    rows = [(part["part"], share, part) for part, share in zip(record["parts"], shares, strict=True)]
    return [*rows, ("step", 100.0, record["step"])]


def _parts_table(record: dict[str, Any]) -> str:
    words = {**PARTS, "step": "", **({"unscale": FUSED_UNSCALE} if record["fused"] else {})}
    rows = [
        {
            "part": name,
            "share": f"{share:.1f}%",
            "median µs": _microseconds(part["median"]),
            "mean µs": _microseconds(part["mean"]),
            "10% to 90% of steps, µs": _range(part),
            "what it is": words[name],
        }
        for name, share, part in _parts(record)
    ]
    return _table(list(rows[0]), rows)


def _operations(record: dict[str, Any]) -> list[dict[str, Any]]:
    return [{**row, "name": f"`{row['name']}`"} for row in record["operations"] if row["part"] not in OUTSIDE]


def _kernels(kernels: list[dict[str, Any]] | None) -> list[str]:
    if kernels is None:
        return []
    share = sum(row["share"] for row in kernels if row["tensor_cores"])
    rows = [
        {
            "kernel": f"`{row['kernel'][:100]}`",
            "share": f"{row['share']:.1%}",
            "tensor cores": NO_YES[row["tensor_cores"]],
        }
        for row in kernels[:KERNELS_SHOWN]
    ]
    return [
        "## Which kernels used tensor cores",
        f"Told by their names; {share:.1%} of the kernels' time was spent in those that did.",
        _table(["kernel", "share", "tensor cores"], rows),
    ]


def _gradients(gradients: dict[str, Any]) -> str:
    values = sum(gradients["exponents"].values())
    return (
        f"Of {values + gradients['zeros']:,} gradient values in {gradients['steps']:,} optimizer steps, unscaled, "
        f"{gradients['zeros']:,} are zero. Of the others, fp16 would flush {gradients['flushed_by_fp16']:.2%} to zero "
        f"and hold {gradients['subnormal_in_fp16']:.2%} with fewer bits than usual, if they were not scaled."
    )


def _circumstances(record: dict[str, Any]) -> dict[str, str]:
    model, data = record["settings"]["model"], record["settings"]["data"]
    asked, runs = record["requested_precision"], record["precision"]
    return {
        "device": record["device"],
        "precision": runs if asked in (None, runs) else f"{runs} (asked for: {asked})",
        "setting": f"hidden_dim {model['hidden_dim']}, batch_size {data['batch_size']}, {record['optimizer']}",
        "steps": f"{record['steps']:,}, after {record['warmup']:,} to warm up",
        "versions": ", ".join(f"{package} {version}" for package, version in record["versions"].items()),
    }


def _cost(record: dict[str, Any]) -> str:
    with_, without = (_microseconds(record[key]["median"]) for key in ("step", "unmarked_step"))
    return f"make the median step {record['marks_cost']:.2f} times as long ({with_} µs; {without} µs without)"


def _clock(record: dict[str, Any]) -> str:
    if record["kernels"] is None:
        return "The time is the host's."
    return "The time is that of the CUDA stream, which counts when it waits for the host, too."


def _microseconds(seconds: float) -> str:
    return f"{seconds * 1e6:,.1f}"


def _range(part: dict[str, Any]) -> str:
    return f"{_microseconds(part['p10'])} to {_microseconds(part['p90'])}"


def _table(columns: list[str], rows: list[dict[str, Any]]) -> str:
    return table([columns, *([str(row[column]) for column in columns] for row in rows)])
