"""A comparison.json of made-up numbers: a seed that diverged, nulls, and a name with markup."""

import random
from statistics import mean, stdev

HOSTILE = "<script>alert(1)</script>"
DIVERGED = "the loss is nan at epoch 3, step 4"
METRICS = ("mae", "corr", "acc2_non0", "acc7")
SEEDS = [1, 2, 3]
# Mean absolute error, seconds of training and parameters of each model.
MODELS = {
    "calibrated": (0.295, 92.0, 412_000),
    "released": (0.673, 240.0, 2_300_000),
    "mult": (0.402, 310.0, 1_070_000),
    "misa": (0.398, 61.0, 890_000),
    "self_mm": (0.391, 75.0, 640_000),
    "almt": (0.384, 188.0, 2_900_000),
    "tfn": (0.481, 33.0, 5_400_000),
    "lmf": (0.472, 21.0, 310_000),
    "late_fusion": (0.395, 48.0, 350_000),
    "text_only": (0.702, 18.0, 120_000),
    HOSTILE: (0.299, 88.0, 405_000),
}
QUESTIONS = {
    "no decoupling": ("does decoupling help?", 0.08),
    "common only": ("does decoupling help?", 0.21),
    "mean for min": ("does the minimum over modalities help?", 0.004),
    "no calibration of any modality": ("does calibration help?", 0.36),
    "no alignment loss": ("does the alignment loss help?", 0.024),
    "actions from a random policy": ("do learned actions help?", 0.09),
    "DDPG in place of RLOO": ("does RLOO help?", -0.012),
}


def summary(values):
    """The dictionary of a Summary; its interval is only about right."""
    known = [value for value in values if value is not None]
    spread = stdev(known) if len(known) > 1 else None
    middle = mean(known) if known else None
    ends = [None, None] if spread is None else [middle - 2.48 * spread, middle + 2.48 * spread]
    return {
        "mean": middle,
        "std": spread,
        "low": ends[0],
        "high": ends[1],
        "values": list(values),
        "num_valid": len(known),
    }


def scores(error, chance, seeds=SEEDS, missing=()):
    """Metrics of one row, every one following from its error."""
    errors = {s: None if s in missing else error + chance.gauss(0, 0.006) for s in seeds}
    of_error = {
        "mae": lambda e: e,
        "corr": lambda e: 1 - 0.6 * e**1.5,
        "acc2_non0": lambda e: 1 - 0.28 * e,
        "f1_non0": lambda e: 1 - 0.281 * e,
        "acc7": lambda e: 0.94 - 0.72 * e,
    }
    return {
        key: summary([None if e is None else of(e) for e in errors.values()])
        for key, of in of_error.items()
    }


def row(name, error, chance, *, kind="model", question=None, missing=(), cost=None):
    """A row of the file."""
    return {
        "name": name,
        "question": question,
        "kind": kind,
        "settings": [],
        "seeds_done": len(SEEDS) - len(missing),
        "diverged": {str(seed): DIVERGED for seed in missing},
        "valid": scores(error * 0.98, chance, missing=missing),
        "test": scores(error, chance, missing=missing),
        "cost": cost,
    }


def cost(seconds, parameters):
    """Cost of a row; the memory was not measured."""
    return {
        "parameters": parameters,
        "train_seconds": seconds,
        "predict_clips_per_second": 40_000 / seconds,
        "peak_memory_mib": None,
    }


def tests_of(rows, reference):
    """A test of every row but the reference, significant beyond two hundredths."""
    found = []
    of_reference = next(each for each in rows if each["name"] == reference)
    for each in rows:
        for key in METRICS:
            other, own = each["test"][key]["mean"], of_reference["test"][key]["mean"]
            if each["name"] == reference or other is None:
                continue
            gap, better_is = other - own, -1 if key == "mae" else 1
            is_clear = abs(gap) > 0.02
            found.append(
                {
                    "name": each["name"],
                    "metric": key,
                    "difference": gap,
                    "low": gap - 0.012,
                    "high": gap + 0.014,
                    "p_bootstrap": 0.0005 if is_clear else 0.31,
                    "p_wilcoxon": None,
                    "p_mcnemar": 0.004 if is_clear else None,
                    "p_holm": 0.0002 if is_clear else 0.62,
                    "better": (each["name"] if gap * better_is > 0 else reference)
                    if is_clear
                    else None,
                    "notes": ["Wilcoxon needs 6 pairs of seeds, there are 3"],
                }
            )
    return found


def comparison(kind="comparison"):
    """A whole file, of a comparison or an ablation."""
    chance = random.Random(4)
    if kind == "ablation":
        rows = [row("calibrated", 0.295, chance, cost=cost(92.0, 412_000))]
        rows += [
            row(name, 0.295 + more, chance, question=question, cost=cost(90.0, 400_000))
            for name, (question, more) in QUESTIONS.items()
        ]
    else:
        rows = [
            row(name, error, chance, missing=(2,) if name == "tfn" else (), cost=cost(*price))
            for name, (error, *price) in MODELS.items()
        ]
        rows.append(row("constant", 0.93, chance, kind="reference"))
        rows[-1]["test"]["corr"] = rows[-1]["valid"]["corr"] = summary([None])
    tests = tests_of(rows, "calibrated")
    return {
        "kind": kind,
        "command": f"mmcl {'ablate' if kind == 'ablation' else 'compare'} planted.arrow --out DIR",
        "corpus": {
            "name": "planted",
            "task": {"kind": "regression", "low": -3.0, "high": 3.0, "names": []},
            "counts": {"train": 2000, "valid": 400, "test": 600},
            "aligned": True,
            "checksum": "ce39c29675cae07986ec87087a3f311a",
        },
        "preset": "mmsa",
        "metrics": list(METRICS),
        "reference": "calibrated",
        "seeds": SEEDS,
        "test_clips": 600,
        "floor": {"acc2_non0": 0.0113, "acc7": 0.0182},
        "rows": rows,
        "tests": tests,
        "best": {"mae": None, "corr": None, "acc2_non0": None, "acc7": "calibrated"},
        "workers": 2,
        "notes": ["planted data is made, not recorded"],
        "environment": {
            "versions": {"mmcl": "0.1.0", "torch": "2.13.0"},
            "python": "3.11.7",
            "machine": "Linux x86_64, 2 cores",
            "commit": "1cdcc7fd035c",
        },
    }
