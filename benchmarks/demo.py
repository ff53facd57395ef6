"""What `osmotic demo` costs and reaches: python benchmarks/demo.py [SEED ...]

Each seed runs in a process of its own, as a user starts it. Peak memory is the whole process's.
"""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ONE = """
import json, resource, sys, time
from pathlib import Path
from osmotic.recipes.demo import demo
start = time.perf_counter()
scores, _ = demo(Path(sys.argv[1]) / "run", int(sys.argv[2]))
total = time.perf_counter() - start
lines = [json.loads(line) for line in (Path(sys.argv[1]) / "run" / "timing.jsonl").read_text().splitlines()]
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
print(json.dumps({**vars(scores), "training": lines[-1]["seconds"], "everything": total, "peak_gib": peak}))
"""


def main(seeds: list[int]) -> None:
    """Run the demo for each seed and print one table."""
    rows = []
    for seed in seeds:
        with tempfile.TemporaryDirectory() as folder:
            done = subprocess.run([sys.executable, "-c", ONE, folder, str(seed)], capture_output=True, text=True)
            if done.returncode:
                sys.exit(done.stderr)
            rows.append({"seed": seed, **json.loads(done.stdout.splitlines()[-1])})
    names = list(rows[0])
    lines = ["| " + " | ".join(names) + " |", "|" + "---|" * len(names)]
    lines += ["| " + " | ".join(f"{r[n]:.4g}" for n in names) + " |" for r in rows]
    text = "\n".join(lines)
    print(text)
    path = Path(__file__).parent / "results" / "demo.md"
    day = time.strftime("%Y-%m-%d")
    path.write_text(f"`python benchmarks/demo.py {' '.join(map(str, seeds))}`, {day}, two cores\n\n{text}\n")


if __name__ == "__main__":
    main([int(s) for s in sys.argv[1:]] or [0, 1, 2])
