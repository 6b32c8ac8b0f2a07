"""What the source may not contain, how large it may grow, and who may import whom."""

import ast
import functools
import importlib
import inspect
import sys
from pathlib import Path

import pytest

import sklebm
from sklebm._shell.available import _Available
from tests.registry import ALL_NAMES, entry
from tests.subprocesses import ROOT, run_python

PACKAGE = ROOT / "sklebm"
MODULES = sorted(PACKAGE.rglob("*.py"))


@functools.cache
def tree_of(path):
    return ast.parse(path.read_text())


def over_all_modules(faults_of):
    """A test that no module has faults, and that lists those of all of them.

    One test for each property, rather than one for each module: hundreds of tests of a moment each
    take longer to hand to the workers than to run.
    """

    @functools.wraps(faults_of)
    def test():
        found = [f"{path}{fault}" for path in MODULES for fault in faults_of(path)]
        assert not found, "\n".join(found)

    del test.__wrapped__  # pytest would ask for its arguments as fixtures
    return test


# Code execution from data, other people's random numbers, and obscure failures on a GPU.
FORBIDDEN = {
    "torch.load": "unpickles",
    "torch.jit": "parses and runs code",
    "torch.package": "unpickles",
    "torch.hub": "downloads and runs code",
    "joblib.load": "unpickles",
    "pickle": "runs code on loading",
    "cPickle": "runs code on loading",
    "cloudpickle": "runs code on loading",
    "dill": "runs code on loading",
    "shelve": "unpickles",
    "marshal": "loads code",
    "eval": "runs code",
    "exec": "runs code",
    "compile": "builds code",
    "__import__": "imports by a name that may come from a file",
    "torch.bernoulli": "asserts on the GPU when a probability is NaN: compare uniforms instead",
    "torch.manual_seed": "is global: use sklebm._shell.random.make_generator",
    "torch.cuda.manual_seed": "is global",
    "torch.cuda.manual_seed_all": "is global",
    "torch.seed": "is global",
    "torch.random.manual_seed": "is global",
    "torch.set_default_dtype": "is global",
    "torch.set_default_device": "is global",
    "torch.set_num_threads": "is global",
    "torch.use_deterministic_algorithms": "is global",
    "torch.cuda.empty_cache": "stalls every user of the device",
    "numpy.random.seed": "is global",
    "numpy.random.set_state": "is global",
    "random.seed": "is global",
    "numpy.load": "may unpickle: use safetensors",
    "os.system": "runs a shell",
    "subprocess": "runs programs",
}

# Who may do it all the same: what the program has set is put back.
EXCEPT = {("_shell/surroundings.py", "torch.set_default_dtype")}

# Functions of torch and NumPy that draw: they need a generator of their own.
DRAWS = {f"torch.{name}" for name in ("rand", "randn", "randint", "randperm", "normal")} | {
    f"torch.{name}"
    for name in ("multinomial", "poisson", "bernoulli", "rand_like", "randn_like", "randint_like")
}

# Their methods, and initialisers of torch.nn.
IN_PLACE = {
    f"{name}_"
    for name in (
        *("normal", "uniform", "random", "exponential", "bernoulli", "cauchy", "geometric"),
        *("log_normal", "trunc_normal", "orthogonal", "sparse"),
        *(f"{name}_{kind}" for name in ("xavier", "kaiming") for kind in ("normal", "uniform")),
    )
}


def imported_names(tree):
    """What each local name stands for: ``np`` -> ``numpy``."""
    names = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                names[alias.asname or alias.name.split(".")[0]] = (
                    alias.name if alias.asname else alias.name.split(".")[0]
                )
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            for alias in node.names:
                names[alias.asname or alias.name] = f"{node.module}.{alias.name}"
    return names


def full_name(node, names):
    """The dotted name of an expression, with import aliases resolved."""
    if isinstance(node, ast.Attribute):
        owner = full_name(node.value, names)
        return f"{owner}.{node.attr}" if owner else ""
    return names.get(node.id, node.id) if isinstance(node, ast.Name) else ""


def used_names(tree):
    """Every dotted name that a module uses or imports, with its line."""
    names = imported_names(tree)
    for node in ast.walk(tree):
        if isinstance(node, (ast.Name, ast.Attribute)):
            yield full_name(node, names), node.lineno
        elif isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from ((f"{node.module}.{alias.name}", node.lineno) for alias in node.names)


@over_all_modules
def test_nothing_forbidden(path):
    module = path.relative_to(PACKAGE).as_posix()
    for name, line in used_names(tree_of(path)):
        parts = name.split(".")
        for forbidden in (".".join(parts[:n]) for n in range(1, len(parts) + 1)):
            if forbidden in FORBIDDEN and (module, forbidden) not in EXCEPT:
                yield f":{line}: {name} {FORBIDDEN[forbidden]}"


@over_all_modules
def test_every_draw_in_place_names_its_generator(path):
    tree = tree_of(path)
    names = imported_names(tree)
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        given = {keyword.arg: keyword.value for keyword in node.keywords}
        name = getattr(node.func, "attr", "")
        if name in IN_PLACE and "generator" not in given:
            yield f":{node.lineno}: {name} draws from the global generator"
        if full_name(node.func, names) == "numpy.random.default_rng":
            seed = node.args[0] if node.args else given.get("seed", ast.Constant(None))
            if isinstance(seed, ast.Constant) and seed.value is None:
                yield f":{node.lineno}: default_rng has no seed"


@over_all_modules
def test_every_draw_names_its_generator(path):
    tree = tree_of(path)
    names = imported_names(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and full_name(node.func, names) in DRAWS:
            given = {keyword.arg for keyword in node.keywords}
            if "generator" not in given:
                yield f":{node.lineno}: draws from the global generator"


def test_faults_are_found(tmp_path, monkeypatch):
    """Of a module that has one of each."""
    path = tmp_path / "module.py"
    text = "import torch, numpy\n\ntorch.rand(1).normal_()\ntorch.load('x').y\n"
    path.write_text(text + "numpy.random.default_rng(None)" + 400 * "\n")
    monkeypatch.setitem(globals(), "MODULES", [path])
    monkeypatch.setitem(globals(), "PACKAGE", tmp_path)
    for test, fault in (
        (test_nothing_forbidden, ":4: torch.load.y unpickles|:4: torch.load unpickles"),
        (test_every_draw_names_its_generator, ":3: draws from the global"),
        (test_every_draw_in_place_names_its_generator, "(?s):3: normal_ draws.*:5: default_rng"),
        (test_modules_can_be_read_in_one_sitting, "404 lines"),
        (test_modules_say_what_they_are, "no docstring"),
    ):
        with pytest.raises(AssertionError, match=fault):
            test()


def test_the_search_sees_through_aliases():
    tree = ast.parse("import torch as t, numpy as np\nfrom torch import load as l\nl('x')\nt.jit.x")
    names = {name for name, _ in used_names(tree)}
    assert {"torch.load", "torch.jit.x"} <= names


def docstring_lines(tree):
    """Lines of the docstrings of classes and functions."""
    owners = (ast.ClassDef, ast.FunctionDef)
    texts = [node.body[0] for node in ast.walk(tree) if isinstance(node, owners) and node.body]
    return sum(
        text.end_lineno - text.lineno + 1
        for text in texts
        if isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant)
    )


@over_all_modules
def test_modules_can_be_read_in_one_sitting(path):
    tree = tree_of(path)
    is_estimator = any(
        isinstance(node, ast.ClassDef) and node.name in ALL_NAMES for node in tree.body
    )
    n_lines, limit = len(path.read_text().splitlines()), 400
    if is_estimator:  # its methods are all named there, each with the docstring that users read
        n_lines, limit = n_lines - docstring_lines(tree), 260
    if n_lines > limit:
        yield f" has {n_lines} lines, more than {limit}: it has two ideas in it"


@over_all_modules
def test_modules_say_what_they_are(path):
    if not ast.get_docstring(tree_of(path)):
        yield " has no docstring"


# ---------------------------------------------------------------- layers

# From the bottom: a layer imports from those above it in this list, never from those below.
LAYERS = (
    ("_shell.ranks", "_checks"),
    ("energies",),
    ("inference",),
    ("objectives",),
    ("_shell",),
    ("base",),
    ("training", "gradient", "iterative", "likelihood", "composite", "summable"),
)
PURE = ("energies", "inference", "objectives")
PURE_IMPORTS = {"torch", "numpy", "numba", "scipy", "sklebm"}


def imported_modules(path):
    """Every module that a file imports, wherever in the file, with its line."""
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.ImportFrom):
            yield node.module or "", node.lineno
        elif isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)


def layer_of(module):
    """What the layers call a module: processes that compute together are below all else."""
    return module if module == "_shell.ranks" else module.split(".")[0]


@over_all_modules
def test_nothing_imports_upwards(path):
    rank = {part: level for level, parts in enumerate(LAYERS) for part in parts}
    own = layer_of(".".join(path.relative_to(PACKAGE).with_suffix("").parts))
    for module, line in imported_modules(path):
        if module.startswith("sklebm."):
            part = layer_of(module.removeprefix("sklebm."))
            if rank.get(part, len(LAYERS)) > rank.get(own, len(LAYERS)):
                yield f":{line}: {module}"


@pytest.mark.parametrize("part", [part for part in PURE if (PACKAGE / part).is_dir()])
def test_mathematics_imports_torch_only(part):
    for path in sorted((PACKAGE / part).rglob("*.py")):
        for module, line in imported_modules(path):
            top = module.split(".")[0]
            assert top in PURE_IMPORTS or top in sys.stdlib_module_names, f"{path}:{line}: {module}"


@over_all_modules
def test_private_parts_stay_private(path):
    """A part of the package uses the underscored modules of another part never."""
    own = path.relative_to(PACKAGE).parts[0]
    for module, line in imported_modules(path):
        package, part, *inner = [*module.split("."), "", ""][:3]
        if package == "sklebm" and part != own and any(name.startswith("_") for name in inner):
            yield f":{line}: {module}"


# ---------------------------------------------------------------- import


def test_importing_sklebm_is_lazy():
    """Neither skorch nor matplotlib nor any estimator is imported before it is used."""
    loaded = run_python("import sys, sklebm; print(*sys.modules, sep='\\n')").split()
    for name in ("skorch", "matplotlib", "dask", "rich", "numba", "pandas", "polars"):
        assert name not in loaded
    assert [name for name in loaded if name.startswith("sklebm.")] == []


def test_everything_public_is_importable_flat():
    names = run_python(
        "import sklebm\nfor name in sklebm.__all__: print(getattr(sklebm, name) is not None)\n"
        "from sklebm import *"
    ).split()
    assert names == ["True"] * len(sklebm.__all__)


def test_one_estimator_does_not_load_the_others():
    loaded = run_python("import sys; from sklebm import PCAWhitener; print(*sys.modules)").split()
    assert "sklebm.linear" in loaded
    assert "sklebm.mixture" not in loaded
    assert "skorch" not in loaded
    assert "matplotlib" not in loaded


@pytest.mark.parametrize("name", ALL_NAMES)
def test_estimators_live_in_the_family_that_the_table_says(name):
    family = sklebm.ESTIMATORS[name]
    module = importlib.import_module(family)
    assert name in module.__all__
    assert getattr(module, name) is getattr(sklebm, name)
    home = Path(importlib.import_module(getattr(sklebm, name).__module__).__file__)
    assert home.is_relative_to(PACKAGE / family.removeprefix("sklebm.").replace(".", "/"))


@pytest.mark.parametrize("name", ALL_NAMES)
def test_methods_that_parameters_take_away_say_why(name):
    cls = getattr(sklebm, name)
    methods = [n for n in dir(cls) if type(inspect.getattr_static(cls, n)) is _Available]
    for model in (cls(**variant) for variant in ({}, *entry(name).variants)):
        for method in [method for method in methods if not hasattr(model, method)]:
            reason = rf"^This '{name}' has no attribute '{method}': \w.+\.$"
            with pytest.raises(AttributeError, match=reason) as caught:
                getattr(model, method)
            assert caught.value.name == method


def test_unknown_names_are_attribute_errors():
    with pytest.raises(AttributeError, match="no attribute 'NoSuchModel'"):
        _ = sklebm.NoSuchModel
    with pytest.raises(AttributeError, match=r"'EnergyKmeans'; did you mean 'EnergyKMeans'\?$"):
        _ = sklebm.EnergyKmeans
    assert set(ALL_NAMES) <= set(dir(sklebm))
