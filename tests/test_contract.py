"""The house rules that a machine can hold: which room may open which door, and what must not need torch."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import osmotic

ROOT = Path(osmotic.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))

# Layers of the design, lowest first; a room imports only from lower layers, and from itself.
LAYERS = [
    {"levels", "noise", "condition", "contents", "disk"},
    {"brownian"},
    {"schedules"},
    {"estimate"},
    {"clocks", "ode", "divergence"},
    {"denoiser", "laws"},
    {"flow_map"},
    {"oracles", "samplers", "guidance", "objectives", "codecs", "fokker_planck"},
    {"times", "likelihood", "inversion", "dequantize", "phase", "cascade", "tiled"},
    {"inverse"},
    {"adapters", "prompts"},
    {"training"},
    {"distill"},
    {"recipes"},
    {"web"},
    {"cli"},
    {"__main__"},
]
RANK = {room: rank for rank, rooms in enumerate(LAYERS) for room in rooms}
# Leaves know nothing of diffusion; the only thing of ours they may import is named here.
LEAVES = {"nn": {"condition"}, "data": set(), "metrics": set(), "report": {"data"}}
# From this layer on, leaves may be imported.
FIRST_WITH_LEAVES = RANK["adapters"]


# The FID network's published file is a .pth: only tensors are unpickled, after its whole checksum was found right.
ONE_PICKLE = Path("metrics/features/inception.py")


def room(module: str) -> str | None:
    """The room of an absolute module name, None for other people's."""
    parts = module.split(".")
    return None if parts[0] != "osmotic" else parts[1] if len(parts) > 1 else ""


def imports(path: Path) -> set[str]:
    """The rooms that a file imports from, relative imports resolved."""
    package = ["osmotic", *path.relative_to(ROOT).parts[:-1]]
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {room(alias.name) for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, node.module or ""]).rstrip(".")
            names = [f"{module}.{alias.name}" for alias in node.names] if module == "osmotic" else [module]
            found |= {room(name) for name in names}
    return {r for r in found if r and r != "__version__"}


def own_room(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return parts[0]


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_only_go_down(path):
    here = own_room(path)
    if here == "__init__":
        return  # the package's own face names everything, lazily
    for there in imports(path) - {here}:
        if here in LEAVES:
            assert there in LEAVES[here], f"{here} is a leaf and may not import {there}"
        elif there in LEAVES:
            assert RANK[here] >= FIRST_WITH_LEAVES, f"{here} is core and may not know {there}"
        else:
            assert RANK[there] < RANK[here], f"{here} may not import {there}: it is not below"


def test_every_room_has_its_place():
    rooms = {own_room(path) for path in FILES} - {"__init__"}
    assert rooms == set(RANK) | set(LEAVES)


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_files_are_short_and_functions_fit_a_screen(path):
    text = path.read_text()
    assert len(text.splitlines()) <= 350
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            doc = ast.get_docstring(node, clean=False)
            body = node.end_lineno - node.body[0].lineno + 1 - (len(doc.splitlines()) if doc else 0)
            assert body <= 50, f"{node.name} has {body} lines"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_everything_public_is_documented(path):
    tree = ast.parse(path.read_text())
    assert ast.get_docstring(tree), "the file says in a sentence what it is for"
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            assert ast.get_docstring(node), f"{node.name} has no docstring"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_nothing_unpickles_or_seeds_the_world(path):
    """Loading never executes code, and the library leaves global random state alone."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [a.name for a in node.names] + [getattr(node, "module", None) or ""]
            assert not {"pickle", "shelve", "marshal", "dill", "cloudpickle"} & {n.split(".")[0] for n in names}
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            call = ast.unparse(node.func)
            if call == "torch.load" and path.relative_to(ROOT) == ONE_PICKLE:
                keys = {k.arg: k.value for k in node.keywords}
                assert isinstance(keys["weights_only"], ast.Constant)
                assert keys["weights_only"].value is True
                continue
            assert call not in ("torch.load", "torch.seed", "np.random.seed", "random.seed"), call
            if call in ("np.load", "numpy.load"):
                allow = [k.value for k in node.keywords if k.arg == "allow_pickle"]
                assert not allow or (isinstance(allow[0], ast.Constant) and allow[0].value is False)


def python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    "words",
    [
        ["--help"],
        ["--version"],
        ["train", "--help"],
        ["sample", "--help"],
        ["info", "--help"],
        ["evaluate", "--help"],
        ["tune", "--help"],
        ["gallery", "--help"],
        ["bench", "--help"],
        ["report", "--help"],
        ["serve", "--help"],
        ["distill", "--help"],
        ["upscale", "--help"],
    ],
)
def test_help_does_not_need_torch(words):
    code = (
        "import sys, contextlib\nfrom osmotic.cli.main import main\n"
        f"with contextlib.suppress(SystemExit): main({words!r})\n"
        "print('torch' in sys.modules)"
    )
    assert python(code).splitlines()[-1] == "False"


def test_wrong_use_does_not_need_torch(tmp_path):
    code = (
        "import sys\nfrom osmotic.cli.main import main\n"
        f"print(main(['train', 'digits', '--out', {str(tmp_path / 'run')!r}, '--batch-size', '0']))\n"
        f"print(main(['sample', {str(tmp_path)!r}]))\n"
        "print('torch' in sys.modules)"
    )
    assert python(code).splitlines()[-3:] == ["2", "2", "False"]
    assert not list(tmp_path.iterdir())


def test_torchvision_is_not_needed():
    """A wheel of it that does not match torch breaks on import; we must never pull it in."""
    found = python("import osmotic.cli.train, osmotic.recipes.train, sys; print('torchvision' in sys.modules)")
    assert found.strip() == "False"


def test_names_of_the_recipe_are_those_of_the_catalogues():
    from typing import get_args

    from osmotic.distill import METHODS
    from osmotic.estimate import TARGETS
    from osmotic.laws import LAWS
    from osmotic.objectives.weights import WEIGHTS
    from osmotic.samplers import CATALOG
    from osmotic.schedules import CATALOG as SCHEDULES
    from osmotic.times import GRIDS
    from osmotic.training import recipe
    from osmotic.training.autoencoding import AUTOENCODER
    from osmotic.training.build import CLASSIFIER, CONTRASTIVE, OBJECTIVES
    from osmotic.training.lsgm import LSGM

    others = [CLASSIFIER, AUTOENCODER, LSGM, CONTRASTIVE, *(n for n, m in METHODS.items() if not m.teacher)]
    for names, catalogue in [
        (recipe.Schedule, SCHEDULES),
        (recipe.Objective, [*OBJECTIVES, *others]),
        (recipe.Method, METHODS),
        (recipe.Target, TARGETS),
        (recipe.Law, LAWS),
        (recipe.Weight, WEIGHTS),
        (recipe.Sampler, CATALOG),
        (recipe.Grid, GRIDS),
    ]:
        assert get_args(names) == tuple(catalogue)


def test_the_command_lines_default_solver_is_the_librarys():
    from osmotic.samplers import DEFAULT
    from osmotic.training.sampling import SAMPLER

    assert SAMPLER == DEFAULT
