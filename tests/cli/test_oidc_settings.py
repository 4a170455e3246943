"""The settings of an identity provider."""

from __future__ import annotations

from pathlib import Path

import pytest

from hub_ext.core.errors import BadInput, FaultyDocument
from hub_ext.settings import OidcSettings, load_settings

TEXT = "oidc:\n  issuer: https://id.example/realms/city\n  client_id: hub\n"


def oidc(folder: Path, text: str = TEXT, environment: dict[str, str] | None = None) -> OidcSettings:
    path = folder / "hub.yaml"
    path.write_text(text)
    found = load_settings(path, environment or {}).oidc
    assert found is not None
    return found


def test_without_them_the_demo_signs_people_in(tmp_path: Path) -> None:
    (tmp_path / "hub.yaml").write_text("port: 8000\n")
    assert load_settings(tmp_path / "hub.yaml", {"HUB_OIDC_CLIENT_SECRET": "x"}).oidc is None


def test_what_is_not_said(tmp_path: Path) -> None:
    found = oidc(tmp_path)
    assert (found.refresh, found.grace, found.claims_from, found.scopes) == (300, 3600, "userinfo", [])


def test_the_secret_comes_from_the_environment_the_file_or_a_file_of_its_own(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="give HUB_OIDC_CLIENT_SECRET, or name a file"):
        oidc(tmp_path).secret(tmp_path)
    written = TEXT + "  client_secret: written\n"
    assert oidc(tmp_path, written).secret(tmp_path) == "written"
    assert oidc(tmp_path, written, {"HUB_OIDC_CLIENT_SECRET": "given"}).secret(tmp_path) == "given"
    kept = TEXT + "  client_secret_file: secrets/oidc\n"
    with pytest.raises(BadInput, match="cannot be read from"):
        oidc(tmp_path, kept).secret(tmp_path)
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "oidc").write_text("\n")
    with pytest.raises(BadInput, match="is empty"):
        oidc(tmp_path, kept).secret(tmp_path)
    (tmp_path / "secrets" / "oidc").write_text("kept\n")
    assert oidc(tmp_path, kept).secret(tmp_path) == "kept"


def test_the_secret_is_shown_nowhere(tmp_path: Path) -> None:
    assert "hush" not in repr(oidc(tmp_path, TEXT, {"HUB_OIDC_CLIENT_SECRET": "hush"}))


@pytest.mark.parametrize(
    ("text", "want_line", "want"),
    [
        pytest.param(TEXT.replace("https:", "http:"), 1, "is not encrypted. Use https, or for a trial", id="an open connection"),
        pytest.param(TEXT.replace("https://", ""), 2, "is no address. Write for example https://", id="no address"),
        pytest.param(TEXT.replace("  client_id: hub\n", ""), 1, "oidc.client_id is missing", id="no client"),
        pytest.param(TEXT + "  refresh: 300\n", 4, "300' is not a duration. Write for example 90s", id="a number without its unit"),
        pytest.param(TEXT + "  refresh: 0s\n", 4, "greater than or equal to 1", id="never"),
        pytest.param(TEXT + "  claims_from: token\n", 4, "userinfo", id="claims from elsewhere"),
        pytest.param(TEXT + "  titel: {en: x}\n", 4, "Did you mean 'title'?", id="a misspelt setting"),
    ],
)  # fmt: skip
def test_a_fault_is_named_with_its_line(tmp_path: Path, text: str, want_line: int, want: str) -> None:
    with pytest.raises(FaultyDocument) as caught:
        oidc(tmp_path, text)
    (fault,) = caught.value.faults
    assert fault.line == want_line
    assert want in str(fault)
