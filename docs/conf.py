"""Sphinx configuration: `make docs` builds docs/_build/html and treats every warning as an error."""

import os
import re
import tomllib
from pathlib import Path

os.environ.setdefault("MUJOCO_GL", "egl")

_project = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text())["project"]
project = "mbrl_pvr"
author = "The mbrl_pvr developers"
copyright = f"2026, {author}"
release = version = _project["version"]

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.autosummary", "sphinx.ext.viewcode"]
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
templates_path = ["_templates"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = "mbrl_pvr"

autosummary_generate = True
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True, "undoc-members": True, "show-inheritance": True, "ignore-module-all": True}
autodoc_inherit_docstrings = False  # torch's own docstrings refer to labels of its site
python_maximum_signature_line_length = 100
default_role = "code"


def _escape(row):
    """What reStructuredText would read as markup outside of backticks."""
    quoted_or_not = re.split(r"(`+[^`]*`+)", row)
    return "".join(re.sub(r"([\\*|_<>])", r"\\\1", part) if part[:1] != "`" else part for part in quoted_or_not)


def _as_written(app, what, name, obj, options, lines):
    """Docstrings here are plain text with backticks: indented blocks and lists become literal, the rest is escaped."""
    paragraphs = "\n".join(lines).strip("\n").split("\n\n")
    out = []
    for paragraph in paragraphs:
        rows = paragraph.split("\n")
        if any(row.startswith((" ", "\t")) or row[:2] in ("- ", "* ") for row in rows):
            out += ["::", "", *("    " + row for row in rows), ""]
        else:
            out += [_escape(row) for row in rows] + [""]
    lines[:] = out


def setup(app):
    app.connect("autodoc-process-docstring", _as_written)
