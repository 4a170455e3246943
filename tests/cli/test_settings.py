"""Settings: a file, the environment over it, and the secrets that are made once."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from hub_ext import settings as settings_module
from hub_ext.core.errors import BadInput, FaultyDocument
from hub_ext.factory import pod_rules
from hub_ext.settings import KubernetesSettings, Settings, load_secrets, load_settings, new_secrets
from tests.support.builders import a_policy


def written(folder: Path, text: str) -> Path:
    path = folder / "hub.yaml"
    path.write_text(text)
    return path


# -- where a setting comes from -----------------------------------------------------------------------------------------

PRECEDENCE: dict[str, tuple[str, dict[str, str], dict[str, Any]]] = {
    "nothing given: the defaults": ("", {}, {"port": 8000, "log_level": "INFO", "demo_password": None}),
    "only comments": ("# nothing yet\n", {}, {"port": 8000}),
    "the file over the defaults": ("port: 8010\nlog_level: DEBUG", {}, {"port": 8010, "log_level": "DEBUG"}),
    "the environment over the file": (
        "port: 8010\nlog_level: DEBUG",
        {"HUB_PORT": "8020"},
        {"port": 8020, "log_level": "DEBUG"},
    ),
    "each of them from the environment": (
        "",
        {
            "HUB_DEMO_PASSWORD": "a long password",
            "HUB_DATABASE_URL": "postgresql://hub@db/hub",
            "HUB_LOG_LEVEL": "DEBUG",
        },
        {"demo_password": "a long password", "database_url": "postgresql://hub@db/hub", "log_level": "DEBUG"},
    ),
    "an empty variable is none": ("port: 8010", {"HUB_PORT": "", "HUB_STATE": ""}, {"port": 8010}),
    "variables of others are not ours": ("port: 8010", {"PORT": "1", "HUB_PORTS": "2"}, {"port": 8010}),
}


@pytest.mark.parametrize(("text", "environment", "want"), PRECEDENCE.values(), ids=PRECEDENCE.keys())
def test_precedence(tmp_path: Path, text: str, environment: dict[str, str], want: dict[str, Any]) -> None:
    settings = load_settings(written(tmp_path, text), environment)
    assert {name: getattr(settings, name) for name in want} == want


def test_paths_are_relative_to_the_folder_of_the_file_wherever_the_command_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = written(tmp_path, "state: here\npolicy: my/pools.yaml\nsample_notebooks: books")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    settings = load_settings(None, {"HUB_SETTINGS": str(file)})
    assert settings.state_dir == tmp_path / "here"
    assert settings.policy_file == tmp_path / "my/pools.yaml"
    assert settings.profiles_dir == tmp_path / "spawner_profiles"
    assert settings.samples_dir == tmp_path / "books"
    assert settings.homes_dir == tmp_path / "here/homes"
    assert settings.ledger_url == f"sqlite:///{tmp_path / 'here/ledger.sqlite'}"
    assert load_settings(file, {"HUB_STATE": str(elsewhere)}).state_dir == elsewhere
    assert load_settings(file, {"HUB_STATE": "other"}).state_dir == tmp_path / "other"


def test_a_folder_of_data_named_by_the_environment_is_relative_to_where_the_command_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    file = written(tmp_path, "data: city")
    assert load_settings(file, {}).data == Path("city")
    assert load_settings(file, {"HANGANG_DATA": "mine"}).data == tmp_path / "mine"


def test_a_file_named_on_the_command_counts_more_than_one_named_by_the_environment(tmp_path: Path) -> None:
    file = written(tmp_path, "port: 8010")
    assert load_settings(file, {"HUB_SETTINGS": str(tmp_path / "another.yaml")}).port == 8010


def test_the_default_file_may_be_missing_and_one_that_was_named_may_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mistyped name would else start an empty hub beside the one that was meant."""
    monkeypatch.chdir(tmp_path)
    assert load_settings(None, {}).state_dir == tmp_path / ".hub"
    assert load_settings(None, {"HUB_SETTINGS": ""}).port == 8000
    with pytest.raises(FaultyDocument, match=r"hubb\.yaml:1: the file cannot be read"):
        load_settings(None, {"HUB_SETTINGS": "hubb.yaml"})


def test_what_is_simulated_shows(tmp_path: Path) -> None:
    for text, want in (
        ("", False),
        ("simulated_gpus: {h200: 0}", False),
        ("simulated_gpus: {h200: 1}", True),
    ):
        assert load_settings(written(tmp_path, text), {}).simulated is want
    assert load_settings(written(tmp_path, "simulated_node: {gpu.h200: 8}"), {}).simulated


# -- faults ---------------------------------------------------------------------------------------------------------------------

FAULTS = {
    "a misspelt name": (
        "port: 8000\nstat: .hub",
        r"hub\.yaml:2: stat is not a known setting\. Did you mean 'state'\?",
    ),
    "a port that is none": ("\nport: 99999", r"hub\.yaml:2: port: .*65535"),
    "a port in words": ("port: eighty", r"hub\.yaml:1: port: "),
    "a state that is a list": ("state: [a]", r"hub\.yaml:1: state: "),
    "GPUs below none": ("simulated_gpus:\n  h200: -1", r"hub\.yaml:2: simulated_gpus\.h200: "),
    "a list": ("- port: 8000", r"hub\.yaml:1: "),
    "a text": ("port", r"hub\.yaml:1: "),
    "no YAML": ("port: [", r"hub\.yaml:\d: this is not YAML"),
    "a name twice": ("port: 8000\nport: 8001", r"hub\.yaml:2: 'port' stands here twice"),
    "where the file itself lies": ("root: elsewhere", r"hub\.yaml:1: root is always the folder of this file"),
}


@pytest.mark.parametrize(("text", "said"), FAULTS.values(), ids=FAULTS.keys())
def test_a_fault_in_the_file_is_named_with_its_line(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(FaultyDocument, match=said):
        load_settings(written(tmp_path, text), {"HUB_PORT": "8000", "HUB_STATE": "s"})


def test_every_fault_of_the_file_is_named_at_once(tmp_path: Path) -> None:
    with pytest.raises(FaultyDocument) as caught:
        load_settings(written(tmp_path, "port: 0\nstat: .hub\nlog_level: 7"), {})
    assert sorted(fault.line for fault in caught.value.faults) == [1, 2, 3]


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        pytest.param({"HUB_PORT": "eighty"}, "HUB_PORT: .*integer", id="a port in words"),
        pytest.param({"HUB_PORT": "0"}, "HUB_PORT: ", id="a port that is none"),
        pytest.param(
            {"HUB_PORT": "-1", "HUB_DEMO_PASSWORD": "hunter2 hunter2"}, "HUB_PORT: ", id="beside a password"
        ),
    ],
)
def test_a_fault_in_the_environment_is_one_sentence_that_names_the_variable(
    tmp_path: Path, environment: dict[str, str], said: str
) -> None:
    with pytest.raises(BadInput, match=said) as caught:
        load_settings(written(tmp_path, ""), environment)
    text = str(caught.value)
    assert "\n" not in text
    assert "http" not in text
    assert "hunter2" not in text


# -- secrets -----------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return load_settings(written(tmp_path, "state: a/state"), {})


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_secrets_are_made_once_and_readable_by_nobody_else(settings: Settings) -> None:
    old = os.umask(0)
    try:
        first = load_secrets(settings)
    finally:
        os.umask(old)
    assert load_secrets(settings) == first
    assert (mode(settings.state_dir), mode(settings.state_dir / "secrets.json")) == (0o700, 0o600)
    assert [path.name for path in settings.state_dir.iterdir()] == ["secrets.json"]
    assert len(first.cookie_secret) == 32
    assert len({first.proxy_token, first.clock_token, first.desk_token}) == 3
    assert len(first.demo_password) >= 8
    ports = [getattr(first, one.name) for one in fields(first) if one.name.endswith("_port")]
    assert len(set(ports)) == len(ports) == 6


def test_secrets_of_an_earlier_version_get_what_is_new_and_keep_the_rest(settings: Settings) -> None:
    first = load_secrets(settings)
    path = settings.state_dir / "secrets.json"
    added = {name: "" if name.endswith("_token") else 0 for name in settings_module.ADDED_LATER}
    kept = {name: value for name, value in json.loads(path.read_text()).items() if name not in added}
    path.write_text(json.dumps(kept))
    again = load_secrets(settings)
    assert 0 < again.desk_port < 65536
    assert len(again.dask_proxy_token) == 64
    assert replace(again, **added) == replace(first, **added)
    ports = [getattr(again, one.name) for one in fields(again) if one.name.endswith("_port")]
    assert len(set(ports)) == len(ports), "no port twice, whichever was chosen when"
    assert load_secrets(settings) == again, "once for all"
    assert mode(path) == 0o600
    assert [one.name for one in settings.state_dir.iterdir()] == ["secrets.json"]


def test_a_secrets_file_of_a_cluster_needs_no_port_of_one_machine(tmp_path: Path, settings: Settings) -> None:
    made = {name: value for name, value in new_secrets().items() if name != "desk_port"}
    (tmp_path / "given.json").write_text(json.dumps(made))
    given = settings.model_copy(update={"root": tmp_path, "secrets_file": Path("given.json")})
    assert load_secrets(given).desk_port == 0


def test_a_state_folder_that_others_could_read_is_closed(settings: Settings) -> None:
    settings.state_dir.mkdir(parents=True)
    settings.state_dir.chmod(0o755)
    load_secrets(settings)
    assert mode(settings.state_dir) == 0o700


def test_two_hubs_have_different_secrets(tmp_path: Path, settings: Settings) -> None:
    other = settings.model_copy(update={"state": Path("other")})
    first, second = load_secrets(settings), load_secrets(other)
    assert first.cookie_secret != second.cookie_secret
    assert first.proxy_token != second.proxy_token


def test_a_password_that_is_given_counts_and_is_not_kept(settings: Settings) -> None:
    made = load_secrets(settings)
    given = settings.model_copy(update={"demo_password": "a long password"})
    assert load_secrets(given).demo_password == "a long password"
    assert load_secrets(settings) == made


@pytest.mark.parametrize("password", ["hunter2", "한강의"])
def test_a_short_password_is_refused(settings: Settings, password: str) -> None:
    with pytest.raises(BadInput, match="too short: give HUB_DEMO_PASSWORD at least 8 characters") as caught:
        load_secrets(settings.model_copy(update={"demo_password": password}))
    assert password not in str(caught.value)


def test_of_two_that_make_secrets_at_once_the_first_ones_count(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    link, others = os.link, []

    def link_after_another(source: str, target: Path) -> None:
        monkeypatch.setattr(settings_module.os, "link", link)
        others.append(load_secrets(settings))
        link(source, target)

    monkeypatch.setattr(settings_module.os, "link", link_after_another)
    assert [load_secrets(settings)] == others
    assert [path.name for path in settings.state_dir.iterdir()] == ["secrets.json"]


def test_processes_that_start_together_get_the_same_secrets(tmp_path: Path) -> None:
    written(tmp_path, "state: state")
    script = (
        "import sys, hub_ext.settings as s; settings = s.load_settings();"
        "print('ready', flush=True); sys.stdin.readline();"
        "print(s.load_secrets(settings))"
    )
    environment = {"PATH": os.environ["PATH"], "HUB_SETTINGS": str(tmp_path / "hub.yaml")}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", script],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[2],
        )
        for _ in range(3)
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    said = {process.communicate(timeout=30)[0] for process in processes}
    assert len(said) == 1
    assert "cookie_secret" in said.pop()


def changed(**values: object) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        kept = json.loads(path.read_text()) | values
        path.write_text(json.dumps({name: value for name, value in kept.items() if value is not ...}))

    return change


def a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


BROKEN: dict[str, Callable[[Path], object]] = {
    "empty": lambda path: path.write_text(""),
    "half written": lambda path: path.write_text(path.read_text()[:40]),
    "no text": lambda path: path.write_bytes(b"\xff\xfe"),
    "a list": lambda path: path.write_text("[]"),
    "null": lambda path: path.write_text("null"),
    "a folder": a_folder,
    "without a token": changed(proxy_token=...),
    "with something nobody knows": changed(extra="1"),
    "with a secret that is no number": changed(cookie_secret="not hex"),
    "with a port that is a text": changed(hub_port="8081"),
    "with a token that is a number": changed(proxy_token=7),
    "without a password": changed(demo_password=...),
}


@pytest.mark.parametrize("harm", BROKEN.values(), ids=BROKEN.keys())
def test_secrets_that_cannot_be_read_are_told_with_what_to_do(
    settings: Settings, harm: Callable[[Path], object]
) -> None:
    load_secrets(settings)
    path = settings.state_dir / "secrets.json"
    harm(path)
    with pytest.raises(BadInput, match="cannot be read; move it away and a new one is made") as caught:
        load_secrets(settings)
    assert str(path) in str(caught.value)
    path.rename(path.with_name("moved"))
    load_secrets(settings)


def test_a_state_folder_that_cannot_be_made_is_told(settings: Settings) -> None:
    (settings.root / "a").write_text("a file in its place")
    with pytest.raises(BadInput, match=r"The state folder .*/a/state cannot be used \(.+\); give HUB_STATE"):
        load_secrets(settings)


def test_on_kubernetes_hub_and_clock_need_a_database_that_both_reach(tmp_path: Path) -> None:
    file = tmp_path / "hub.yaml"
    file.write_text("run_on: kubernetes\ndatabase_url: mysql://somewhere/hub\n")
    with pytest.raises(FaultyDocument, match="need a database that both reach"):
        load_settings(file, {})


def test_two_gpu_classes_of_one_kubernetes_resource_are_refused_in_a_cluster() -> None:
    policy = a_policy({"univ": {}}, classes={"h100": "1", "h200": "1"})
    same = {name: replace(gpu, resource="nvidia.com/gpu") for name, gpu in policy.gpu_classes.items()}
    with pytest.raises(BadInput, match=r"Two GPU classes .* nvidia\.com/gpu"):
        pod_rules(KubernetesSettings(), replace(policy, gpu_classes=same))
