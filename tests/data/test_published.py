"""Published tables are as they were printed, and stay apart."""

import pytest

from osmotic.data.published import published

TABLES = {table.id: table for table in published()}


def cell(id: str, column: str, **where: str) -> list[str]:
    """The cells of a column in the rows that begin so."""
    table = TABLES[id]
    at = table.columns.index(column)
    names = {"group": 0, "method": 1, "NFE ↓": 2, "NFE": 2}
    return [row[at] for row in table.rows if all(row[names[k]].startswith(v) for k, v in where.items())]


@pytest.mark.parametrize(
    ("id", "rows", "columns"),
    [
        ("TAB1", 16, 4),
        ("TAB2", 14, 4),
        ("TAB3", 36, 5),
        ("TAB4", 34, 6),
        ("TAB5", 22, 6),
        ("TAB6", 2, 9),
        ("TAB7", 11, 3),
    ],
)
def test_every_row_is_there_and_whole(id, rows, columns):
    table = TABLES[id]
    assert len(table.rows) == rows
    assert len(table.columns) == len(set(table.columns)) == columns
    assert {len(row) for row in table.rows} == {columns}
    assert table.title
    assert table.source
    assert table.notes


def test_the_sizes_of_the_groups_of_few_step_models_on_large_pictures():
    groups = [row[0] for row in TABLES["TAB4"].rows]
    assert [groups.count(g) for g in dict.fromkeys(groups)] == [10, 13, 11]


def test_heuns_evaluations_are_two_a_step_less_one():
    """EDM in 18 and 40 steps: the last step, to zero noise, has no corrector."""
    (small,) = cell("TAB3", "NFE ↓", method="EDM")
    assert int(small) == 2 * 18 - 1
    large = cell("TAB4", "NFE ↓", method="EDM")
    assert [int(n) for n in large] == [2 * 40 - 1] * 3
    assert cell("TAB5", "NFE", method="EDM") == [small]


@pytest.mark.parametrize(
    ("method", "one", "other"),
    [("EDM", "2.04", "2.01"), ("DFNO", "4.12", "3.78"), ("BigGAN", "14.7", "8.51"), ("LSGM", "2.10", "2.10")],
)
def test_a_method_keeps_the_numbers_of_each_table(method, one, other):
    assert cell("TAB3", "FID ↓", method=method) == [one]
    assert cell("TAB5", "uncond FID ↓", method=method) == [other]


def test_progressive_distillation_and_ddim_have_two_numbers_each():
    assert cell("TAB3", "FID ↓", method="PD") == ["8.34", "5.58"]
    assert cell("TAB5", "uncond FID ↓", method="PD") == ["9.12", "4.51"]
    assert cell("TAB3", "FID ↓", method="DDIM")[-1] == "8.23"
    assert cell("TAB5", "uncond FID ↓", method="DDIM")[-1] == "13.36"
    assert cell("TAB3", "NFE ↓", method="LSGM") == ["147"]
    assert cell("TAB5", "NFE", method="LSGM") == ["138"]


def test_marks_and_gaps_are_kept():
    assert cell("TAB1", "NLL test ↓ (bits/dim)", method="DDPM (L)") == ["≤ 3.70*"]
    assert cell("TAB2", "IS ↑", method="NCSN (") == ["8.87 ± .12"]
    ddim, ddpm = TABLES["TAB6"].rows
    church = TABLES["TAB6"].columns.index("Church 10")
    assert (ddim[church], ddpm[church]) == ("", "51.56")
    assert cell("TAB3", "IS ↑", method="StyleGAN-XL") == [""]
    assert "X" in {row[4] for row in TABLES["TAB5"].rows}


def test_the_doubtful_is_noted_where_it_stands():
    assert any("never merge" in note for note in TABLES["TAB3"].notes)
    assert any("header of the last group" in note for note in TABLES["TAB5"].notes)
    assert any("left empty" in note for note in TABLES["TAB6"].notes)


def test_ddim_leads_ddpm_up_to_fifty_steps():
    ddim, ddpm = TABLES["TAB6"].rows
    ahead = [float(a) < float(b) for a, b in zip(ddim[1:], ddpm[1:], strict=True) if a]
    assert ahead == [True] * 6 + [False]
