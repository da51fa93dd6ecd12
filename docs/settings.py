"""Write docs/settings.md from the settings themselves: python docs/settings.py."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

from pydantic import BaseModel

from mmcl.config import Config, preset_names

TARGET = Path(__file__).with_suffix(".md")
HEADER = """# Settings

```
mmcl train CORPUS --out RUN --config FILE --set section.key=value
```

Settings come from four sources; a later one overrides an earlier one:

1. the defaults below, which are those of `calibrated`;
2. the defaults of `released`, if that model is trained;
3. the preset or TOML file that `--config` names;
4. each `--set`.

Presets: {presets}. Without `--config` the preset with the name of the
corpus is used, if there is one; for a corpus that `mmcl extract` made, the preset `video`. A TOML
file has the sections below as tables. A table such as `[released.learning]` or
`[calibrated.model]` applies to that model only, `[baselines.learning]` to all other models. The
file `run.json` in every run has all its settings.

This page is written by `python docs/settings.py`.
"""


def described(section: type[BaseModel]) -> dict[str, str]:
    """Return the description of each key, on one line, from the section's docstring."""
    text = inspect.getdoc(section) or ""
    attributes = text.split("Attributes:\n", 1)[1]
    found = re.findall(r"^    (\w+): (.*?)(?=^    \w+: |\Z)", attributes, re.M | re.S)
    return {key: " ".join(said.split()).replace("``", "`") for key, said in found}


def page() -> str:
    """Return the text of the page."""
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
