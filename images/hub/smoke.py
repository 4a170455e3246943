"""Run in the image: it speaks for itself without a database, a cluster or a network."""

import json
import os
import subprocess
import sys
import time
from importlib import import_module
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import urlopen

import hub_ext.bootstrap
from hub_ext.pages import FONTS, template_paths

# 1. Everything that the hub and the desk import is there, and the user is nobody.
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

# 3. A desk serves, without a hub, and says so of itself and of a page that is not there.
desk = subprocess.Popen(["hub-ext", "desk"], cwd="/srv/hangang", env=state)
secrets = Path(state["HUB_STATE"]) / "secrets.json"


def status(path: str) -> int:
    """0 while nobody answers."""
    if not secrets.exists():
        return 0
    port = json.loads(secrets.read_text())["desk_port"]
    try:
        with urlopen(f"http://127.0.0.1:{port}/services/desk{path}", timeout=5) as answer:
            return int(answer.status)
    except HTTPError as error:
        return error.code
    except URLError:
        return 0


try:
    deadline = time.monotonic() + 60
    while (found := status("/health")) == 0 and desk.poll() is None and time.monotonic() < deadline:
        time.sleep(0.2)
    assert found == 200, f"the desk answers {found}; it ended: {desk.poll()}"
    assert (status("/static/desk.css"), status("/api/v1/openapi.json"), status("/nowhere")) == (200, 200, 404)
finally:
    desk.terminate()
    desk.wait(30)

# 4. Nothing outside /tmp is written to: the root may be read-only.
assert not os.access("/srv/hangang", os.W_OK)
assert not os.access("/opt/hangang", os.W_OK)
