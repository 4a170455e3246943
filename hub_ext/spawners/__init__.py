"""Spawners whose every start is decided by the quota. On a JupyterHub before 6 the process ends here, with a sentence.

It ends before the imports that such a hub does not have, whichever way it comes in: by `hub_ext.bootstrap`, or by a
site's configuration that names one of these classes.
"""

from __future__ import annotations

import sys
from importlib.metadata import version

_found = version("jupyterhub")
if int(_found.partition(".")[0]) < 6:
    sys.exit(
        f"hub_ext needs JupyterHub 6 or newer, and this is {_found}: refusals would count as failures there."
    )
