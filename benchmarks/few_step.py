"""Every few-step method on the digits, beside its teacher: python benchmarks/few_step.py FOLDER [METHOD ...]

Trains three teachers (seeds 0, 1, 2), distils each by every method with the method's own defaults, one process a core
with one thread each, and writes docs/few_step.md. Runs that FOLDER or benchmarks/results/few_step.json has measured
are not done again, so it may be stopped; take them out of both to measure a changed method anew.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

SEEDS = (0, 1, 2)
STEPS = (1, 2, 4, 8)
SAMPLES = 2000
DOC = Path(__file__).parent.parent / "docs" / "few_step.md"
KEPT = Path(__file__).parent / "results" / "few_step.json"


def one(folder: Path, method: str, seed: int) -> dict[str, object]:
    """Distil (or, for "teacher", train), and measure at every number of steps."""
    import torch

    torch.set_num_threads(1)
    import osmotic
    from osmotic.distill import METHODS
    from osmotic.recipes import demo
    from osmotic.recipes.distill import distill

    out, began = folder / f"{method}-{seed}", time.process_time()
    shutil.rmtree(out, ignore_errors=True)  # one that was stopped: its seconds would be lost
    if method == "teacher":
        run = osmotic.train("digits", out, demo.recipe(seed), device="cpu")
    else:
        run = distill(folder / f"teacher-{seed}", out, method, device="cpu")
    seconds = time.process_time() - began
    model = osmotic.load(run.directory, device="cpu")
    stages = [*run.directory.glob("stages/*"), run.directory]
    images = sum(osmotic.load(stage, device="cpu").step * model.recipe.options.batch_size for stage in stages)
    found = {"method": method, "seed": seed, "seconds": seconds, "images": images, "by_steps": {}}
    if method == "teacher":
        counts: tuple[int, ...] = (*STEPS, 20)
    elif model.denoiser.stops is None:
        counts = STEPS
    else:
        counts = (len(model.denoiser.stops),)
        for stage in stages[:-1]:  # earlier rounds are students with more jumps
            earlier = osmotic.load(stage, device="cpu")
            if earlier.denoiser.stops and len(earlier.denoiser.stops) in STEPS:
                found["by_steps"][len(earlier.denoiser.stops)] = judged(earlier, seed, None)
            elif earlier.denoiser.diagonal and METHODS[method].name == "reflow":
                for k in STEPS[1:]:
                    found["by_steps"][k] = judged(earlier, seed, k)
    for k in counts:
        found["by_steps"][k] = judged(model, seed, k)
    return found


def judged(model: object, seed: int, steps: int | None) -> dict[str, float]:
    """Scores of one way of sampling."""
    import numpy as np

    from osmotic.data.dataset import open_data, split
    from osmotic.metrics import accuracy_of_training_on, agreement, fit_classifier, nearest, sliced
    from osmotic.recipes.demo import HOLDOUT, everything

    training, held = (everything(part) for part in split(open_data("digits"), HOLDOUT, seed))
    labels = np.arange(SAMPLES) % 10
    student = model.recipe.student
    x = model.sample(SAMPLES, labels, sampler=None if student else "ddim", steps=steps).numpy()
    if steps == 20 and student is None:
        x = model.sample(SAMPLES, labels, steps=20).numpy()

    def copies(some: np.ndarray) -> float:
        return float(np.median(nearest(some, training[0]).distance))

    return {
        "agreement": agreement(fit_classifier(*training), x, labels),
        "learned": accuracy_of_training_on(x, labels, *held),
        "distance": sliced(x, held[0]),
        "nearest": float(copies(x) / copies(held[0])),
        "deviation": float(x.std() / training[0].std()),
    }


def everything(folder: Path, methods: list[str]) -> None:
    """All runs that are not measured yet, one a core, teachers first."""
    folder.mkdir(parents=True, exist_ok=True)
    done = {(row["method"], row["seed"]) for row in kept(folder)}
    jobs = [(m, seed) for seed in SEEDS for m in methods if (m, seed) not in done]
    taught = [("teacher", seed) for seed in SEEDS if any(seed == s for _, s in jobs)]
    for part in (taught, jobs):
        with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
            list(pool.map(lambda job: apart(folder, *job), part))


def kept(folder: Path) -> list[dict[str, object]]:
    """All that is measured, here or before, in the order of the table."""
    from osmotic.distill import METHODS

    rows = json.loads(KEPT.read_text()) if KEPT.exists() else []
    rows += [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]
    order = ["teacher", *METHODS]
    latest = {(row["method"], row["seed"]): row for row in rows if row["method"] in order}
    return [latest[key] for key in sorted(latest, key=lambda key: (order.index(key[0]), key[1]))]


def apart(folder: Path, method: str, seed: int) -> None:
    """One run in a process of its own, unless it was done."""
    path = folder / f"{method}-{seed}.json"
    if path.exists() and (folder / f"{method}-{seed}").exists():
        return
    words = [sys.executable, __file__, str(folder), "--one", method, str(seed)]
    done = subprocess.run(words, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    if done.returncode:
        print(f"{method}, seed {seed}, failed:\n{done.stderr[-2000:]}", file=sys.stderr)
        return
    found = json.loads(done.stdout.splitlines()[-1])
    path.write_text(json.dumps(found))
    first = found["by_steps"][min(found["by_steps"], key=int)]
    print(f"{method}, seed {seed}: {found['seconds']:.0f} s, agreement {first['agreement']:.2%}", flush=True)


def interval(values: list[float], scale: float = 1.0, digits: int = 1) -> str:
    """The mean over seeds, and half of its 95 % interval by Student's t."""
    from scipy.stats import t

    mean = scale * sum(values) / len(values)
    if len(values) < 2:
        return f"{mean:.{digits}f}"
    spread = math.sqrt(sum((scale * v - mean) ** 2 for v in values) / (len(values) - 1))
    return f"{mean:.{digits}f} ± {t.ppf(0.975, len(values) - 1) * spread / math.sqrt(len(values)):.{digits}f}"


def document(rows: list[dict[str, object]]) -> str:
    """docs/few_step.md."""
    methods = list(dict.fromkeys(row["method"] for row in rows))
    lines = [
        "# Few-step methods on the digits",
        "",
        f"`python benchmarks/few_step.py FOLDER`, {time.strftime('%Y-%m-%d')}, CPU, one thread a run, every method "
        "with its own defaults, over as many seeds as the last column says.",
        "",
        "Labelled 8 x 8 digits without guidance, 2,000 samples. *Agreement*: share that an SVM trained on real "
        "training digits puts in the class asked for, in %. *Learned*: accuracy on held-out real digits of a "
        "classifier trained on samples alone, in %. *Distance*: sliced Wasserstein to held-out digits, over that of "
        "the teacher in 20 evaluations. *Nearest*: median distance to the nearest training digit over that of "
        "held-out digits: below 1 is learning by heart. After ±: half of the 95 % interval over seeds (Student's t).",
        "",
        "The teacher's few steps are DDIM's, its 20 the default solver's. A row without a number of steps has no such "
        "student: knowledge, reflow's last stage and dmd know one jump; progressive's and guided's rows are rounds.",
        "",
        "| method | steps | agreement | learned | distance | nearest | training images | seconds | seeds |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    teachers = {row["seed"]: row["by_steps"]["20"]["distance"] for row in rows if row["method"] == "teacher"}
    for method in methods:
        mine = [row for row in rows if row["method"] == method]
        counts = sorted({int(k) for row in mine for k in row["by_steps"]})
        for k in counts:
            found = [(row["seed"], row["by_steps"][str(k)]) for row in mine if str(k) in row["by_steps"]]
            cells = [
                interval([s["agreement"] for _, s in found], 100),
                interval([s["learned"] for _, s in found], 100),
                interval([s["distance"] / teachers[seed] for seed, s in found], digits=2),
                interval([s["nearest"] for _, s in found], digits=2),
                f"{mine[0]['images']:,}" if k == counts[0] else "",
                interval([row["seconds"] for row in mine], digits=0) if k == counts[0] else "",
                f"{len(mine)}" if k == counts[0] else "",
            ]
            lines.append(f"| {method if k == counts[0] else ''} | {k} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def main(words: list[str]) -> None:
    """All of it, or one run."""
    folder = Path(words[0])
    if words[1:2] == ["--one"]:
        print(json.dumps(one(folder, words[2], int(words[3]))))
        return
    from osmotic.distill import METHODS

    everything(folder, words[1:] or list(METHODS))
    rows = kept(folder)
    KEPT.write_text("[\n" + ",\n".join(json.dumps(row) for row in rows) + "\n]\n")
    DOC.write_text(document(rows))
    print(DOC)


if __name__ == "__main__":
    main(sys.argv[1:])
