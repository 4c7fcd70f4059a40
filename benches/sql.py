"""The peers of benches/sql.sh: one statement over the same Parquet in salmon, DataFusion, DuckDB and Polars.

    python benches/sql.py RUN SALMON ROUNDS

In: the folder of a run on disk, the salmon program, how often each statement is measured. Out: for each statement, that
all engines gave the same rows, then each engine's median seconds and its ratio to salmon's. Engines take turns within
a round. salmon is measured as a process, start and all; the others inside this one, after a warm start.
"""

import csv
import glob
import io
import os
import re
import statistics
import subprocess
import sys
import time

import datafusion
import duckdb
import polars
import pyarrow
import pyarrow.parquet

HERE = os.path.dirname(os.path.abspath(__file__))
VIEWS = ["order_flips", "dominant_principles", "principle_agreement", "negation_consistency", "judge_calibration",
         "margin_calibration", "length_bias", "label_noise"]
EVALUATIONS = pyarrow.schema([("what", pyarrow.string()), ("principle", pyarrow.string()), ("subset", pyarrow.string()),
                              ("metric", pyarrow.string()), ("value", pyarrow.float64()), ("n", pyarrow.int64())])


def statements():
    """Name and text: the aggregation, the shipped views, two queries of the cookbook."""
    files = [f"{HERE}/sql/aggregation.sql", *(f"{HERE}/../sql/views/{name}.sql" for name in VIEWS),
             f"{HERE}/sql/without_principle.sql", f"{HERE}/sql/widest_disagreements.sql"]
    for path in files:
        with open(path) as file:
            text = "".join(line for line in file if not line.startswith("--"))
        yield os.path.basename(path)[:-4], re.sub(r"draw\((\d), ([^)]*)\)", draw, text)


def draw(call):
    """A draw from [0, 1) of a whole number: two steps of Lehmer's generator."""
    return f"(((({call[2]}) * 8 + {call[1]}) % 2147483647 * 48271 % 2147483647 * 48271 % 2147483647) / 2147483647.0)"


class Salmon:
    name = "salmon"

    def __init__(self, program, run):
        self.command = [program, "sql", "--run", run, "--format", "csv", "-c"]

    def rows(self, text):
        done = subprocess.run([*self.command, text], capture_output=True, text=True)
        if done.returncode:
            sys.exit(f"salmon: {done.stderr}")
        return list(csv.reader(io.StringIO(done.stdout)))[1:]


class DataFusion:
    name = f"DataFusion {datafusion.__version__}"

    def __init__(self, tables):
        self.context = datafusion.SessionContext()
        for name, files in tables.items():
            self.context.register_parquet(name, os.path.dirname(files[0]))

    def rows(self, text):
        return [list(row.values()) for batch in self.context.sql(text).collect() for row in batch.to_pylist()]


class Duck:
    name = f"DuckDB {duckdb.__version__}"

    def __init__(self, tables):
        self.connection = duckdb.connect()
        for name, files in tables.items():
            self.connection.execute(f"create view {name} as select * from read_parquet({files})")

    def rows(self, text):
        return self.connection.execute(text).fetchall()


class Polars:
    name = f"Polars {polars.__version__}"

    def __init__(self, tables):
        self.context = polars.SQLContext({name: polars.scan_parquet(files) for name, files in tables.items()})

    def rows(self, text):
        # Its names for two things.
        text = re.sub(r"p\['(\w+)'\]", r"p.\1", text).replace("cardinality(", "array_length(")
        return self.context.execute(text).collect(engine="streaming").rows()


def plain(value):
    """A value as all engines mean it, whatever their types: numbers to nine digits, the rest as text."""
    if value is None or value == "":
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    try:
        return f"{float(value):.9g}"
    except ValueError:
        return str(value)


def once(engine, text):
    start = time.perf_counter()
    rows = engine.rows(text)
    return time.perf_counter() - start, [[plain(value) for value in row] for row in rows]


def main(run, program, rounds):
    folders = {name: f"{run}/tables/{name}" for name in ("judgments", "preferences")}
    tables = {name: sorted(glob.glob(f"{folder}/*/*.parquet")) for name, folder in folders.items()}
    for name, files in tables.items():
        if not files:
            sys.exit(f"{run}: table {name} has no files")
    os.makedirs(f"{run}/peers", exist_ok=True)
    pyarrow.parquet.write_table(EVALUATIONS.empty_table(), f"{run}/peers/evaluations.parquet")
    tables["evaluations"] = [f"{run}/peers/evaluations.parquet"]
    engines = [Salmon(program, run), DataFusion(tables), Duck(tables), Polars(tables)]
    print("In brackets: an engine's seconds by salmon's; above 1, salmon is the faster one.\n")
    print("| statement | rows |" + "".join(f" {engine.name} |" for engine in engines))
    print("|---|---|" + "---|" * len(engines))
    for name, text in statements():
        wanted, seconds = None, [[] for _ in engines]
        # The first round, which fills the system's cache, does not count.
        for turn in range(rounds + 1):
            for engine, times in zip(engines, seconds):
                took, rows = once(engine, text)
                wanted = wanted or rows
                if rows != wanted:
                    print(f"{name}: {engine.name} gave\n{rows[:5]}\nand not\n{wanted[:5]}", file=sys.stderr)
                    sys.exit(1)
                times.extend([took] if turn else [])
        medians = [statistics.median(times) for times in seconds]
        cells = [f"{medians[0]:.2f} s", *(f"{median:.2f} s ({median / medians[0]:.2f}x)" for median in medians[1:])]
        print(f"| {name} | {len(wanted)} | " + " | ".join(cells) + " |", flush=True)


main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
