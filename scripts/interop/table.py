"""The table of all claims; the exit code says whether every one holds."""

import sys

rows = [line.rstrip("\n").split("\t") for line in open(sys.argv[1])]
width = max(len(text) for _, text, _ in rows)
for result, text, notes in rows:
    print(f"{result:<6}  {text:<{width}}  {notes}")
failed = sum(result != "ok" for result, _, _ in rows)
print(f"\n{len(rows)} claims, {failed} failed")
sys.exit(failed > 0)
