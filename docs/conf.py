"""The site that `make docs` builds: Markdown by MyST, the look of Furo, reference pages out of the package (reference_pages.py)."""

import sys
from pathlib import Path

import unsee_dist

sys.path.insert(0, str(Path(__file__).resolve().parent))

project = "unsee_dist"
author = "the authors of unsee_dist"
release = version = unsee_dist.__version__
copyright = f"{author}, Apache-2.0"  # Furo's footer

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.doctest", "reference_pages"]
exclude_patterns = ["tasks"]
nitpicky = False
default_role = "code"  # `x` in a docstring is code, as in Markdown

myst_heading_anchors = 3
myst_links_external_new_tab = False

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True  # DEFAULT.on_damage and not what it is today's value of
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 90
add_module_names = False

# `>>>` in a page or a docstring is run, in an empty folder, by the same command.
doctest_global_setup = """
import os, tempfile
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.chdir(tempfile.mkdtemp())
"""

smartquotes = False  # --option stays two hyphens

html_theme = "furo"
html_title = f"unsee_dist {release}"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_show_sphinx = False
html_copy_source = False
html_theme_options = {
    "source_repository": "https://github.com/unsee-dist/unsee_dist/",
    "source_branch": "main",
    "source_directory": "docs/",
}
