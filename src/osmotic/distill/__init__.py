"""Few-step methods: one file each; ``METHODS`` is their catalogue.

To add one, write its losses and its task in a file, describe it by a :class:`~osmotic.distill.base.Method` and enter it
here and in ``training/recipe.py``; the conformance tests train it with all others.
"""

from osmotic.distill import (
    consistency,
    ct,
    ctm,
    ddgan,
    dmd,
    ect,
    guided,
    ict,
    knowledge,
    meanflow,
    progressive,
    reflow,
    scm,
    shortcut,
)
from osmotic.distill.base import Method

METHODS: dict[str, Method] = {
    module.METHOD.name: module.METHOD
    for module in (
        knowledge,
        progressive,
        guided,
        consistency,
        ect,
        scm,
        ctm,
        reflow,
        dmd,
        ct,
        ict,
        meanflow,
        shortcut,
        ddgan,
    )
}

__all__ = ["METHODS", "Method"]
