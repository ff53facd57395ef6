"""Handwritten digits, 8 x 8: ``python -m osmotic.recipes.digits RUN``. The demo adds scores and pictures."""

import sys

import osmotic


def main(out: str) -> None:
    """Train with what the data suggest, and draw forty digits."""
    osmotic.train("digits", out, tell=print)
    model = osmotic.load(out)
    x = model.sample(40, cond=[i // 4 for i in range(40)], guidance=1.5)
    print(model.decode(x).shape)


if __name__ == "__main__":
    main(*sys.argv[1:])
