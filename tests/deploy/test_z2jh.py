"""The values for zero-to-jupyterhub, run as its hub runs them: the chart's own configuration, the site's, then ours.

The chart is in no package registry, so what it would have set before stands here in a few lines. What its own code needs of
the hub's image is looked at too.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from jupyterhub.auth import DummyAuthenticator
from kubespawner import KubeSpawner
from traitlets.config import Config

from hub_ext.auth.site import writing_down
from hub_ext.db.upgrade import upgrade
from hub_ext.settings import load_settings, new_secrets
from hub_ext.spawners.kube import GatedKubeSpawner
from tests.support.manifests import ROOT

FOLDER = ROOT / "deploy" / "z2jh"
SITES_URL = "postgresql+psycopg://hub@db.site/jupyterhub"


def values() -> dict[str, Any]:
    return dict(yaml.safe_load((FOLDER / "values.yaml").read_text()))


def chart_and_site(found: dict[str, Any]) -> Config:
    """What the chart has set when it comes to `hub.extraConfig`, with a site's own sign-in and service."""
    hub = found["hub"]
    c = Config()
    c.JupyterHub.spawner_class = "kubespawner.KubeSpawner"
    c.JupyterHub.concurrent_spawn_limit = hub["concurrentSpawnLimit"]
    c.JupyterHub.db_url = SITES_URL
    c.JupyterHub.hub_connect_url = "http://hub:8081"
    c.ConfigurableHTTPProxy.api_url = "http://proxy-api:8001"
    c.JupyterHub.authenticator_class = DummyAuthenticator
    c.JupyterHub.services = [{"name": "the-sites-own", "api_token": "x" * 32}]
    c.JupyterHub.load_roles = [{"name": name, **role} for name, role in hub["loadRoles"].items()]
    c.KubeSpawner.namespace = "example-jupyterhub"
    c.KubeSpawner.common_labels = {"app": "jupyterhub", "release": "site"}
    c.KubeSpawner.extra_labels = {"hub.jupyter.org/network-access-hub": "true"}
    c.KubeSpawner.volumes = {"extra": {"name": "volume-{user_server}"}}
    return c


@pytest.fixture
def mounted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """/etc/hangang as the values mount it, and an upgraded ledger. Ends with no gate on the class, as it began."""
    folder = tmp_path / "etc"
    for name, source in (("policy", "policy/pools.yaml"), ("identity", "policy/identity.yaml")):
        (folder / name).mkdir(parents=True)
        (folder / name / Path(source).name).write_text((ROOT / source).read_text())
    (folder / "spawner_profiles").mkdir()
    for profile in (ROOT / "spawner_profiles").glob("*.yaml"):
        (folder / "spawner_profiles" / profile.name).write_text(profile.read_text())
    (folder / "secrets").mkdir()
    (folder / "secrets" / "secrets.json").write_text(json.dumps(new_secrets()))
    (folder / "hub.yaml").write_text((FOLDER / "hub.yaml").read_text())
    for name in [name for name in os.environ if name.startswith("HUB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HUB_SETTINGS", str(folder / "hub.yaml"))
    monkeypatch.setenv("HUB_STATE", str(tmp_path / "state"))
    monkeypatch.setattr(GatedKubeSpawner, "gate", GatedKubeSpawner.gate)
    (tmp_path / "state").mkdir()
    upgrade(load_settings().ledger_url)
    return folder


def run_extra_config(c: Config) -> None:
    for _, code in sorted(values()["hub"]["extraConfig"].items()):
        exec(compile(code, "extraConfig", "exec"), {"c": c, "get_config": lambda: c})


def test_servers_are_gated_pods_and_what_is_the_sites_stays(mounted: Path) -> None:
    c = chart_and_site(values())
    run_extra_config(c)
    assert c.JupyterHub.spawner_class is GatedKubeSpawner
    assert GatedKubeSpawner.gate is not None
    # The site's own: sign-in, database, addresses, proxy, labels.
    assert issubclass(c.JupyterHub.authenticator_class, DummyAuthenticator)
    assert c.JupyterHub.db_url == SITES_URL
    assert c.JupyterHub.hub_connect_url == "http://hub:8081"
    assert c.ConfigurableHTTPProxy == {"api_url": "http://proxy-api:8001"}
    assert "cookie_secret" not in c.JupyterHub
    assert "template_paths" not in c.JupyterHub
    assert c.KubeSpawner.common_labels == {"app": "jupyterhub", "release": "site"}


async def test_a_spawner_takes_the_chart_s_traits_and_ours(
    mounted: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # This is no pod, which would find its cluster by its token.
    monkeypatch.setattr("kubespawner.spawner.load_config", lambda **_: None)
    c = chart_and_site(values())
    run_extra_config(c)
    spawner = GatedKubeSpawner(_mock=True, config=c)
    assert spawner.namespace == "example-jupyterhub"
    assert spawner.extra_labels == {"hub.jupyter.org/network-access-hub": "true"}
    assert spawner.image == "images.example.org/hangang/notebook-rapids:1.0"
    assert spawner.automount_service_account_token is False
    assert spawner.delete_pvc is False
    assert spawner.priority_class_name == KubeSpawner.priority_class_name.default_value
    slugs = {profile["slug"] for profile in spawner.profile_list}
    assert slugs == {path.stem for path in (ROOT / "spawner_profiles").glob("*.yaml")}


def test_the_clock_is_a_service_with_its_token_and_its_role(mounted: Path) -> None:
    c = chart_and_site(values())
    run_extra_config(c)
    token = json.loads((mounted / "secrets" / "secrets.json").read_text())["clock_token"]
    assert {service["name"]: service["api_token"] for service in c.JupyterHub.services} == {
        "the-sites-own": "x" * 32,
        "clock": token,
    }
    [role] = c.JupyterHub.load_roles
    assert role["services"] == ["clock"]


async def test_who_comes_in_by_the_sites_sign_in_is_known_to_the_quota(mounted: Path) -> None:
    from hub_ext.factory import Factory

    c = chart_and_site(values())
    run_extra_config(c)

    class Handler:
        def find_user(self, _: str) -> None:
            return None

    model = {"name": "minji", "admin": False, "groups": ["hangang-univ", "researcher", "chess"]}
    assert await c.Authenticator.post_auth_hook(None, Handler(), model) == model
    person = Factory(load_settings()).admission.person("minji")
    assert person is not None
    assert person.pools == ("hangang-univ",)
    assert person.roles == {"researcher"}
    assert writing_down.__module__ == "hub_ext.auth.site"


def test_a_fault_in_a_document_ends_the_hub_with_its_place(mounted: Path) -> None:
    (mounted / "policy" / "pools.yaml").write_text("version: 1\npools: {}\nbudget: 3\n")
    with pytest.raises(SystemExit, match=r"(?s)The hub does not start\..*pools\.yaml:3: budget is not"):
        run_extra_config(chart_and_site(values()))


def test_every_mount_has_its_volume_and_its_place_in_the_settings() -> None:
    hub = values()["hub"]
    volumes = {volume["name"] for volume in hub["extraVolumes"]}
    mounts = {mount["name"]: mount["mountPath"] for mount in hub["extraVolumeMounts"]}
    assert set(mounts) == volumes
    settings = yaml.safe_load((FOLDER / "hub.yaml").read_text())
    for key in ("policy", "identity", "profiles", "secrets_file"):
        assert f"/etc/hangang/{settings[key].split('/')[0]}" in mounts.values()
    for container in [*hub["initContainers"], *hub["extraContainers"]]:
        assert container["image"] == f"{hub['image']['name']}:{hub['image']['tag']}"
        assert container["volumeMounts"] == hub["extraVolumeMounts"]


def test_the_chart_s_service_variables_are_not_taken_for_settings(mounted: Path) -> None:
    """In the chart's pods HUB_PORT is the address of the service named `hub`, unless it is said anew."""
    hub = values()["hub"]
    given = {name: value for name, value in hub["extraEnv"].items() if isinstance(value, str)}
    environment = {"HUB_PORT": "tcp://10.0.0.5:8081", "HUB_SERVICE_HOST": "10.0.0.5"} | given
    assert load_settings(mounted / "hub.yaml", environment).port == 8000
    for container in [*hub["initContainers"], *hub["extraContainers"]]:
        assert {"name": "HUB_PORT", "value": "8000"} in container["env"]


def test_the_image_has_what_the_chart_s_own_configuration_imports() -> None:
    """Among them pycurl: the chart has tornado speak HTTP through curl, and ends where it cannot."""
    locked = (ROOT / "images" / "hub" / "requirements.txt").read_text()
    for name in ("pycurl", "kubernetes-asyncio", "pyyaml", "psycopg", "oauthenticator"):
        assert f"\n{name}==" in locked


@pytest.mark.parametrize(
    "way_in",
    ["from hub_ext.bootstrap import extend", "import hub_ext.spawners.kube"],
    ids=["by the values' code", "by the name of the class"],
)
def test_an_older_jupyterhub_is_told_in_one_sentence(tmp_path: Path, way_in: str) -> None:
    record = tmp_path / "jupyterhub-5.4.2.dist-info"
    record.mkdir()
    (record / "METADATA").write_text("Metadata-Version: 2.1\nName: jupyterhub\nVersion: 5.4.2\n")
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    done = subprocess.run([sys.executable, "-c", way_in], env=environment, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr == (
        "hub_ext needs JupyterHub 6 or newer, and this is 5.4.2: refusals would count as failures there.\n"
    )
