"""The README's code runs as it is printed, and what it names exists."""

import re
from pathlib import Path

import pytest
from PIL import Image

import osmotic
from osmotic.recipes import stages
from osmotic.recipes import train as training
from osmotic.training.options import Options
from osmotic.training.recipe import Architecture, Recipe

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
TINY = Recipe(options=Options(steps=2, batch_size=8), architecture=Architecture(widths=(8, 8)))


@pytest.mark.parametrize("code", re.findall(r"```python\n(.*?)```", README, re.S))
def test_python_blocks_run(code, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for i in range(12):
        folder = tmp_path / "pictures" / ("cats", "dogs")[i % 2]
        folder.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (20 * i, 90, 0)).save(folder / f"{i}.png")

    def tiny(data, out, steps, tell=None):
        return training.train(data, out, TINY, tell=tell)

    monkeypatch.setattr(osmotic, "train", tiny, raising=False)
    monkeypatch.setattr(stages, "resolved", lambda teacher, method, asked: teacher)
    exec(compile(code, "README.md", "exec"), {})


def test_links_and_make_targets_exist():
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        if "://" not in target:
            assert (ROOT / target).exists(), target
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"(?:^|`)make ([a-z-]+)", README, re.M):
        assert f"\n{target}:" in makefile, target


def test_commands_and_flags_exist(capsys):
    from osmotic.cli.main import COMMANDS, main

    for command, rest in re.findall(r"^osmotic (\w+)([^\n#]*)", README, re.M):
        assert command in COMMANDS
        with pytest.raises(SystemExit):
            main([command, "--help"])
        shown = capsys.readouterr().out
        for flag in re.findall(r"--[a-z-]+", rest):
            assert flag in shown
