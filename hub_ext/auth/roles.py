"""The roles a person can have, and what each means. Roles open things; how much may run is the pools' to say."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

STUDENT: Final = "student"
RESEARCHER: Final = "researcher"
INSTRUCTOR: Final = "instructor"
LEAD: Final = "lead"
OPERATOR: Final = "operator"

ROLES: Final[Mapping[str, str]] = {
    STUDENT: "learns: starts servers for themselves, and takes a seat in courses and workshops",
    RESEARCHER: "works on a question of their own: servers and Dask clusters within the quota of their pools",
    INSTRUCTOR: "teaches: books seats for a course or workshop, sees who is ready, helps, extends",
    LEAD: "answers for a pool: sees who uses what in it, grants hours, approves reservations, exports",
    OPERATOR: "runs the centre: an administrator of the hub, who sees every pool and the audit trail",
}
"""By name; a person may have several."""
