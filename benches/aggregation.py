"""Aggregation as a plain Python loop over rows, the way of the script that was published with SALMON.

    python benches/aggregation.py RUN

In: a run with judgments. Out: seconds and rows per second, from reading the judgments to the written labels. Like that
script it keeps all in memory and draws with `random` and numpy row by row; unlike it, it reads Parquet and detects no
languages (three calls a row there), both to its advantage.
"""

import glob
import json
import random
import sys
import time

import numpy
import pyarrow.parquet

PASSES, GEOMETRIC, MOST, NOISE = 10, 0.4, 3, 0.02


def read(run):
    """Each pair once, with its scores by principle."""
    pairs = {}
    for path in sorted(glob.glob(f"{run}/tables/judgments/*/*.parquet")):
        for row in pyarrow.parquet.read_table(path).to_pylist():
            key = (row["prompt_id"], row["sample_1"], row["sample_2"])
            pair = pairs.setdefault(key, {"prompt": row["instruction"], "output_1": row["response_1"],
                                          "output_2": row["response_2"], "scores": {}})
            pair["scores"][row["principle"]] = (row["score_ab"], row["score_ba"])
    return list(pairs.values())


def label(pair, names, variances):
    """One label of a pair under drawn principles, or none where they tie."""
    random.shuffle(names)
    count = MOST + 1
    while count > MOST:
        count = numpy.random.geometric(GEOMETRIC, 1)[0]
    shown = names[:count]
    scores = []
    for name in shown:
        ab, ba = pair["scores"][name]
        agree = (ab > 0 and ba > 0) or (ab < 0 and ba < 0)
        scores.append((ab + ba) / 2 / variances[name] if agree else 0.0)
    negated = numpy.random.binomial(1, 0.5, count)
    scores = [-score if negated[i] == 1 else score for i, score in enumerate(scores)]
    dominant = numpy.argmax(numpy.abs(scores)).item()
    if scores[dominant] == 0:
        return None
    flip = random.random() < NOISE
    first = (scores[dominant] > 0) != flip
    chosen, rejected = ("output_1", "output_2") if first else ("output_2", "output_1")
    return {"prompt": pair["prompt"], "chosen": pair[chosen], "rejected": pair[rejected], "principles": shown,
            "scores": scores, "negated": negated.tolist(), "dominant": shown[dominant], "flip": flip}


def main(run):
    start = time.perf_counter()
    pairs = read(run)
    names = sorted(pairs[0]["scores"])
    variances = {name: numpy.var([score for pair in pairs for score in pair["scores"][name]]) for name in names}
    labels = [label(pair, names, variances) for _ in range(PASSES) for pair in pairs]
    labels = [one for one in labels if one]
    with open(f"{run}/peers/labels.json", "w") as file:
        json.dump(labels, file, indent=4)
    seconds = time.perf_counter() - start
    print(f"Python: {PASSES * len(pairs)} rows, {len(labels)} kept, {seconds:.1f} s, {PASSES * len(pairs) / seconds:.0f} rows/s")


main(sys.argv[1])
