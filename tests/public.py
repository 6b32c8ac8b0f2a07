"""The public interface, as a user can import it: names, objects and their methods."""

import inspect

from sklearn.callback import FitCallback

import sklebm


def submodules():
    """The public subpackages and modules, by name."""
    found = {name: getattr(sklebm, name) for name in sklebm.__all__}
    return {name: value for name, value in found.items() if inspect.ismodule(value)}


def objects():
    """Dotted name -> object, for everything that a user can import."""
    found = {f"sklebm.{name}": getattr(sklebm, name) for name in sklebm.ESTIMATORS}
    found |= {f"sklebm.{name}": getattr(sklebm, name) for name in sklebm.FUNCTIONS}
    for module_name, module in submodules().items():
        for name in getattr(module, "__all__", []):
            if name not in sklebm.ESTIMATORS and name not in sklebm.FUNCTIONS:
                found[f"sklebm.{module_name}.{name}"] = getattr(module, name)
    return {path: value for path, value in found.items() if callable(value)}


# scikit-learn calls and documents them.
CALLBACK_HOOKS = {"setup", "teardown", "on_fit_task_begin", "on_fit_task_end"}


def methods(cls):
    """Names of the public methods that sklebm defines."""
    hooks = CALLBACK_HOOKS if issubclass(cls, FitCallback) else set()
    return [
        name
        for name, member in inspect.getmembers(cls)
        if not name.startswith("_")
        and name not in hooks
        and callable(member)
        and getattr(member, "__module__", "").startswith("sklebm")
    ]
