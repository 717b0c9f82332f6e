"""Settings of the documentation site: ``make docs`` builds it into build/docs."""

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent), str(HERE / "_ext")]

import hero_plugin  # noqa: E402  (after the path, so that it is this checkout's)

project = "hero-plugin"
author = "The hero-plugin developers"
copyright = "the hero-plugin developers, MIT licence"
version = release = hero_plugin.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "command_help", "settings_table"]
exclude_patterns = ["experiments"]

myst_heading_anchors = 3
highlight_language = "text"
smartquotes = False  # would make a dash of --flag

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_default_options = {"show-inheritance": False}
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_rtype = False
python_maximum_signature_line_length = 120
add_module_names = False

html_theme = "furo"
html_title = f"hero-plugin {version}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_theme_options = {"sidebar_hide_name": False}
