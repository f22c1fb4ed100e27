"""Builds the site: ``python -m sphinx -W docs site``. Sphinx, MyST and the theme of PyData.

Of the generators it is the one that reads our typed Google-style docstrings by itself, links every name in them, and
writes an index of names that other projects can link to; all three are kept by large communities.
"""

import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]

project = "kornia_cag"
author = "the authors of kornia_cag"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinxarg.ext"]

html_theme = "pydata_sphinx_theme"
html_static_path, html_css_files = ["_static"], ["wide.css"]
html_title = "kornia_cag"
html_sidebars = {"index": [], "quickstart": [], "concepts": []}  # pages without siblings
html_show_sourcelink = False
html_show_copyright = False
html_theme_options = {
    "navigation_with_keys": False,
    "show_prev_next": True,
    "navbar_align": "left",
    "header_links_before_dropdown": 8,
    "secondary_sidebar_items": ["page-toc"],
    "show_toc_level": 2,
    "footer_start": [],
    "footer_end": [],
}

myst_heading_anchors = 3
myst_ref_domains = ["std", "py"]
toc_object_entries_show_parents = "hide"
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
python_use_unqualified_type_names = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True  # fields of a dataclass are documented by its docstring, not one by one
