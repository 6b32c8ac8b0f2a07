"""Sphinx configuration. ``make docs`` builds offline, with warnings as errors."""

import sys
from pathlib import Path

import sklebm

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

project = "sklebm"
author = "the sklebm developers"
copyright = f"2026, {author}"
version = release = sklebm.__version__

extensions = [
    "api_reference",
    "benchmark_headlines",
    "benchmark_results",
    "gallery_figure",
    "literature_map",
    "markdown_page",
    "mathml",
    "numpydoc",
    "plain_bars",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx_gallery.gen_gallery",
]
exclude_patterns = ["_build", "_templates"]
templates_path = ["_templates"]
default_role = "code"
smartquotes = False  # "auto" is a string to be typed

# ---- references: every one must resolve, or belong to another project ------
nitpicky = True
_FOREIGN = "|".join(
    [
        "collections",
        "matplotlib",
        "numpy",
        "pandas",
        "polars",
        "scipy",
        "sklearn",
        "skorch",
        "torch",
    ]
)
nitpick_ignore_regex = [("py:.*", rf"({_FOREIGN})(\..*)?")]

# ---- API pages: numpydoc says the types, so signatures stay short ----------
autodoc_typehints = "none"
autodoc_default_options = {"member-order": "groupwise"}
autosummary_generate = True
numpydoc_show_class_members = False
numpydoc_xref_param_type = False

toc_object_entries_show_parents = "hide"

# ---- gallery ----------------------------------------------------------------
sphinx_gallery_conf = {
    "examples_dirs": "../examples",
    "gallery_dirs": "auto_examples",
    "subsection_order": [
        f"../examples/{family}"
        for family in ["linear", "mixture", "boltzmann", "outliers", "pipelines"]
    ]
    + ["*"],
    "filename_pattern": r"/plot_",
    "ignore_pattern": r"(^|/)(__init__|demo)\.py$",
    "backreferences_dir": "generated/backreferences",
    "capture_repr": ("_repr_html_",),  # the others hold addresses in memory
    "doc_module": ("sklebm",),
    "abort_on_example_error": True,
    "download_all_examples": False,
    "show_memory": False,
    "write_computation_times": False,
    "within_subsection_order": "FileNameSortKey",
}

# ---- pages ------------------------------------------------------------------
html_theme = "pydata_sphinx_theme"
html_title = "sklebm"
html_static_path = ["_static"]
html_css_files = ["sklebm.css"]
html_math_renderer = "mathml"
html_show_sourcelink = False
html_copy_source = False
html_theme_options = {
    "logo": {"text": "sklebm"},
    "header_links_before_dropdown": 5,
    "secondary_sidebar_items": ["page-toc"],
    "footer_start": ["copyright"],
    "footer_end": ["theme-version"],
    "show_nav_level": 2,
}
# Pages without a section of their own need no section navigation.
html_sidebars = {
    page: []
    for page in [
        "index",
        "install",
        "choosing_an_estimator",
        "choosing_a_detector",
        "coming_from",
        "literature_map",
        "persistence",
        "benchmarks",
        "design",
        "changelog",
        "contributing",
        "adding_a_model",
        "security",
    ]
}
