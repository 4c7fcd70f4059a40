"""Salmon and other programs, one run of each in turn.

In: a script's claims as callables that take a round's number and give the seconds of its work. Out: rows, under
`target/bench/rows`, each the medians of both sides and their ratio.

Both sides are given the same inputs, which are new in each round: no side has seen them before. The order within a round
turns with the rounds.
"""

import json
import os
import random
import statistics
import subprocess
import sys
import time
from pathlib import Path

WORK = Path(os.environ["BENCH_WORK"])
THREADS = int(os.environ.get("BENCH_THREADS", "2"))
ROUNDS = int(os.environ.get("BENCH_ROUNDS", "5"))
# Smaller first; BENCH_MODELS="0.2M 45M" leaves out the last.
MODELS = os.environ.get("BENCH_MODELS", "0.2M 45M 500M").split()
VOCAB = {"0.2M": 260, "45M": 32_000, "500M": 32_000}


def say(text):
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


class Salmon:
    """The process of `examples/bench`."""

    def __init__(self):
        driver = [os.environ["SALMON_BENCH"], "--threads", str(THREADS)]
        self.process = subprocess.Popen(driver, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def ask(self, do, **fields):
        self.process.stdin.write(json.dumps({"do": do, **fields}) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"salmon ended at `{do}` with exit code {self.process.wait()}")
        answer = json.loads(line)
        if "error" in answer:
            raise SystemExit(f"salmon says to `{do}`: {answer['error']}")
        return answer

    def seconds(self, do, **fields):
        return self.ask(do, **fields)["seconds"]

    def model(self, name):
        """The folder of a model, made where it is missing."""
        folder = WORK / "models" / name
        if not (folder / "complete").exists():
            say(f"making the model of {name} parameters")
            self.ask("make", model=name, folder=str(folder))
            (folder / "complete").touch()
        return folder

    def open(self, name):
        """Loads a model; gives its folder and what it says of itself."""
        folder = self.model(name)
        return folder, self.ask("open", folder=str(folder))


def rounds(name):
    """Short runs are more uneven, and long ones cost more."""
    return {"0.2M": 3 * ROUNDS, "500M": min(ROUNDS, 3)}.get(name, ROUNDS)


def tokens(name, *which):
    """A generator of token ids that depends on nothing but its names."""
    draws = random.Random(repr(which))
    return lambda count: [draws.randrange(VOCAB[name]) for _ in range(count)]


def interleave(sides, count, warm_up):
    """Seconds of each side in `count` rounds: `{name: [..]}`. `sides` are callables of the round's number.

    `warm_up(name)` runs before, unmeasured.
    """
    names = list(sides)
    for name in names:
        warm_up(name)
    seconds = {name: [] for name in names}
    for number in range(count):
        turn = number % len(names)
        for name in names[turn:] + names[:turn]:
            # The threads of the side before have gone to sleep by then.
            time.sleep(0.2)
            seconds[name].append(sides[name](number))
    return seconds


class Rows:
    """The rows of one script."""

    def __init__(self, script):
        self.path = WORK / "rows" / f"{Path(script).stem}.json"
        self.rows = []

    def add(self, claim, model, setting, peer, ours, theirs, target, n):
        """`ours` and `theirs` are rates: more is better."""
        row = {"claim": claim, "model": model, "setting": setting, "peer": peer, "ours": ours, "theirs": theirs,
               "ratio": ours / theirs, "target": target, "n": n}
        self.rows.append(row)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_text(json.dumps(self.rows, indent=1))
        say(f"{claim}, {model}, {setting}, {peer}: {ours:.4g} against {theirs:.4g}, {ours / theirs:.2f}")

    def compare(self, claim, model, setting, work, seconds, targets):
        """A row for each peer that `targets` names. `work` is what each side did in a round, in the setting's unit."""
        ours = work / statistics.median(seconds["salmon"])
        for peer, target in targets.items():
            theirs = work / statistics.median(seconds[peer])
            self.add(claim, model, setting, peer, ours, theirs, target, len(seconds[peer]))


def same(what, ours, theirs, tolerance=1e-3):
    """Ends the script where two lists of numbers differ by more than `tolerance` of their size, or of 1."""
    if len(ours) != len(theirs):
        raise SystemExit(f"{what}: {len(ours)} numbers against {len(theirs)}")
    worst = max(abs(a - b) / max(1.0, abs(b)) for a, b in zip(ours, theirs))
    say(f"{what}: {len(ours)} numbers within {worst:.1e}")
    if not worst <= tolerance:
        raise SystemExit(f"{what}: the two sides differ by {worst:.1e}, more than {tolerance:.0e}")


def timed(work):
    """The seconds of a call."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start
