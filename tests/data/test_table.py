"""Tables: what becomes of each type of column, exact round trips, missing values, refusals that name the column."""

import csv
import datetime as dt

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet
from scipy import stats

from osmotic.data.columns import KNOTS, Categorical, Numeric, fit_categorical, fit_numeric
from osmotic.data.dataset import open_data
from osmotic.data.errors import DataError
from osmotic.data.spec import Spec
from osmotic.data.table import to_table, write_table

N = 400
RNG = np.random.default_rng(0)
DAY = dt.date(2020, 1, 1)
COLUMNS = {
    "int8": pa.array(RNG.integers(-5, 5, N), pa.int8()),
    "uint16": pa.array(RNG.integers(0, 60_000, N), pa.uint16()),
    "huge": pa.array(RNG.integers(0, 1000, N) * 10**13 + 10**17),
    "negative huge": pa.array(-(2**62) + RNG.integers(0, 1000, N)),
    "float32": pa.array(RNG.normal(size=N).astype(np.float32)),
    "float64": pa.array(RNG.lognormal(size=N) * 100),
    "whole floats": pa.array(RNG.integers(0, 9, N).astype(float)),
    "missing": pa.array([None if i % 7 == 0 else i / 3 for i in range(N)]),
    "missing integers": pa.array([None if i % 9 == 0 else 3 * i for i in range(N)], pa.int32()),
    "texts": pa.array([["a", "b", None, 'c,\n"d'][i % 4] for i in range(N)]),
    "large texts": pa.array([["a", ""][i % 2] for i in range(N)], pa.large_string()),
    "booleans": pa.array([[True, False, None][i % 3] for i in range(N)]),
    "dates": pa.array([DAY + dt.timedelta(days=int(k)) for k in RNG.integers(0, 1000, N)]),
    "nanoseconds": pa.array(RNG.integers(0, 10**6, N) * 10**9 + 16 * 10**17, pa.timestamp("ns")),
    "zoned": pa.array(RNG.integers(0, 10**6, N), pa.timestamp("us", "Europe/Berlin")),
    "clock": pa.array(RNG.integers(0, 86_399, N).astype(np.int32), pa.time32("ms")),
    "dictionary": pa.DictionaryArray.from_arrays(pa.array(np.arange(N) % 2, pa.int8()), ["y", "x"]),
    "constant": pa.array([7] * N),
    "mostly zero": pa.array(np.where(RNG.random(N) < 0.6, 0, RNG.exponential(size=N))),
    "target": pa.array([["no", "yes", "maybe"][i % 3] for i in range(N)]),
}


def same(found, expected):
    """Equal values and types; floats to 1e-6 of the column's spread."""
    assert found.type == expected.type
    if not pa.types.is_floating(expected.type):
        assert found.to_pylist() == expected.to_pylist()
        return
    a, b = (np.array([np.nan if v is None else v for v in column.to_pylist()]) for column in (found, expected))
    np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6 * np.nanstd(b))


@pytest.fixture(scope="module")
def everything(tmp_path_factory):
    path = tmp_path_factory.mktemp("tables") / "all.parquet"
    parquet.write_table(pa.table(COLUMNS), path)
    return open_data(path, label="target")


def test_every_type_comes_back_in_order(everything):
    x, labels = everything.batch(np.arange(N))
    assert everything.spec.classes == ("maybe", "no", "yes")
    table = to_table(x, Spec.model_validate_json(everything.spec.model_dump_json()), labels)
    assert table.column_names == list(COLUMNS)
    for name, column in COLUMNS.items():
        same(table[name].combine_chunks(), column)


def test_every_variable_has_comparable_variance(everything):
    x, _ = everything.batch(np.arange(N))
    edge = 0
    for column in everything.spec.encoding.columns:
        part = x[:, edge : edge + column.width].numpy()
        edge += column.width
        variance = part.var(0).sum()
        assert variance == 0 if column.name == "constant" else 0.5 < variance < 2.1, column.name
    assert edge == x.shape[1]


def test_the_label_stands_where_it_stood(tmp_path):
    parquet.write_table(pa.table({"a": [1.5, 2.5], "y": [4, 2], "b": ["u", "v"]}), tmp_path / "t.parquet")
    data = open_data(tmp_path / "t.parquet", label="y")
    assert data.spec.classes == ("2", "4")
    x, labels = data.batch(np.array([1, 0]))
    assert labels.tolist() == [0, 1]
    found = to_table(x, data.spec, labels).to_pydict()
    assert found == {"a": pytest.approx([2.5, 1.5], rel=1e-6), "y": [2, 4], "b": ["v", "u"]}
    assert list(found) == ["a", "y", "b"]
    with pytest.raises(ValueError, match="give labels exactly when"):
        to_table(x, data.spec)


def write_csv(path, rows, delimiter=","):
    with open(path, "w", newline="") as file:
        csv.writer(file, delimiter=delimiter).writerows(rows)
    return path


@pytest.mark.parametrize(("delimiter", "name"), [(",", "a.csv"), (";", "a.csv"), ("\t", "a.tsv")])
def test_csv_round_trip_through_a_file(tmp_path, delimiter, name):
    rows = [["n", "x", "kind", "when"]] + [
        [i, i * 0.5 if i % 5 else "", "ab"[i % 2], f"2020-01-{i + 1:02d}"] for i in range(20)
    ]
    data = open_data(write_csv(tmp_path / name, rows, delimiter))
    assert [column.name for column in data.spec.encoding.columns] == rows[0]
    table = to_table(data.batch(np.arange(20))[0], data.spec)
    write_table(table, tmp_path / "back.csv")
    with open(tmp_path / "back.csv", newline="") as file:
        back = list(csv.reader(file))
    assert back[0] == rows[0]
    for found, wrote in zip(back[1:], rows[1:], strict=True):
        assert [found[0], found[2], found[3]] == [str(wrote[0]), wrote[2], wrote[3]]
        assert (found[1] == "") == (wrote[1] == "")
        assert found[1] == "" or abs(float(found[1]) - wrote[1]) < 1e-5
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([name, "back.csv"])


def test_large_round_integers_are_exact(tmp_path):
    """More steps than float32 has, but all of them hundreds."""
    volumes = 100 * RNG.integers(10**4, 10**6, 5000)
    parquet.write_table(pa.table({"volume": volumes}), tmp_path / "a.parquet")
    data = open_data(tmp_path / "a.parquet")
    found = to_table(data.batch(np.arange(5000))[0], data.spec)["volume"].to_numpy()
    np.testing.assert_array_equal(found, volumes)
    noise = to_table(np.random.default_rng(1).normal(size=(1000, 1)), data.spec)["volume"].to_numpy()
    assert np.all(noise % 100 == 0)


def test_encodings_of_text(tmp_path):
    (tmp_path / "bom.csv").write_bytes("\ufeffgröße,k\n1,ä\n2,b\n".encode())
    assert [c.name for c in open_data(tmp_path / "bom.csv").spec.encoding.columns] == ["größe", "k"]
    (tmp_path / "latin.csv").write_bytes("g,k\n1,ä\n2,b\n".encode("latin-1"))
    with pytest.raises(DataError, match="column 'k' is not UTF-8 text: save the file as UTF-8"):
        open_data(tmp_path / "latin.csv")


def test_parquet_is_written_and_other_endings_refused(tmp_path):
    table = pa.table({"a": [1, 2]})
    write_table(table, tmp_path / "a.parquet")
    assert parquet.read_table(tmp_path / "a.parquet").equals(table)
    with pytest.raises(DataError, match=r"written as .csv or .parquet"):
        write_table(table, tmp_path / "a.xlsx")


def test_columns_and_categorical_are_obeyed(tmp_path):
    rows = [["code", "x", "id"]] + [[i % 3, i / 2, f"row{i}"] for i in range(90)]
    path = write_csv(tmp_path / "a.csv", rows)
    data = open_data(path, columns=["x", "code"], categorical=["code"])
    code, x = data.spec.encoding.columns
    assert isinstance(code, Categorical)
    assert code.categories == (0, 1, 2)
    assert isinstance(x, Numeric)
    assert to_table(data.batch(np.arange(3))[0], data.spec)["code"].to_pylist() == [0, 1, 2]
    assert len(open_data(path, columns=[], drop=["id"], categorical=[]).spec.encoding.columns) == 2
    assert len(open_data(path, drop=["id"]).spec.encoding.columns) == 2
    with pytest.raises(DataError, match="column 'id' has 90 different values in 90 rows, too many for categories"):
        open_data(path)


@pytest.mark.parametrize(
    ("rows", "options", "says"),
    [
        ([["age", "pay"], [1, 2]], {"label": "aeg"}, r"no column 'aeg'; did you mean 'age'\? It has: age, pay"),
        ([["age", "pay"], [1, 2]], {"columns": ["zzz"]}, r"no column 'zzz'\. It has: age, pay"),
        ([["age", "pay"], [1, 2]], {"label": "age", "columns": ["age"]}, "no columns are left"),
        ([["age", "pay"]], {}, "no rows"),
        ([["a", "a"], [1, 2]], {}, r"columns with the same name \(a\)"),
        ([["1", "2.5"], ["3", "4"]], {}, r"first line holds data \(1, 2.5\): add a line with column names"),
        ([["M", "0.5"], ["F", 0.7], ["M", 0.3]], {}, r"first line holds data \(M, 0.5\)"),
        ([["5", "u", "5"], [4, "v", 3], [2, "u", 7]], {}, "first line holds data"),
        ([["age", "pay"], [1, 2]], {"drop": ["agee"]}, "no column 'agee'; did you mean 'age'"),
        ([["age"], [1]], {"drop": ["age"]}, "no columns are left"),
        ([["age", "pay"], [1, 2]], {"drop": ["age"], "label": "age"}, "'age' is told and also dropped"),
        ([["a", "b"], [1, "inf"], [2, "3.5"], [4, "-inf"]], {}, r"column 'b' is infinite in 2 rows \(0, 2\)"),
        ([["a", "b"], [1, ""], [2, ""]], {}, "column 'b' has no values at all"),
        ([["a", "y"], [1, ""], [2, "u"]], {"label": "y"}, "label column 'y' is empty in 1 row"),
        ([["a", "y"], [1, 0.5], [2, 1.0]], {"label": "y"}, r"values that are no classes \(0.5 in row 0\)"),
        ([["a", "b"], [1, 2, 3]], {}, "not a readable table"),
        ([["a"], [1]], {"size": 8}, "'size' means nothing for a table"),
    ],
)
def test_refusals_name_the_column(tmp_path, rows, options, says):
    with pytest.raises(DataError, match=says):
        open_data(write_csv(tmp_path / "a.csv", rows), **options)


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00junk", b"PAR1junkPAR1"])
def test_broken_files(tmp_path, content):
    for name in ("a.csv", "a.parquet"):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError):
            open_data(tmp_path / name)


@pytest.mark.parametrize(
    "column",
    [pa.array([[1], [2]]), pa.array([{"x": 1}, {"x": 2}]), pa.array([b"a", b"b"]), pa.array([0, 2**63], pa.uint64())],
)
def test_columns_of_other_types_are_refused_by_name(tmp_path, column):
    parquet.write_table(pa.table({"odd": column}), tmp_path / "a.parquet")
    with pytest.raises(DataError, match=r"column 'odd' .*leave it out with drop"):
        open_data(tmp_path / "a.parquet")


FLOATS = st.floats(-1e6, 1e6, width=32)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.one_of(FLOATS, st.just(np.nan), st.just(0.0)), min_size=1, max_size=60).filter(
        lambda values: not np.all(np.isnan(values))
    )
)
def test_numeric_columns_are_monotone_and_come_back(values):
    raw = np.array(values)
    column = fit_numeric("x", raw, "double", integer=False)
    assert np.all(np.diff(column.scores) > 0)
    back = column.decode(column.encode(raw))
    np.testing.assert_array_equal(np.isnan(back), np.isnan(raw))
    present = raw[~np.isnan(raw)]
    np.testing.assert_allclose(back[~np.isnan(raw)], present, rtol=1e-5, atol=1e-5 * np.ptp(present) + 1e-30)
    order = np.argsort(present)
    assert np.all(np.diff(column.encode(present)[order, 0]) >= 0)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(-(10**5), 10**5), min_size=1, max_size=900))
def test_integer_columns_come_back_exactly(values):
    raw = np.array(values, np.float64)
    column = fit_numeric("x", raw, "int64", integer=True)
    np.testing.assert_array_equal(column.decode(column.encode(raw)), raw)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.one_of(st.none(), st.text(max_size=3)), min_size=1, max_size=60))
def test_categories_come_back_exactly(values):
    column, codes = fit_categorical("x", values, "string")
    again = type(column).model_validate_json(column.model_dump_json())
    found = again.decode(again.encode(codes.astype(np.float64)))
    assert [again.categories[int(code)] for code in found] == values


def test_types_of_categories_survive_json():
    for values in ([True, False], [1, 0], ["1", "0", "True"], [None, True]):
        column, _ = fit_categorical("x", values, "?")
        again = type(column).model_validate_json(column.model_dump_json())
        assert [(type(v), v) for v in again.categories] == [(type(v), v) for v in column.categories]


def test_scores_of_a_continuous_column_are_normal():
    raw = RNG.gamma(0.5, size=20_000)
    scores = fit_numeric("x", raw, "double", integer=False).encode(raw)[:, 0]
    # 257 knots bend the cumulative distribution by less than one knot, 1/256.
    assert stats.kstest(scores, "norm").statistic < 1 / (KNOTS - 1)
    assert abs(scores.std() - 1) < 0.02
    # The smallest of n values stands for the lowest 1/n of the normal: half of it lies below.
    np.testing.assert_allclose(
        [scores.min(), scores.max()], stats.norm.ppf([0.5 / 20_000, 1 - 0.5 / 20_000]), rtol=1e-5
    )


def test_a_frequent_value_owns_its_share_of_the_normal():
    """Of normal noise, the share that decodes to the frequent value is the share of the rows that have it."""
    raw = np.where(np.arange(10_000) < 3000, 0.0, 1 + RNG.exponential(size=10_000))
    column = fit_numeric("x", raw, "double", integer=False)
    noise = np.random.default_rng(1).normal(size=(40_000, 1))
    share = np.mean(column.decode(noise) == 0)
    assert abs(share - 0.3) < 0.01
    # Its own score is in the middle of its share by probability, not at a far end.
    assert abs(column.encode(np.zeros(1))[0, 0] - stats.norm.ppf(0.15)) < 0.02


def test_decoded_values_stay_in_the_observed_range():
    raw = RNG.normal(size=500)
    column = fit_numeric("x", raw, "double", integer=False)
    far = column.decode(np.array([[-50.0], [50.0]]))
    np.testing.assert_array_equal(far, [raw.min(), raw.max()])


def test_missing_rate_of_noise_is_that_of_the_data():
    """The coordinate that says missing is standardised, and real rows decode to exactly their state."""
    raw = np.where(RNG.random(5000) < 0.2, np.nan, 1.0 * np.arange(5000))
    column = fit_numeric("x", raw, "double", integer=False)
    flag = column.encode(raw)[:, 1]
    assert abs(flag.mean()) < 1e-6
    assert abs(flag.std() - 1) < 1e-5
    assert column.missing == np.isnan(raw).mean()
    present, missing = flag.min(), flag.max()
    middle = (present + missing) / 2
    found = column.decode(np.array([[0.0, middle - 0.01], [0.0, middle + 0.01]]))
    assert np.isnan(found).tolist() == [False, True]


def test_embedded_tables_round_trip():
    for name, rows in (("wine", 178), ("iris", 150), ("breast-cancer", 569)):
        data = open_data(name)
        assert len(data) == rows
        x, labels = data.batch(np.arange(rows))
        table = to_table(x, data.spec, labels)
        assert table.column_names[-1] == "class"
        found = np.stack([table[column].to_numpy() for column in table.column_names[:-1]], 1)
        raw = data.source.values
        np.testing.assert_allclose(found, raw, rtol=1e-6, atol=1e-6 * raw.std())


def test_samples_of_another_kind_are_no_table():
    with pytest.raises(ValueError, match="no table but vectors"):
        to_table(np.zeros((1, 2)), open_data("moons").spec)
