"""Pages of the site that are made when it is built: mkdocs.yml names this file.

One page of the reference for every room of ``src/mmcl``, and one for every notebook. In a checkout
the pages link to the folder of the room and to the file of the notebook; on the site these links
lead to the page made of it. A page that would load anything from elsewhere fails the build.
"""

from __future__ import annotations

import base64
import json
import logging
import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

__all__ = ["on_files", "on_page_markdown", "on_post_page"]

LOG = logging.getLogger("mkdocs.hooks.mmcl")
DOCS = Path(__file__).parent
SOURCE = DOCS.parent / "src/mmcl"
GROUND_FLOOR = "ground-floor"
FROM_ELSEWHERE = re.compile(
    r"""<(?:script|link|img|iframe|video|source)\b[^>]*\s(?:src|href|srcset|poster)=["']?(?:https?:)?//"""
    r"""|class="mermaid"""  # the theme would fetch what draws it
)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that no file in docs holds."""
    rooms = [path.parent.name for path in sorted(SOURCE.glob("*/__init__.py"))]
    for room in rooms:
        if room != "cli":  # commands.md has the commands
            files.append(_page(config, f"reference/{room}.md", _room_text(room)))
    modules = [path.stem for path in sorted(SOURCE.glob("*.py")) if "__" not in path.name]
    text = f"# The ground floor\n\nModules that every room uses.\n\n{_entries(modules)}"
    files.append(_page(config, f"reference/{GROUND_FLOOR}.md", text))
    for path in sorted((DOCS / "notebooks").glob("*.ipynb")):
        for name, content in notebook_files(path).items():
            files.append(_page(config, f"notebooks/{name}", content))
    return files


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Let links to a room's folder or a notebook lead to the page that is made of it."""
    markdown = re.sub(r"\]\(\.\./src/mmcl\)", f"](reference/{GROUND_FLOOR}.md)", markdown)
    markdown = re.sub(r"\]\(\.\./src/mmcl/(\w+)\)", r"](reference/\1.md)", markdown)
    return re.sub(r"\]\((notebooks/[\w-]+)\.ipynb\)", r"](\1.md)", markdown)


def on_post_page(output: str, page: Page, config: MkDocsConfig) -> None:
    """Warn of what a browser would load from another place."""
    for tag in FROM_ELSEWHERE.findall(output):
        LOG.warning("%s loads from elsewhere: %s", page.file.src_path, tag)


def _page(config: MkDocsConfig, name: str, content: str | bytes) -> File:
    return File.generated(config, name, content=content)


def _room_text(room: str) -> str:
    """Return the page of a room: what it is for, then its modules."""
    paths = sorted((SOURCE / room).rglob("*.py"))
    modules = [".".join(path.relative_to(SOURCE).with_suffix("").parts) for path in paths]
    entries = _entries([name for name in modules if not name.endswith("__init__")])
    return f"# mmcl.{room}\n\n::: mmcl.{room}\n    options: {{ members: false }}\n\n{entries}"


def _entries(modules: list[str]) -> str:
    return "\n".join(f"::: mmcl.{name}\n" for name in modules)


def notebook_files(path: Path) -> dict[str, str | bytes]:
    """Return a notebook as a page of Markdown, and its pictures, by file name."""
    parts: list[str] = []
    made: dict[str, str | bytes] = {}
    for cell in json.loads(path.read_text())["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(source)
            continue
        parts.append(f"```python\n{source}\n```")
        for output in cell["outputs"]:
            picture = output.get("data", {}).get("image/png")
            if picture:
                name = f"{path.stem}-{len(made) + 1}.png"
                made[name] = base64.b64decode(picture)
                parts.append(f"![What the cell above shows]({name})")
            else:
                parts.append(f"```text\n{_text(output).rstrip()}\n```")
    parts.append(f"[This notebook as a file]({path.name}){{ download }}")
    return {f"{path.stem}.md": "\n\n".join(parts) + "\n", **made}


def _text(output: dict[str, Any]) -> str:
    return "".join(output.get("text") or output["data"]["text/plain"])
