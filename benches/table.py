"""The end of `make bench`: the rows of all scripts as one table, and as `results.json`."""

import json
import os
import platform
from datetime import datetime, timezone
from pathlib import Path

WORK = Path(os.environ["BENCH_WORK"])


def processor():
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"{names[0]}, {len(names)} processors" if names else platform.processor()


def verdict(row):
    if row["target"] is None:
        return ""
    return "reached" if row["ratio"] >= row["target"] else "missed"


def number(x):
    for size, unit in [(1e9, "G"), (1e6, "M"), (1e3, "k")]:
        if x >= size * 10:
            return f"{x / size:.1f}{unit}"
    return f"{x:.3g}" if x < 1000 else f"{x:.0f}"


def main():
    files = sorted((WORK / "rows").glob("*.json"), key=lambda path: path.stat().st_mtime)
    rows = [row for path in files for row in json.loads(path.read_text())]
    (WORK / "results.json").write_text(json.dumps(rows, indent=1) + "\n")
    print(f"{processor()}, {datetime.now(timezone.utc):%Y-%m-%d}. Medians; more is better.\n")
    lines = [["claim", "model", "setting", "peer", "salmon", "peer", "ratio", "target", "n", ""]]
    for row in rows:
        target = "" if row["target"] is None else f"{row['target']:g}"
        lines.append([row["claim"], row["model"], row["setting"], row["peer"], number(row["ours"]),
                      number(row["theirs"]), f"{row['ratio']:.2f}", target, str(row["n"]), verdict(row)])
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    for line in lines:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip())
    print(f"\n{WORK / 'results.json'}")


if __name__ == "__main__":
    main()
