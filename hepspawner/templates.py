"""Templates of pages and job scripts: the admin's before ours, and ours where the admin's are broken."""

import hashlib
import traceback
from collections.abc import Sequence
from functools import cache
from logging import Logger, LoggerAdapter
from pathlib import Path
from typing import Any

from jinja2 import ChoiceLoader, Environment, FileSystemLoader, PrefixLoader, TemplateSyntaxError

Log = Logger | LoggerAdapter[Any]

_KINDS = ("*.html", "*.sh", "*.sub")


def templates_dir() -> Path:
    """Where our own templates are: in the installed package, else in the checkout."""
    installed = Path(__file__).parent / "share" / "templates"
    return installed if installed.is_dir() else Path(__file__).parents[1] / "share" / "templates"


@cache
def asset_hash() -> str:
    """Changes with our static files, so that browsers may keep them for ever."""
    static = Path(__file__).parent / "hub" / "static"
    return hashlib.sha256(b"".join(file.read_bytes() for file in sorted(static.iterdir()))).hexdigest()[:12]


class Templates:
    """Renders templates by name, pages autoescaped. An admin's template that fails is replaced by ours, and said so."""

    def __init__(self, paths: Sequence[str], log: Log):
        self._paths = [Path(path) for path in paths]
        self._log = log
        self._problems: dict[str, str] = {}
        ours = FileSystemLoader(templates_dir())
        self._ours = _environment(ours)
        # As in JupyterHub: {% extends "templates/form.html" %} is ours, to override a block of it.
        self._admins = _environment(
            ChoiceLoader([FileSystemLoader(self._paths), PrefixLoader({"templates": ours}), ours])
        )

    @property
    def problems(self) -> list[str]:
        """What is wrong with the admin's templates, as far as they were rendered: for admins."""
        return list(self._problems.values())

    def render(self, name: str, **context: Any) -> str:
        """A template as text. Raises only where ours fails too."""
        if not self._paths:
            return self._ours.get_template(name).render(context)
        try:
            text = self._admins.get_template(name).render(context)
        except Exception as error:  # whatever an admin's template does, people must get a page
            text = self._ours.get_template(name).render(context)
            problem = f"{self._place(error, name)}: {_words(error)}; hepspawner's own {name} is used instead"
            if self._problems.get(name) != problem:
                self._log.error("Template %s", problem)
            self._problems[name] = problem
            return text
        self._problems.pop(name, None)
        return text

    def check(self) -> list[str]:
        """Problems of all the admin's templates, found without rendering them. Reads files."""
        problems = []
        for path in self._paths:
            if not path.is_dir():
                problems.append(f"{path}: is not a directory")
            for file in sorted(file for kind in _KINDS for file in path.rglob(kind)):
                try:
                    self._admins.compile(file.read_text(), file.name, str(file))
                except (TemplateSyntaxError, OSError, UnicodeDecodeError) as error:
                    problems.append(f"{self._place(error, str(file))}: {_words(error)}")
        return problems

    def _place(self, error: Exception, name: str) -> str:
        """File and line of what failed: the innermost line of an admin's template."""
        if isinstance(error, TemplateSyntaxError):
            return f"{error.filename or name}:{error.lineno}"
        for frame in reversed(traceback.extract_tb(error.__traceback__)):
            if any(Path(frame.filename).is_relative_to(path) for path in self._paths):
                return f"{frame.filename}:{frame.lineno}"
        return name


def _words(error: Exception) -> str:
    # the text of a syntax error repeats file and line
    return (error.message or "" if isinstance(error, TemplateSyntaxError) else str(error)) or type(error).__name__


def _is_page(name: str | None) -> bool:
    # Job scripts are no HTML: what stands in them is quoted by who builds them.
    return name is None or name.endswith(".html")


def _environment(loader: Any) -> Environment:
    environment = Environment(loader=loader, autoescape=_is_page, trim_blocks=True, lstrip_blocks=True)
    environment.globals["asset_hash"] = asset_hash
    return environment
