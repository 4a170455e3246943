"""Run in the image: a server starts for a person with an empty home, answers, and runs a cell of a notebook."""

import json
import os
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

HOME = Path("/home/jovyan")
PORT, HUB_PORT, TOKEN = 18888, 18081, "smoke"
BASE = "/user/smoke/"

assert os.getuid() == 1000, f"runs as {os.getuid()}"
assert list(HOME.iterdir()) == [] or {path.name for path in HOME.iterdir()} <= {
    ".bashrc",
    ".profile",
    ".bash_logout",
}

# 1. Nothing but the home and the temporary folders can be written to: the root may be read-only.
found = subprocess.run(
    [
        "find",
        "/",
        "-xdev",
        "-writable",
        "!",
        "-type",
        "l",
        "-not",
        "-path",
        "/proc/*",
        "-not",
        "-path",
        "/dev/*",
    ],
    text=True,
    capture_output=True,
).stdout.splitlines()
allowed = ("/home/jovyan", "/tmp", "/var/tmp", "/run/lock", "/var/lock", "/dev", "/proc", "/sys")
assert not [path for path in found if not path.startswith(allowed)], found

# 2. The libraries that the sample notebooks use, and Korean letters for their plots.
check = """
import dask, distributed, ipywidgets, matplotlib, pandas, pyarrow, sklearn
import hub_ext.notebook, hub_ext.notebook.data, hub_ext.notebook.samples
from matplotlib import font_manager
assert any("Nanum" in font.name for font in font_manager.fontManager.ttflist), "no Korean letters"
assert dask.__version__ == "2026.7.1", dask.__version__
"""
subprocess.run(["python3", "-c", check], check=True)


class Hub(BaseHTTPRequestHandler):
    """As much of hub and desk as a server asks for when it starts and when somebody comes with a token."""

    def do_GET(self):
        if self.path.rstrip("/") in ("/hub/api", "/hub/api/"):
            return self.answer({"version": "6.1.1"})
        if self.path.startswith("/hub/api/user"):
            scopes = ["access:servers!server=smoke/"]
            return self.answer(
                {"kind": "user", "name": "smoke", "admin": False, "groups": [], "scopes": scopes}
            )
        if self.path.startswith("/services/desk/api/v1/leases?server="):
            lease = {"id": "smoke", "server": "", "ends_at": "2099-01-01T00:00:00+09:00", "guaranteed": False}
            return self.answer({"items": [lease]})
        return self.send_error(404)

    def do_POST(self):
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.answer({})

    def answer(self, value):
        body = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("X-JupyterHub-Version", "6.1.1")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments):
        pass


def ask(path):
    request = urllib.request.Request(
        f"http://127.0.0.1:{PORT}{BASE}{path}", headers={"Authorization": f"token {TOKEN}"}
    )
    with urllib.request.urlopen(request, timeout=20) as answer:
        return answer.read().decode()


def wait_until_it_answers(server):
    ends = time.monotonic() + 60
    while time.monotonic() < ends:
        if server.poll() is not None:
            sys.exit(f"the server ended with {server.returncode}")
        try:
            return json.loads(ask("api/status"))
        except (urllib.error.URLError, ConnectionError):
            time.sleep(0.2)
    sys.exit("no answer within 60 s")


# 3. The server, started as the hub starts it, against a stand-in for the hub.
hub = ThreadingHTTPServer(("127.0.0.1", HUB_PORT), Hub)
Thread(target=hub.serve_forever, daemon=True).start()
environment = {
    **os.environ,
    "HANGANG_DESK_URL": f"http://127.0.0.1:{HUB_PORT}/services/desk",
    "JUPYTERHUB_API_TOKEN": TOKEN,
    "JUPYTERHUB_API_URL": f"http://127.0.0.1:{HUB_PORT}/hub/api",
    "JUPYTERHUB_ACTIVITY_URL": f"http://127.0.0.1:{HUB_PORT}/hub/api/users/smoke/activity",
    "JUPYTERHUB_BASE_URL": "/",
    "JUPYTERHUB_CLIENT_ID": "jupyterhub-user-smoke",
    "JUPYTERHUB_HOST": "",
    "JUPYTERHUB_OAUTH_ACCESS_SCOPES": json.dumps(["access:servers!server=smoke/"]),
    "JUPYTERHUB_OAUTH_CALLBACK_URL": f"{BASE}oauth_callback",
    "JUPYTERHUB_OAUTH_SCOPES": json.dumps(["access:servers!server=smoke/"]),
    "JUPYTERHUB_SERVER_NAME": "",
    "JUPYTERHUB_SERVICE_PREFIX": BASE,
    "JUPYTERHUB_SERVICE_URL": f"http://127.0.0.1:{PORT}{BASE}",
    "JUPYTERHUB_USER": "smoke",
}
# What a person leaves in their home must not keep their server from starting.
site = HOME / ".local/lib/python3.13/site-packages"
site.mkdir(parents=True)
(site / "tornado.py").write_text("raise RuntimeError('a broken package in the home')\n")
(HOME / "json.py").write_text("raise RuntimeError('a file in the home that has the name of a module')\n")
began = time.monotonic()
server = subprocess.Popen(["hangang-singleuser"], env=environment, cwd=HOME)
try:
    wait_until_it_answers(server)
    print(f"answers after {time.monotonic() - began:.1f} s")
    assert (HOME / "sample_notebooks/mobility/bike_demand.ipynb").is_file(), "no sample notebooks in the home"
    page = ask("lab")
    assert "JupyterLab" in page
    # It says how long it runs, in the lab as well.
    assert "hangang-lease" in page, "the lab does not load the extension that says how long the server runs"
    assert "remoteEntry" in ask("lab/extensions/hangang-lease/package.json")
    lease = json.loads(ask("hangang/lease?lab=ko"))
    assert (lease["mood"], lease["language"]) == ("borrowed", "ko"), lease
finally:
    # How it stops is not looked at: jupyter-server forgets a SIGTERM that comes while it writes its log.
    server.kill()
    server.wait()
    hub.shutdown()

# 4. A notebook runs to its end, with the person's kernel.
shutil.rmtree(HOME / ".local/lib")
(HOME / "json.py").unlink()
notebook = {
    "cells": [
        {
            "cell_type": "code",
            "source": "import pandas; print(6 * 7)",
            "metadata": {},
            "outputs": [],
            "execution_count": None,
        }
    ],
    "metadata": {"kernelspec": {"name": "python3", "display_name": "Python 3"}},
    "nbformat": 4,
    "nbformat_minor": 4,
}
(HOME / "smoke.ipynb").write_text(json.dumps(notebook))
subprocess.run(["jupyter", "execute", "--inplace", "smoke.ipynb"], cwd=HOME, check=True)
assert "42" in (HOME / "smoke.ipynb").read_text()

# 5. A person may add packages: they go to the home.
done = subprocess.run(["pip", "install", "--dry-run", "--no-index", "pandas"], text=True, capture_output=True)
assert done.returncode == 0, done.stderr
where = subprocess.run(
    ["python3", "-c", "import site, sys; print(site.ENABLE_USER_SITE, site.getusersitepackages())"],
    text=True,
    capture_output=True,
).stdout
assert where.startswith("True /home/jovyan/.local/"), where
