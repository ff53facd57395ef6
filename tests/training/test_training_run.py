"""Run directories and options: what is refused, what survives, what needs no torch."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from osmotic.training.errors import RunError, SaveFailed
from osmotic.training.options import Options
from osmotic.training.run import Run, write_json


def make(directory: Path) -> Run:
    return Run.create(directory, {"name": "é", "steps": 3}, {"kind": "vectors", "shape": [2]})


def test_a_run_gives_back_what_was_stored(tmp_path: Path) -> None:
    make(tmp_path / "a" / "run")
    run = Run.open(tmp_path / "a" / "run")
    assert run.recipe() == {"name": "é", "steps": 3}
    assert run.data() == {"kind": "vectors", "shape": [2]}
    assert run.metrics() == []
    assert run.folders() == []


def test_an_empty_directory_may_become_a_run(tmp_path: Path) -> None:
    make(tmp_path)
    assert Run.open(tmp_path).recipe()["steps"] == 3


def test_a_creation_that_was_killed_may_be_repeated(tmp_path: Path) -> None:
    (tmp_path / "data.json").write_text("{}")
    (tmp_path / ".tmp-recipe.json").write_text('{"nam')
    assert make(tmp_path).data()["kind"] == "vectors"


def test_what_is_there_is_never_overwritten(tmp_path: Path) -> None:
    make(tmp_path / "run")
    with pytest.raises(RunError, match="--resume"):
        make(tmp_path / "run")
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.png").write_bytes(b"cat")
    with pytest.raises(RunError, match="not empty"):
        make(tmp_path / "photos")
    assert [p.name for p in (tmp_path / "photos").iterdir()] == ["cat.png"]
    with pytest.raises(RunError, match="is a file"):
        make(tmp_path / "photos" / "cat.png")
    with pytest.raises(RunError, match="cannot be made"):
        make(tmp_path / "photos" / "cat.png" / "run")


def test_what_is_no_run_is_named(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="does not exist"):
        Run.open(tmp_path / "nowhere")
    with pytest.raises(RunError, match=r"no recipe\.json"):
        Run.open(tmp_path)
    (tmp_path / "recipe.json").write_text("{}")
    with pytest.raises(RunError, match=r"no data\.json"):
        Run.open(tmp_path)


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"\xff\xfe", b"[" * 100_000, b'"' + b"a" * 10])
def test_broken_json_is_one_sentence(tmp_path: Path, content: bytes) -> None:
    run = make(tmp_path)
    run.recipe_path.write_bytes(content)
    with pytest.raises(RunError, match=r"recipe\.json"):
        run.recipe()


def test_a_failed_write_leaves_the_old_content_and_no_litter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make(tmp_path)

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(SaveFailed, match="No space left"):
        write_json(run.recipe_path, {"new": 1})
    assert run.recipe()["steps"] == 3
    assert sorted(p.name for p in tmp_path.iterdir()) == ["data.json", "recipe.json"]


def test_json_refuses_what_json_cannot_say(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "x.json", {"loss": float("nan")})
    assert list(tmp_path.iterdir()) == []


def test_an_unfinished_last_line_of_the_log_is_left_out(tmp_path: Path) -> None:
    run = make(tmp_path)
    run.metrics_path.write_text('{"step": 1}\n{"step": 2}\n{"step"')
    assert run.metrics() == [{"step": 1}, {"step": 2}]


def test_one_writer_at_a_time_and_leftovers_are_swept(tmp_path: Path) -> None:
    run = make(tmp_path)
    litter = run.checkpoints / ".tmp-step-00000005"
    litter.mkdir(parents=True)
    (litter / "model.safetensors").write_bytes(b"half")
    program = (
        "import sys; from osmotic.training.run import Run\n"
        "try:\n    with Run.open(sys.argv[1]).locked(): print('mine')\n"
        "except ValueError as error: print(error)"
    )

    def other() -> str:
        return subprocess.run([sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True).stdout

    with run.locked():
        assert not litter.exists()
        assert "in use by another process" in other()
    assert other() == "mine\n"


@pytest.mark.parametrize(
    "change",
    [
        {"steps": -1}, {"batch_size": 0}, {"batch_size": True}, {"batch_size": 2.5}, {"learning_rate": 0},
        {"accumulate": 0},
        {"learning_rate": float("nan")}, {"learning_rate": float("inf")}, {"floor": 1.1}, {"clip": -1}, {"ema": (0,)},
        {"ema": (5, 5)}, {"ema_ramp": 0}, {"precision": "float64"}, {"keep_last": 0}, {"seed": -1}, {"seed": 2**63},
        {"stepz": 3}, {"log_every": 0}, {"max_skips": -1}, {"workers": -1},
    ],
)  # fmt: skip
def test_bad_options_are_refused_by_name(change: dict[str, object]) -> None:
    with pytest.raises(ValidationError) as caught:
        Options.model_validate(change)
    assert next(iter(change)) in str(caught.value)


@given(
    st.integers(1, 10**9), st.floats(1e-8, 10), st.lists(st.floats(1e-3, 1e6), unique=True, max_size=4), st.booleans()
)
def test_options_survive_json(steps: int, rate: float, ema: list[float], compiled: bool) -> None:
    options = Options(steps=steps, learning_rate=rate, ema=tuple(ema), compile=compiled)
    assert Options.model_validate(json.loads(options.model_dump_json())) == options


def test_every_option_describes_itself() -> None:
    assert all(field.description for field in Options.model_fields.values())


def test_looking_at_a_run_does_not_import_torch(tmp_path: Path) -> None:
    make(tmp_path)
    program = (
        "import sys; from osmotic.training import errors, manifest, options, run\n"
        "found = run.Run.open(sys.argv[1]); found.recipe(); found.complete(); found.metrics()\n"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program, str(tmp_path)]).returncode == 0
