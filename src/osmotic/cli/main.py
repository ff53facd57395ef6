"""``osmotic COMMAND``: finds the command, and turns errors into one sentence and an exit code (torch-free)."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence

COMMANDS = {
    "train": "train a model on your data",
    "distill": "turn a model into one that samples in a few steps",
    "adapt": "fine-tune a model on other data: LoRA, a control image, a new word, or all of it",
    "sample": "draw samples from a trained model",
    "upscale": "enlarge pictures with a model that was trained to",
    "edit": "fill in, restore or change pictures, rows and sequences with a trained model",
    "tune": "find the best solver and steps for a model under a budget of evaluations",
    "evaluate": "measure a model against data held out of its training",
    "bench": "draw quality against cost over solvers, steps and guidance",
    "report": "write one page that shows what a run is and how good it is",
    "serve": "play with a model in the browser, on this machine only",
    "info": "look at data before training, or at a run",
    "gallery": "draw the theory: figures with the numbers behind them",
    "demo": "train, sample and judge a model of handwritten digits in minutes",
}

USAGE = 2
NO_MEMORY = ("out of memory", "can't allocate memory")
TROUBLE = "Set OSMOTIC_TRACEBACK=1 to see where it happened."


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the exit code: 0 done, 2 cannot be used, 3 diverged, 4 out of memory, 130 interrupted."""
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0] in ("-h", "--help", "help"):
        print(overview())
        return 0
    if words[0] in ("-V", "--version"):
        from osmotic import __version__

        print(f"osmotic {__version__}")
        return 0
    name, rest = words[0], words[1:]
    if name not in COMMANDS:
        return complain(f"There is no command {name!r}{near(name)}; the commands are {', '.join(COMMANDS)}.")
    return guarded(name, rest)


def overview() -> str:
    """What there is."""
    width = max(map(len, COMMANDS))
    lines = [f"  osmotic {name:<{width}}  {what}" for name, what in COMMANDS.items()]
    return "\n".join(
        [
            "osmotic: diffusion models on your own pictures, tables and sequences",
            "",
            *lines,
            "",
            "osmotic COMMAND --help tells more; osmotic --version the version.",
        ]
    )


def near(word: str) -> str:
    """The command that was probably meant."""
    import difflib

    close = difflib.get_close_matches(word, COMMANDS, n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""


def guarded(name: str, words: list[str]) -> int:
    """Run a command; what a user can mend is one sentence on stderr."""
    try:
        code: int = importlib.import_module(f"osmotic.cli.{name}").main(words)
    except KeyboardInterrupt as stop:
        # Training's own says what was saved and carries a code; a bare one comes from anywhere else.
        return complain(str(stop) or "Interrupted.", getattr(stop, "exit_code", 130))
    except BrokenPipeError:
        return 0
    except Exception as error:
        if os.environ.get("OSMOTIC_TRACEBACK"):
            raise
        if any(phrase in str(error) for phrase in NO_MEMORY):
            return complain("Out of memory; use a smaller --batch-size, more --accumulate, or a smaller network.", 4)
        code = getattr(error, "exit_code", USAGE if isinstance(error, ValueError | OSError) else 1)
        if code == 1:
            text = f"This is a defect of osmotic: {type(error).__name__}: {error}. {TROUBLE}"
            return complain(text, 1)
        return complain(wording(error), code)
    return code


def wording(error: Exception) -> str:
    """An error in a sentence; the operating system's own get a file and an advice."""
    if isinstance(error, OSError) and error.strerror and error.filename:
        return f"{error.filename} cannot be used: {error.strerror}; choose another place or mend its permissions."
    return str(error)


def complain(text: str, code: int = USAGE) -> int:
    """Print a sentence to stderr and hand the code on."""
    print(f"osmotic: {text}", file=sys.stderr)
    return code
