"""Run in the image: it speaks for itself without a database, a cluster or a network."""

import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import hub_ext.bootstrap
from hub_ext.pages import FONTS, template_paths

# 1. Everything that the hub and the clock import is there, and the user is nobody.
assert os.getuid() == 1000, f"runs as {os.getuid()}"
for module in ("hub_ext.cli", "psycopg", "jupyterhub.app", "kubespawner", "oauthenticator.generic"):
    import_module(module)
assert Path(hub_ext.__file__).parent == Path("/srv/hangang/hub_ext"), hub_ext.__file__
assert FONTS.is_dir(), f"no typeface in {FONTS}"
assert all(Path(path).is_dir() for path in template_paths())

# 2. Its own documents are without a fault, and a fresh database can be made.
state = {**os.environ, "HUB_STATE": "/tmp/state", "HOME": "/tmp"}
for command in (["hub-ext", "check"], ["hub-ext", "db", "upgrade"]):
    done = subprocess.run(command, cwd="/srv/hangang", env=state, text=True, capture_output=True)
    print(" ".join(command), "→", done.returncode, done.stdout.strip()[-200:])
    if done.returncode != 0:
        sys.exit(done.stdout + done.stderr)

# 3. Nothing outside /tmp is written to: the root may be read-only.
assert not os.access("/srv/hangang", os.W_OK)
assert not os.access("/opt/hangang", os.W_OK)
