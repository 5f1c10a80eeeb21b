"""The documentation: Sphinx, Markdown pages, notebooks by MyST-NB.

    python -m sphinx -W --keep-going -b html docs docs/_build/html

``LT_JAX_DOCS_EXECUTE=1`` runs the notebooks while building; an error in one fails the build.
"""

import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "docs/_ext")]
os.environ.setdefault("JAX_PLATFORMS", "cpu")  # modules are imported, nothing is computed

from lt_jax import __version__  # noqa: E402

project = "lt_jax"
author = "the lt_jax authors"
release = version = __version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "sphinx_design",
    "made_pages",
    "mathml",
    "scripts",
    "signatures",
]
exclude_patterns = ["_build", "_ext"]

html_theme = "furo"
html_title = f"lt_jax {release}"
html_static_path = ["_static"]
html_css_files = ["lt_jax.css"]
html_copy_source = html_show_sourcelink = html_show_copyright = False

myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 4
copybutton_exclude = ".linenos, .gp, .go"

nb_execution_mode = "force" if os.environ.get("LT_JAX_DOCS_EXECUTE") == "1" else "off"
nb_execution_in_temp = True
nb_execution_timeout = 600
nb_execution_raise_on_error = True
nb_execution_show_tb = True

default_role = "py:obj"  # `name` in a docstring links to what it names, where that has a page
autosummary_generate = False
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 88
napoleon_use_ivar = True
