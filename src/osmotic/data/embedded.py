"""Data that needs no download: real sets that ship inside scikit-learn, and point clouds made with a fixed seed."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

import numpy as np

from .arrays import from_array
from .columns import Columns, Label, fit_categorical, fit_numeric
from .encoding import Array
from .shapes import captioned
from .source import Options, Stored
from .spec import Spec
from .waves import FORMS, drawn

POINTS = 10_000
SHAPES = 6000
WAVES = 6000
SEED = 0


def digits() -> Stored:
    """1,797 handwritten digits, 8 x 8 grey, values 0 to 16 (Alpaydin, Kaynak 1998; UCI, in scikit-learn)."""
    bunch = _sklearn().load_digits()
    options = Options(kind="images", value_range=(0.0, 16.0))
    return from_array(bunch.images.astype(np.uint8), options, "digits (embedded)", bunch.target)


def wine() -> Stored:
    """178 wines, 13 measurements, 3 cultivars (Aeberhard, Forina 1991; UCI, in scikit-learn)."""
    return _table("wine", _sklearn().load_wine())


def iris() -> Stored:
    """150 iris flowers, 4 measurements, 3 species (Fisher 1936, in scikit-learn)."""
    return _table("iris", _sklearn().load_iris())


def breast_cancer() -> Stored:
    """569 cell samples, 30 measurements, 2 diagnoses (Wolberg and others 1993; UCI, in scikit-learn)."""
    return _table("breast-cancer", _sklearn().load_breast_cancer())


def moons() -> Stored:
    """10,000 points on two half circles, noise 0.05, with the half circle as label."""
    x, y = _sklearn().make_moons(POINTS, noise=0.05, random_state=SEED)
    return _points("moons", x, y, ("upper", "lower"))


def circles() -> Stored:
    """10,000 points on two rings, noise 0.04, with the ring as label."""
    x, y = _sklearn().make_circles(POINTS, noise=0.04, factor=0.5, random_state=SEED)
    return _points("circles", x, y, ("outer", "inner"))


def swiss_roll() -> Stored:
    """10,000 points on a spiral in the plane, noise 0.4: the swiss roll seen along its axis."""
    x, _ = _sklearn().make_swiss_roll(POINTS, noise=0.4, random_state=SEED)
    return _points("swiss-roll", x[:, [0, 2]], None, None)


def shapes() -> Stored:
    """6,000 drawn shapes, 16 x 16, in four colours, three forms and four places, with captions that say some of it."""
    pictures, texts, _ = captioned(SHAPES, SEED)
    return from_array(pictures, Options(kind="images"), "shapes (embedded)", known={"text": texts})


def waves() -> Stored:
    """6,000 sequences of 64 values: sines, squares, sawteeth, heart beats of many frequencies, phases and heights."""
    x, labels = drawn(WAVES, SEED)
    return from_array(x, Options(kind="sequences"), "waves (embedded)", labels, tuple(FORMS))


EMBEDDED: dict[str, Callable[[], Stored]] = {
    "digits": digits,
    "moons": moons,
    "two-moons": moons,
    "circles": circles,
    "swiss-roll": swiss_roll,
    "wine": wine,
    "iris": iris,
    "breast-cancer": breast_cancer,
    "shapes": shapes,
    "waves": waves,
}


def _sklearn() -> Any:
    return import_module("sklearn.datasets")  # late: it takes a second, and most runs never need it


def _points(name: str, x: Array, y: Array | None, classes: tuple[str, ...] | None) -> Stored:
    return from_array(x, Options(), f"{name} (embedded)", y, classes)


def _table(name: str, bunch: Any) -> Stored:
    """A scikit-learn table: numeric columns, and the target as a last column named `class`."""
    raw = np.asarray(bunch.data, np.float64)
    whole = (raw == np.rint(raw)).all(0)
    columns = tuple(
        fit_numeric(str(title), raw[:, i], "int64" if whole[i] else "double", integer=bool(whole[i]))
        for i, title in enumerate(bunch.feature_names)
    )
    names = [str(bunch.target_names[i]) for i in bunch.target]
    target, labels = fit_categorical("class", names, "string")
    encoding = Columns(columns=columns, label=Label(position=len(columns), column=target))
    spec = Spec(
        kind="table",
        shape=(encoding.width,),
        classes=tuple(str(category) for category in target.categories),
        source=f"{name} (embedded)",
        count=len(raw),
        encoding=encoding,
    )
    return Stored(spec, raw, labels)
