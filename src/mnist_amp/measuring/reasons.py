"""Why a precision is faster or not, in sentences, from the profiles of its steps. No torch here."""

from collections.abc import Mapping

from mnist_amp.measuring.compare_rows import Row
from mnist_amp.measuring.profile_records import Profile
from mnist_amp.wording import listed

WAITING = "waiting for data"
MUCH = 0.4  # a share of the step from which on one thing decides
FEW_PRODUCTS = 0.25
NOTABLE_CASTS = 0.05
SAME_PEAK = 1.1  # a ratio of peaks below this is no difference
SHOWN = {
    "matrix products": "matrix products are",
    "casts": "casts are",
    "optimizer": "the optimizer is",
    "other operations": "other operations are",
    "overhead": "overhead is",
    "waiting for data": "waiting for data is",
}


def reasons(baseline: Row, row: Row) -> list[str]:
    """Return sentences that say why a precision is as fast as it is against the baseline.

    Args:
        baseline: measured at the same setting.
        row: of the other precision.
    """
    on_cuda = baseline.profile is not None and baseline.profile.kernels is not None
    # a GPU may work while the host waits
    waiting = baseline.profile.work[WAITING] if baseline.profile and on_cuda else baseline.waiting_share
    if waiting >= MUCH:
        return [_waiting(waiting, baseline.precision)]
    if baseline.profile is None or row.profile is None:
        return []
    before, after = baseline.profile, row.profile
    return [
        _shares(before.work, baseline.precision),
        *_few_products(before),
        *_peaks(baseline, row),
        *_casts(row, after),
        *_overhead(before),
    ]


def findings(profile: Profile) -> list[str]:
    """Return sentences that say what takes the time of a step, and what could make it faster."""
    waiting = profile.work.get(WAITING, 0.0)
    rate = (
        f"Its products are {profile.flops / 1e9:.3g} GFLOP, done at {profile.flops_per_second / 1e9:,.3g} GFLOP/s: "
        f"{_percent(profile.peak_share)} of the {profile.peak_flops / 1e9:,.0f} GFLOP/s that large products reach on "
        "this device in this precision."
    )
    return [
        _shares(profile.work, profile.precision),
        *([rate] if profile.flops else []),
        *([_waiting(waiting, profile.precision)] if waiting >= MUCH else _few_products(profile) + _overhead(profile)),
    ]


def _waiting(share: float, precision: str) -> str:
    helps = "no precision helps" if share > 0.8 else "a precision helps little"
    return (
        f"{share:.0%} of a {precision} step is waiting for your DataLoader: {helps}. Prepare the data once, "
        "or use idle cores for more workers (num_workers)."
    )


def _shares(work: Mapping[str, float], precision: str) -> str:
    parts = [(name, work.get(kind, 0.0)) for kind, name in SHOWN.items()]
    shown = listed([f"{name} {share:.0%}" for name, share in parts if share >= 0.005])
    return f"Of a single {precision} step, {shown}."


def _few_products(profile: Profile) -> list[str]:
    share = profile.work.get("matrix products", 0.0)
    if share >= FEW_PRODUCTS:
        return []
    return [
        f"The products are {share:.0%} of the step, and half precision speeds up mostly these: without them, the step "
        f"would be {1 / (1 - share):.2f} times as fast."
    ]


def _peaks(baseline: Row, row: Row) -> list[str]:
    assert baseline.profile is not None
    assert row.profile is not None
    before, after = baseline.profile.peak_flops, row.profile.peak_flops
    if not before or not after:
        return []
    rates = f"{after / 1e9:,.0f} and {before / 1e9:,.0f} GFLOP/s"
    ratio = after / before
    as_in = f"times as fast in {row.precision} as in {baseline.precision} on this device ({rates})"
    if ratio < SAME_PEAK:
        return [f"Large matrix products are {ratio:.2f} {as_in}, so little can be gained by {row.precision}."]
    both = ((row.precision, row.profile), (baseline.precision, baseline.profile))
    used = [f"{_percent(profile.peak_share)} of that of {name}" for name, profile in both if profile.flops]
    reached = f"; of these peaks, a step reaches {listed(used)}" if used else ""
    return [f"Large matrix products are {ratio:.1f} {as_in}{reached}."]


def _percent(share: float) -> str:
    """Return a share in percent, with a digit after the point if it is small."""
    return f"{share:.0%}" if share >= 0.1 else f"{share:.1%}"


def _casts(row: Row, profile: Profile) -> list[str]:
    share = profile.work.get("casts", 0.0)
    return [f"Casts are {share:.0%} of the {row.precision} step."] if share >= NOTABLE_CASTS else []


def _overhead(profile: Profile) -> list[str]:
    share = profile.work.get("overhead", 0.0)
    if share < MUCH:
        return []
    return [
        f"{share:.0%} of the step is overhead (Python, hooks, launches), which no precision changes: larger batches "
        "help more."
    ]
