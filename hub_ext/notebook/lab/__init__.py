"""Time and notices of this server, inside the notebook: an extension of jupyter_server and one of JupyterLab.

The server's part asks the desk what the lease of this very server says, claims it when somebody first comes, and
extends it. The lab's part (`labextensions/hangang-lease`) shows that in a slim bar above the status line.

| variable | what it says |
|---|---|
| `HANGANG_DESK_URL` | where the desk answers, as seen from this server: `http://proxy:8000/services/desk` |
| `JUPYTERHUB_API_TOKEN`, `JUPYTERHUB_SERVER_NAME` | who this server is; the hub sets them |
| `JUPYTERHUB_BASE_URL`, `JUPYTERHUB_HOST` | where a browser finds hub and desk; the hub sets them |

Without a desk or a token the extension is there and shows nothing. It is found through `JUPYTER_CONFIG_PATH`
(`hub_ext/notebook/config`) and `JUPYTER_PATH` (this folder).
"""

from __future__ import annotations

from typing import Any

__all__ = ["SERVER_EXTENSION"]

SERVER_EXTENSION = "hub_ext.notebook.lab"


def _jupyter_server_extension_points() -> list[dict[str, str]]:
    return [{"module": SERVER_EXTENSION}]


def _load_jupyter_server_extension(server: Any) -> None:
    # Imported only where there is a server: kernels import the package, too.
    from hub_ext.notebook.lab.server import install

    install(server)
