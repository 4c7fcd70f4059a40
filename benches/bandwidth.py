"""Decoding at batch 1 against the machine's memory bandwidth.

A decoded token needs every weight once: ours is bytes of weights x tokens per second, with weights in the form that the
engine holds them in (keys and values come on top and are not counted). Theirs is what all threads read per second from
memory that no cache holds, measured between the rounds.
"""

import statistics

from side_by_side import MODELS, ROUNDS, Rows, Salmon, say, tokens

NEW = {"45M": 129, "500M": 33}


def main():
    rows, salmon = Rows(__file__), Salmon()
    for name in MODELS:
        if name not in NEW:
            continue
        _, model = salmon.open(name)
        weights = model["layers"] * model["layer_weights"] + model["head_weights"]
        size = model["weight_bytes"]
        say(f"{name}, {size / 1e6:.0f} MB a token")
        rates, reads = [], []
        for number in range(-1, ROUNDS):
            draw = tokens(name, number)

            def seconds(new):
                return salmon.seconds("generate", prompts=[draw(8)], max_tokens=new, temperature=1, seed=number + 2)

            # The first token is the prompt's.
            rate = (NEW[name] - 1) / (seconds(NEW[name]) - seconds(1))
            read = salmon.ask("machine", seconds=0.3)["read"]
            if number >= 0:
                rates.append(rate)
                reads.append(read)
        setting = f"batch 1, {size / weights:.1f} bytes a weight; bytes/s"
        peer = "memory bandwidth"
        rows.add("decode", name, setting, peer, statistics.median(rates) * size, max(reads), 0.85, ROUNDS)


if __name__ == "__main__":
    main()
