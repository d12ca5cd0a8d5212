"""The catalogue of attacks: the ids by which probes, attack cases and hostile tests name what they try."""

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
"""By letter, the subject of the group and its number of cases. Cases are numbered from 01."""

_ID = re.compile(rf"\b[{''.join(GROUPS)}]\d\d\b")


def ids(group: str) -> list[str]:
    """Return the ids of a group, in order."""
    _, count = GROUPS[group]
    return [f"{group}{number:02}" for number in range(1, count + 1)]


def ids_in(reference: str) -> tuple[str, ...]:
    """Return the ids that a check's ``reference`` names, among sections of other documents such as CIS."""
    return tuple(_ID.findall(reference))
