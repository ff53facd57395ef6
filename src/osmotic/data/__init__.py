"""Data: reads what users have, tells what was found, gives batches, turns samples back into the user's format.

Importing this package imports no torch and no format's library; the names below are found when they are asked for.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .dataset import Dataset, Subset, open_data, split
    from .errors import DataError
    from .spec import Spec

__all__ = ["DataError", "Dataset", "Spec", "Subset", "open_data", "split"]

_HOMES = {
    "DataError": "errors",
    "Dataset": "dataset",
    "Spec": "spec",
    "Subset": "dataset",
    "open_data": "dataset",
    "split": "dataset",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOMES[name]}", __name__), name)
