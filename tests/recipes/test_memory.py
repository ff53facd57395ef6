"""How much memory is left: what Linux and a container say, and nothing where nobody says anything."""

import torch

from osmotic.recipes import memory

CPU = torch.device("cpu")


def test_the_smaller_of_the_machine_and_the_container_counts(tmp_path, monkeypatch):
    info = tmp_path / "meminfo"
    info.write_text("MemTotal:  9000 kB\nMemFree:  100 kB\nMemAvailable:  3000 kB\nHugePages_Total:  0\n")
    monkeypatch.setattr(memory, "MEMINFO", info)
    monkeypatch.setattr(memory, "GROUP", tmp_path)
    assert memory.free(CPU) == 3000 << 10
    (tmp_path / "memory.current").write_text("500000\n")
    (tmp_path / "memory.stat").write_text("anon 300000\ninactive_file 20000\n")
    (tmp_path / "memory.max").write_text("max\n")
    assert memory.free(CPU) == 3000 << 10
    (tmp_path / "memory.max").write_text("1500000\n")
    assert memory.free(CPU) == 1_020_000
    info.unlink()
    assert memory.free(CPU) == 1_020_000
    (tmp_path / "memory.max").unlink()
    assert memory.free(CPU) is None
