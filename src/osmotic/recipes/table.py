"""A table: ``python -m osmotic.recipes.table DATA.csv LABEL RUN``; needs ``pip install 'osmotic[tables]'``."""

import sys
from pathlib import Path

import osmotic
from osmotic.data.dataset import open_data
from osmotic.data.table import to_table, write_table


def main(path: str, label: str, out: str) -> None:
    """Train on all columns with one of them as the class, and write as many rows as the table has."""
    dataset = open_data(path, label=label)
    osmotic.train(dataset, out, tell=print)
    model = osmotic.load(out)
    x = model.sample(len(dataset), dataset.labels, steps=20)
    write_table(to_table(x.cpu().numpy(), model.spec, dataset.labels), Path(out) / "samples.csv")


if __name__ == "__main__":
    main(*sys.argv[1:])
