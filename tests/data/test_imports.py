"""What `--help` and `info` import must not cost seconds: no torch, no scikit-learn, no pyarrow."""

import subprocess
import sys

import pytest
from PIL import Image

import osmotic.data

TORCH_FREE = ["counter", "spec", "scan", "read", "images", "table", "embedded", "columns", "errors"]


@pytest.mark.parametrize("heavy", ["torch", "sklearn", "pyarrow"])
def test_nothing_heavy_is_imported(heavy):
    imports = "; ".join(f"import osmotic.data.{name}" for name in TORCH_FREE)
    code = f"import sys; {imports}; assert {heavy!r} not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_package_finds_its_names_late():
    code = (
        "import sys, osmotic.data as d; assert 'torch' not in sys.modules; d.open_data; assert 'torch' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    assert all(hasattr(osmotic.data, name) for name in osmotic.data.__all__)
    assert not hasattr(osmotic.data, "no_such_name")


def test_a_folder_is_scanned_without_torch(tmp_path):
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    code = f"import sys; from osmotic.data.scan import scan; scan({str(tmp_path)!r}); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
