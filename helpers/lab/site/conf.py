"""How Sphinx makes the site of what `helpers.lab.website` lays out."""

from docutils import nodes
from docutils.utils.math import MathError
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.util import logging

from helpers.base import repository
from helpers.lab import docstrings, pages, reference

project = pages.home().label
html_title = project
html_theme = "sphinx_book_theme"
html_static_path = ["static"]
html_css_files = ["lab.css"]
html_js_files = [("lab.js", {"defer": "defer"})]
html_use_index = html_domain_indices = False
html_show_sphinx = html_show_copyright = False
html_show_search_summary = False  # it would fetch pages, which a browser refuses where they are files
html_context = {"default_mode": "light"}
html_theme_options = {
    "show_toc_level": 2,
    "navbar_persistent": [],
    "footer_content_items": [],
    "search_bar_text": "Search",
}
address, launchers = pages.hosted()
if address:
    html_theme_options |= {
        "repository_url": address,
        "repository_branch": repository.BRANCH,
        "use_repository_button": True,
        "launch_buttons": launchers,
    }

extensions = ["myst_nb", "sphinx.ext.autodoc"]
nb_execution_mode = "off"
nb_merge_streams = True
nb_render_image_options = {"alt": "What the code above draws"}
myst_enable_extensions = ["dollarmath"]  # as Jupyter has it
myst_dmath_allow_space = myst_dmath_allow_digits = False
# Jupyter and GitHub know none of these.
myst_disable_syntax = [
    "myst_role",
    "myst_target",
    "myst_line_comment",
    "myst_block_break",
]
myst_heading_anchors = 4
html_math_renderer = "mathml"  # MathJax would come from the network

add_module_names = False
smartquotes = False  # a quoted word is often one that is typed
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
autodoc_typehints = "none"  # the docstrings tell shapes and units as well


def setup(app):
    """What Sphinx calls once: docstrings as the lab writes them, and formulas without a script."""
    known = docstrings.objects(reference.modules())

    def as_restructured(app, what, name, thing, options, lines):
        lines[:] = docstrings.as_restructured("\n".join(lines), docstrings.names_of(thing), known)

    app.connect("autodoc-process-docstring", as_restructured)
    app.add_html_math_renderer("mathml", (_math, None), (_math, None))


def _math(translator, node):
    try:
        translator.body.append(tex2mathml(node.astext(), as_block=isinstance(node, nodes.math_block)))
    except MathError as error:
        logging.getLogger(__name__).warning("%s in the formula %s", error, node.astext(), location=node)
    raise nodes.SkipNode
