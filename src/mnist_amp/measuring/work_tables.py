"""Tables of the work of a step: its time by kind, its operations a second, and its types. No torch here."""

from collections.abc import Iterable

from mnist_amp.measuring.compare_records import Comparison, short_names, value_text
from mnist_amp.measuring.compare_rows import Row, rows, verdict_setting
from mnist_amp.measuring.operation_kinds import CAST, PRODUCTS
from mnist_amp.measuring.profile_records import Layer, Operation, Profile

KINDS = ("matrix products", "casts", "other operations", "optimizer", "overhead", "waiting for data")


def work_table(comparison: Comparison) -> list[list[str]]:
    """Return the cells of the table of the work of a step, the head first; shares are of the step's time."""
    axes = short_names(comparison.axes).values()
    lines = [["precision", *axes, "GFLOP per step", "GFLOP/s", "of the peak", *KINDS]]
    for row in rows(comparison):
        if row.profile is not None:
            values = [value_text(value) for _, value in row.setting.values]
            shares = [f"{row.profile.work.get(kind, 0.0):.0%}" for kind in KINDS]
            lines.append([row.precision, *values, *_rates(row.profile), *shares])
    return lines


def _rates(profile: Profile) -> list[str]:
    """Return the operations of a step, those in a second, and the share of the peak; `-` if none were counted."""
    if not profile.flops:
        return ["-", "-", "-"]
    rate = profile.flops_per_second / 1e9
    return [f"{profile.flops / 1e9:.3g}", f"{rate:.3g}", f"{profile.peak_share:.1%} of {peak_text(profile)}"]


def peak_text(profile: Profile) -> str:
    """Return the peak in GFLOP/s."""
    peak = profile.peak_flops / 1e9
    return f"{peak:,.0f}" if peak >= 10 else f"{peak:.2g}"


def types_table(comparison: Comparison) -> list[list[str]]:
    """Return the cells of the table of types at the verdict's setting: operations and layers by dtype."""
    lines = [["precision", "dtype", "matrix products", "other operations", "layers"]]
    own = verdict_setting(comparison)
    for row in rows(comparison):
        if row.setting == own and row.profile is not None:
            lines += _types(row, row.profile)
    return lines


def _types(row: Row, profile: Profile) -> list[list[str]]:
    layers, counts = layers_by_dtype(profile.layers), operations_by_dtype(profile.operations)
    lines = []
    for dtype in dict.fromkeys([*counts, *layers]):
        products, others = counts.get(dtype, (0, 0))
        names = ", ".join(layers.get(dtype, [])) or "-"
        lines.append([row.precision, dtype or "-", str(products), str(others), names])
    return lines


def layers_by_dtype(layers: Iterable[Layer]) -> dict[str, list[str]]:
    """Return the names of the layers by the dtype of their output; that of a layer without an output is empty.

    >>> layers_by_dtype([Layer("fc1", "Linear", "float32", "float32", "bfloat16")])
    {'bfloat16': ['fc1']}
    """
    found: dict[str, list[str]] = {}
    for layer in layers:
        names = found.setdefault(layer.output, [])
        names += [layer.layer] if layer.layer not in names else []
    return found


def operations_by_dtype(operations: Iterable[Operation]) -> dict[str, tuple[int, int]]:
    """Return how many products and how many other operations of a step have inputs of a dtype; casts are left out.

    >>> operations_by_dtype([Operation("forward", "addmm", "float32", "float32", 2)])
    {'float32': (2, 0)}
    """
    found: dict[str, tuple[int, int]] = {}
    for operation in operations:
        dtype = operation.inputs.partition(",")[0]
        if operation.name == CAST.removeprefix("aten::") or not dtype.startswith(("float", "bfloat")):
            continue
        products, others = found.get(dtype, (0, 0))
        is_product = bool(PRODUCTS.search(operation.name))
        found[dtype] = (products + is_product * operation.count, others + (not is_product) * operation.count)
    return found
