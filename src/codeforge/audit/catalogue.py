"""The catalogue of attacks: how its cases are numbered.

Probes, attack cases and the hostile tests name what they try by these ids.
"""

from __future__ import annotations

import re

GROUPS = {
    "R": ("resources", 29),
    "P": ("privileges", 27),
    "N": ("network", 9),
    "F": ("files", 12),
    "X": ("protocol and pool", 16),
    "O": ("output", 10),
    "H": ("host and supply chain", 12),
}
"""Letter to what the group is about, and how many cases it has; they are numbered from 01."""

_ID = re.compile(rf"\b[{''.join(GROUPS)}]\d\d\b")


def ids(group: str) -> list[str]:
    """The ids of a group, in order."""
    _, count = GROUPS[group]
    return [f"{group}{number:02}" for number in range(1, count + 1)]


def ids_in(reference: str) -> tuple[str, ...]:
    """The ids that a check's ``reference`` names, beside those of other people's documents."""
    return tuple(_ID.findall(reference))
