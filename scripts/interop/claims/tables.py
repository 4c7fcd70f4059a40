"""datasets, DuckDB, Polars and pandas read every table of a run, and load_dataset finds the splits of every export."""

import json

import duckdb
import pandas
import polars
from datasets import load_dataset
from shared import RUNS, WORK, claim, exported, sql

LAYOUTS = {
    "trl": {"prompt", "chosen", "rejected"},
    "trl-conversational": {"prompt", "chosen", "rejected"},
    "openrlhf": {"prompt", "chosen", "rejected"},
    "verl": {"data_source", "prompt", "ability", "reward_model", "extra_info", "chosen", "rejected"},
}


def tables(run):
    """Every current table: name -> (its parts with rows, columns, rows)."""
    found = {}
    for pointer in sorted((WORK / run / "run" / "current" / "tables").glob("*/*.json")):
        fingerprint = json.loads(pointer.read_text())["fingerprint"]
        folder = WORK / run / "run" / "tables" / pointer.parent.name / fingerprint
        manifest = json.loads((folder / "manifest.json").read_text())
        parts, columns, rows = found.get(pointer.parent.name, ([], None, 0))
        parts += [str(folder / file["path"]) for file in manifest["files"]]
        found[pointer.parent.name] = (parts, [column["name"] for column in manifest["schema"]], rows + sum(f["rows"] for f in manifest["files"]))
    return found


READERS = {
    "datasets": lambda parts: (lambda data: (data.column_names, data.num_rows))(load_dataset("parquet", data_files=parts, split="train")),
    "DuckDB": lambda parts: (lambda data: (data.columns, len(data.fetchall())))(duckdb.read_parquet(parts)),
    "Polars": lambda parts: (lambda data: (data.columns, data.height))(polars.read_parquet(parts)),
    "pandas": lambda parts: (lambda data: (list(data.columns), len(data)))(pandas.concat(map(pandas.read_parquet, parts))),
}

for run in RUNS:
    for reader, read in READERS.items():
        with claim(f"{run}: {reader} reads every table") as notes:
            found = tables(run)
            for name, (parts, columns, rows) in found.items():
                own_columns, own_rows = read(parts)
                assert (own_columns, own_rows) == (columns, rows), f"{name}: {own_columns}, {own_rows} rows"
                assert rows == sql(run, f"select count(*) as n from {name}")[0]["n"], f"{name}: other rows than `salmon sql`"
            notes.append(f"{len(found)} tables, {sum(rows for _, _, rows in found.values())} rows")
    splits = {row["split"]: row["n"] for row in sql(run, "select split, count(*) as n from preferences where kept group by split")}
    for layout, columns in LAYOUTS.items():
        with claim(f"{run}: load_dataset finds the splits and columns of our preferences ({layout}, parquet and jsonl)") as notes:
            rows = {}
            for form in ["parquet", "jsonl"]:
                data = load_dataset(str(exported(run, f"preferences-{layout}-{form}")))
                assert {name: split.num_rows for name, split in data.items()} == splits, data
                assert columns <= set(data["train"].column_names), data["train"].column_names
                rows[form] = data["train"].to_list()
            assert rows["parquet"] == rows["jsonl"], "the two forms have other rows"
            notes.append(f"{splits} rows")
            if layout == "openrlhf":
                roles = [[turn["role"] for turn in row[side]] for row in rows["jsonl"] for side in ("chosen", "rejected")]
                assert all(turns == ["user", "assistant"] for turns in roles), "not whole conversations"
            if layout == "verl":
                assert [row["extra_info"]["index"] for row in rows["jsonl"]] == list(range(splits["train"])), "rows out of order"
