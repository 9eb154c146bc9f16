"""The environment of a measurement, and how every report shows it; no torch here."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Environment:
    """The environment of a measurement.

    Attributes:
        device: name of the device, such as `NVIDIA H200`.
        half_hardware: whether the device has instructions for bfloat16; None if that is not known.
        versions: version by package.
    """

    device: str
    half_hardware: bool | None
    versions: dict[str, str]


def join_versions(versions: Mapping[str, str]) -> str:
    """Return the versions in one line.

    >>> join_versions({"python": "3.12.3", "torch": "2.15.0"})
    'python 3.12.3, torch 2.15.0'
    """
    return ", ".join(f"{package} {version}" for package, version in versions.items())


def measured_on(facts: Mapping[str, str]) -> str:
    """Return the last section of a report as Markdown."""
    return "\n".join(["## Measured on", "", *(f"- {name}: {text}" for name, text in facts.items())])
