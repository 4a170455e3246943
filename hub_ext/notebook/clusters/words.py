"""In which language a notebook speaks, and the catalogue's speaker for it."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from hub_ext.language import DEFAULT, OF_THE_BROWSER, Language, Speaker, as_language, translator

__all__ = ["language_of", "speaker"]

_LAB_SETTINGS: Final = Path("@jupyterlab", "translation-extension", "plugin.jupyterlab-settings")
_LAB_LOCALE: Final = re.compile(r'^\s*"locale"\s*:\s*"(\w+)"', re.MULTILINE)
_LARGEST_SETTINGS: Final = 100_000


def speaker(language: str | None = None, environment: Mapping[str, str] = os.environ) -> Speaker:
    """Speaks the language that is named, else the notebook's."""
    return translator(as_language(language) or language_of(environment))


def language_of(environment: Mapping[str, str] = os.environ) -> Language:
    """`HANGANG_LANGUAGE`, else what was chosen in JupyterLab, else the browser's, else the kernel's locale, else English."""
    for found in (
        environment.get("HANGANG_LANGUAGE", ""),
        _chosen_in_lab(environment),
        environment.get(OF_THE_BROWSER, ""),
        *(environment.get(name, "") for name in ("LC_ALL", "LC_MESSAGES", "LANG")),
    ):
        language = as_language(found[:2].lower())
        if language is not None:
            return language
    return DEFAULT


def _chosen_in_lab(environment: Mapping[str, str]) -> str:
    """The locale in the settings of a person's JupyterLab: a JSON file with comments, written by the lab."""
    config = environment.get("JUPYTER_CONFIG_DIR") or Path(environment.get("HOME") or "/", ".jupyter")
    folder = environment.get("JUPYTERLAB_SETTINGS_DIR") or Path(config, "lab", "user-settings")
    try:
        with Path(folder, _LAB_SETTINGS).open(encoding="utf-8") as file:
            match = _LAB_LOCALE.search(file.read(_LARGEST_SETTINGS))
    except (OSError, UnicodeDecodeError):
        return ""
    return match[1] if match else ""
