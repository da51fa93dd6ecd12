"""Docstrings for the site: a griffe extension that mkdocs.yml names.

It turns the roles of our docstrings into links, and warns, which fails the build, where a public
name has no docstring.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from functools import partial

import griffe

__all__ = ["SiteDocstrings"]

LOG = logging.getLogger("mkdocs.docstrings")
ROLE = re.compile(r":(?:attr|class|data|func|meth|mod):`(~?)([\w.]+)`")


class SiteDocstrings(griffe.Extension):
    """Rewrite every docstring of a package for Markdown."""

    def on_package(self, *, pkg: griffe.Module, **kwargs: object) -> None:
        """Rewrite the docstrings of all modules, once all are loaded."""
        for owner in _objects(pkg):
            _warn_of_undocumented(owner)
            if owner.docstring is not None:
                text = re.sub(r"^( *)Example:$", r"\1Examples:", owner.docstring.value, flags=re.M)
                text = re.sub(r"::\n", ":\n", text)
                owner.docstring.value = ROLE.sub(partial(_link, owner), text)


def _objects(owner: griffe.Object) -> Iterator[griffe.Object]:
    """Yield an object and all that are defined in it."""
    yield owner
    for member in owner.members.values():
        if isinstance(member, griffe.Object):
            yield from _objects(member)


def _warn_of_undocumented(owner: griffe.Object) -> None:
    """Warn where a name of ``__all__`` has no docstring; the commands have a page of their own."""
    if owner.path.startswith("mmcl.cli"):
        return
    for name in getattr(owner, "exports", None) or ():
        member = owner.members.get(str(name))
        if isinstance(member, griffe.Object) and not member.has_docstring:
            LOG.warning("%s.%s is public and has no docstring", owner.path, name)


def _link(owner: griffe.Object, role: re.Match[str]) -> str:
    """Return the link to what a role names; its plain name where the site does not show that."""
    short, name = role.groups()
    shown = name.rpartition(".")[2] if short else name
    scope: griffe.Object | griffe.Alias | None = owner
    while scope is not None:
        path = name if name.startswith("mmcl.") else f"{scope.path}.{name}"
        target = _find(owner, path)
        if target is not None:
            return f"[`{shown}`][{target.path}]" if _is_shown(target) else f"`{shown}`"
        scope = scope.parent
    if name.startswith("mmcl."):
        LOG.warning("%s refers to %s, which does not exist", owner.path, name)
    return f"`{shown}`"


def _find(owner: griffe.Object, path: str) -> griffe.Object | None:
    try:
        found = owner.package[path.removeprefix("mmcl.")] if path != "mmcl" else owner.package
        return found.final_target if isinstance(found, griffe.Alias) else found
    except (KeyError, griffe.AliasResolutionError):
        return None


def _is_shown(target: griffe.Object) -> bool:
    """Tell whether the site has a place for an object: it and all around it are public."""
    parts = target.path.split(".")
    return parts[1:2] != ["cli"] and target.has_docstring and target.is_public
