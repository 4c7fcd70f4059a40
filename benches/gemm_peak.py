"""Decoding and prefill at batch 64 against the machine's peak in matrix products.

Ours counts two operations for each weight and token that are needed: of the last layer, a prompt's tokens need keys and values
only, and logits are wanted once a prompt. Attention is not counted. Theirs is the most that anyone reached in float32 on as
many threads: torch's `mm` in several shapes, or libtorch's products in salmon's process. A second peer without a target is
what multiply-adds in registers reach, which no program can pass.
"""

import statistics

import torch

from side_by_side import MODELS, THREADS, Rows, Salmon, rounds, say, timed, tokens

BATCH = 64
PROMPT = {"45M": 128, "500M": 32}
NEW = {"45M": 17, "500M": 5}
SHAPES = [(2048, 2048, 2048), (1024, 1024, 1024), (4096, 1024, 1024), (512, 4096, 1024)]


def torch_peak():
    """Operations per second of the best shape."""
    best = 0
    for n, k, m in SHAPES:
        x, w = torch.randn(n, k), torch.randn(k, m)
        times = max(1, int(2e10 / (2 * n * k * m)))
        torch.mm(x, w)
        best = max(best, 2 * n * k * m * times / timed(lambda: [torch.mm(x, w) for _ in range(times)]))
    return best


def main():
    torch.set_num_threads(THREADS)
    rows, salmon = Rows(__file__), Salmon()
    for name in MODELS:
        if name not in NEW:
            continue
        _, model = salmon.open(name)
        layer, head = 2 * model["layer_weights"], 2 * model["head_weights"]
        # Of a token of a prompt, and of one with logits on top of it.
        prompt_token = (model["layers"] - 1) * layer + 2 * model["key_value_weights"]
        token = model["layers"] * layer + head
        decode, prefill, peaks, fmas = [], [], [], []
        for number in range(-1, rounds(name)):
            draw = tokens(name, number)

            def seconds(length, new):
                prompts = [draw(length) for _ in range(BATCH)]
                return salmon.seconds("generate", prompts=prompts, max_tokens=new, temperature=1, seed=number + 2)

            long, first, more = seconds(PROMPT[name], 1), seconds(2, 1), seconds(2, NEW[name])
            machine = salmon.ask("machine", seconds=0.5)
            if number >= 0:
                prefill.append(BATCH * ((PROMPT[name] - 1) * prompt_token + token) / long)
                decode.append(BATCH * (NEW[name] - 1) * token / (more - first))
                peaks.append(max(torch_peak(), machine["gemm"]))
                fmas.append(machine["fma"])
            say(f"{name}: prefill {long:.2f} s, decode {more - first:.2f} s")
        for what, found in [("prefill", prefill), ("decode", decode)]:
            length = f"{PROMPT[name]} tokens" if what == "prefill" else f"{NEW[name] - 1} tokens"
            setting = f"batch {BATCH}, {length}, float32; operations/s"
            ours = statistics.median(found)
            rows.add(what, name, setting, "GEMM peak", ours, max(peaks), 0.6, rounds(name))
            if None not in fmas:
                rows.add(what, name, setting, "multiply-adds", ours, max(fmas), None, rounds(name))


if __name__ == "__main__":
    main()
