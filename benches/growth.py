"""How salmon alone grows: with batch size and context length, and with the number of rows. The model of 0.2M parameters.

Tokens per second at each batch size, a curve for each length of context: `growth-batch.svg`. Then rows one chunk after the
other, each a prompt of 48 random tokens and a response of 8: seconds per row and resident memory so far, from 1000 rows to
100 000: `growth-rows.svg`. Flat means that the last rows cost what the first did, and that memory does not grow once the
engine's store of keys and values (512 MiB) is full.
"""

import statistics

import matplotlib

matplotlib.use("svg")
from matplotlib import pyplot

from side_by_side import ROUNDS, WORK, Rows, Salmon, say, tokens

MODEL = "0.2M"
BATCHES, CONTEXTS, NEW = [1, 2, 4, 8, 16, 32, 64, 128], [32, 128, 512, 1024], 33
ROWS, CHUNK = [1_000, 10_000, 100_000], 500


def rate(salmon, batch, context, number):
    """Sampled tokens per second behind prompts of so many tokens."""
    draw = tokens(MODEL, batch, context, number)

    def seconds(new):
        prompts = [draw(context) for _ in range(batch)]
        return salmon.seconds("generate", prompts=prompts, max_tokens=new, temperature=1, seed=number + 1)

    # The first token is the prompt's.
    return batch * (NEW - 1) / max(1e-6, seconds(NEW) - seconds(1))


def by_batch(salmon):
    figure, axes = pyplot.subplots(figsize=(7, 4.5))
    for context in CONTEXTS:
        rates = [statistics.median(rate(salmon, batch, context, n) for n in range(2 * ROUNDS + 1)) for batch in BATCHES]
        say(f"context {context}: " + ", ".join(f"{batch}: {found:.0f}" for batch, found in zip(BATCHES, rates)))
        axes.plot(BATCHES, rates, marker="o", label=f"{context} tokens of context")
    axes.set(xscale="log", xlabel="batch size", ylabel="sampled tokens/s", title=f"{MODEL} parameters")
    axes.set_xticks(BATCHES, map(str, BATCHES))
    axes.set_ylim(bottom=0)
    axes.legend()
    figure.savefig(WORK / "growth-batch.svg", bbox_inches="tight")


def stream(salmon):
    """`(rows, seconds so far, resident bytes)` after each chunk."""
    draw, seconds, found = tokens(MODEL, "rows"), 0.0, []
    for done in range(CHUNK, max(ROWS) + 1, CHUNK):
        prompts = [draw(48) for _ in range(CHUNK)]
        seconds += salmon.seconds("generate", prompts=prompts, max_tokens=8, temperature=1, seed=done)
        found.append((done, seconds, salmon.ask("memory")["resident"]))
    return found


def by_rows(rows, found):
    at = {done: (seconds, resident) for done, seconds, resident in found}
    few, some, many = ROWS
    say(f"seconds and bytes: {[(count, *at[count]) for count in ROWS]}")
    # Without a pause in between, the rate since the start would hide what the last rows cost.
    last = (many - some) / (at[many][0] - at[some][0])
    setting = "rows of 48 + 8 tokens; rows/s"
    rows.add("rows after 10k", MODEL, setting, "the first 1k", last, few / at[few][0], 0.9, 1)
    # Less is better here, so what is held after fewer rows comes first.
    rows.add("memory", MODEL, "resident bytes after 10k rows", "after 100k", at[some][1], at[many][1], 0.9, 1)

    figure, axes = pyplot.subplots(figsize=(7, 4.5))
    counts = [done for done, _, _ in found]
    axes.plot(counts, [1e3 * seconds / done for done, seconds, _ in found], label="milliseconds a row, so far")
    axes.set(xscale="log", xlabel="rows", ylabel="milliseconds a row")
    axes.set_ylim(bottom=0)
    memory = axes.twinx()
    memory.plot(counts, [resident / 2**20 for _, _, resident in found], color="tab:orange", label="resident MiB")
    memory.set(ylabel="resident MiB")
    memory.set_ylim(bottom=0)
    figure.legend(loc="lower center", bbox_to_anchor=(0.5, -0.06), ncols=2)
    figure.savefig(WORK / "growth-rows.svg", bbox_inches="tight")


def main():
    rows, salmon = Rows(__file__), Salmon()
    salmon.open(MODEL)
    rate(salmon, 128, 1024, -1)
    by_batch(salmon)
    # Loaded anew, so that memory starts without keys and values.
    salmon.ask("close")
    salmon.open(MODEL)
    by_rows(rows, stream(salmon))


if __name__ == "__main__":
    main()
