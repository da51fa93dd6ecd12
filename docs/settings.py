"""Write docs/settings.md from the settings themselves: python docs/settings.py."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

from pydantic import BaseModel

from mmcl.config import Config, preset_names

TARGET = Path(__file__).with_suffix(".md")
HEADER = """# Settings

`mmcl train CORPUS --out RUN --config FILE --set section.key=value`. Later sources win: the
defaults below (those of `calibrated`), `released`'s own, the preset or file, then each `--set`. A
TOML file has the sections below as tables; `[released.learning]` or `[calibrated.model]` count for
that variant only, `[baselines.learning]` for every baseline. Presets: {presets};
without `--config` the one named like the corpus is used. Every run keeps its whole
configuration in `run.json`.

This page is written by `python docs/settings.py`.
"""


def described(section: type[BaseModel]) -> dict[str, str]:
    """What the section's docstring says of each key, on one line."""
    text = inspect.getdoc(section) or ""
    attributes = text.split("Attributes:\n", 1)[1]
    found = re.findall(r"^    (\w+): (.*?)(?=^    \w+: |\Z)", attributes, re.M | re.S)
    return {key: " ".join(said.split()).replace("``", "`") for key, said in found}


def page() -> str:
    """The whole page."""
    parts = [HEADER.format(presets=", ".join(preset_names()))]
    for name, field in Config.model_fields.items():
        section = field.annotation
        if not (isinstance(section, type) and issubclass(section, BaseModel)):
            raise TypeError(f"{name} is not a section")
        said = described(section)
        parts.append(f"## {name}\n\n| key | default | |\n|---|---|---|")
        for key, value in section().model_dump(mode="json").items():
            parts.append(f"| `{name}.{key}` | `{value}` | {said[key].replace('|', '/')} |")
        parts.append("")
    return "\n".join(parts)


if __name__ == "__main__":
    TARGET.write_text(page())
