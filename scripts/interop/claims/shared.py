"""What the claims share: the runs and exports that run.sh made, asking salmon, and the record of results."""

import contextlib
import json
import os
import pathlib
import subprocess
import traceback

WORK = pathlib.Path(os.environ["INTEROP_WORK"])
# A run whose models are LoRA adapters and whose reward head is linear, and one trained in full with the Yes/No head.
RUNS = ["linear", "yes_no"]


@contextlib.contextmanager
def claim(text):
    """Records whether the block ran to its end; the block may put what it measured into the yielded list."""
    notes = []
    try:
        yield notes
        result = "ok"
    except Exception as error:
        traceback.print_exc()
        result, notes = "FAILED", [f"{type(error).__name__}: {error}"]
    line = [result, text, " ".join("; ".join(map(str, notes)).split())]
    with open(WORK / "results.tsv", "a") as results:
        results.write("\t".join(line) + "\n")
    print(*line, sep=" | ")


def salmon(*arguments):
    """Standard output of the program."""
    done = subprocess.run([os.environ["SALMON"], *map(str, arguments)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def sql(run, statement):
    """The rows of a statement over a run."""
    return json.loads(salmon("sql", "--run", WORK / run / "run", "--format", "json", "-c", statement))


def ours(texts, folder, adapter=None):
    """Token ids and log-probabilities (or score) that salmon gives for each text, with the weights of a folder."""
    command = [os.environ["SALMON_LOGPROBS"], str(folder)] + ([str(adapter)] if adapter else [])
    lines = "".join(json.dumps({"text": text}) + "\n" for text in texts)
    done = subprocess.run(command, input=lines, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def model_folder(run, name):
    """Where a run keeps the current version of a model."""
    [pointer] = (WORK / run / "run" / "current" / "models" / name).glob("*.json")
    fingerprint = json.loads(pointer.read_text())["fingerprint"]
    return WORK / run / "run" / "models" / name / fingerprint


def exported(run, name):
    return WORK / run / "export" / name


def close(found, wanted, tolerance):
    """The largest difference, which must be within the tolerance."""
    assert len(found) == len(wanted) > 0, f"{len(found)} values against {len(wanted)}"
    worst = max(abs(a - b) for a, b in zip(found, wanted))
    assert worst <= tolerance, f"differs by {worst:.2e}, more than {tolerance:.0e}"
    return f"largest difference {worst:.1e}"
