"""What there is to choose for a cluster, in the form in which dask-gateway's client asks for it and sends it back."""

from __future__ import annotations

from collections.abc import Mapping as AnyMapping
from collections.abc import Sequence
from typing import Any

from dask_gateway_server.options import Integer, Mapping, Options, Select, String

from hub_ext.clusters.policy import IDLE_MINUTES, IDLE_MINUTES_DEFAULT
from hub_ext.clusters.selection import ENVIRONMENT, IDLE, IMAGE, MINUTES, POOL, PROFILE


def options_of(profiles: Sequence[str]) -> Options:
    """For `Gateway().cluster_options()`. Its forms know no empty choice: "" and 0 stand for what is not chosen."""
    fields = [
        String(POOL, label="Pool (the first that is yours, where none is written)"),
        Integer(MINUTES, default=0, min=0, label="Minutes (0: as many as are usual)"),
        Select(
            IDLE,
            [str(minutes) for minutes in IDLE_MINUTES],
            default=str(IDLE_MINUTES_DEFAULT),
            label="Minutes that it may do nothing",
        ),
        String(IMAGE, label="Image (the notebook's own, where none is written)"),
        Mapping(ENVIRONMENT, label="Variables of scheduler and workers"),
    ]
    return Options(*([Select(PROFILE, profiles, label="Size")] if profiles else []), *fields)


def chosen_of(sent: AnyMapping[object, object]) -> dict[object, Any]:
    """What was chosen of it: without what stands for nothing."""
    return {
        name: value
        for name, value in sent.items()
        if not (name in (POOL, IMAGE) and value == "")
        and not (name == MINUTES and type(value) is int and value == 0)
    }
