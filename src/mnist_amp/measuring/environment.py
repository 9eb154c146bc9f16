"""The environment of a measurement, and how every report shows it; no torch here."""

from collections.abc import Mapping
from dataclasses import dataclass

from mnist_amp.reporting.document import Block, Bullets, Heading, Inline, Text


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


def measured_on(facts: Mapping[str, Inline]) -> list[Block]:
    """Return the section of a report that says where and how it was measured.

    Args:
        facts: in the order of the report, by name.
    """
    return [Heading("Measured on"), Bullets([Text(f"{name}: ", text) for name, text in facts.items()])]
