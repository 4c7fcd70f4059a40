"""Rollouts: sampled tokens per second, against transformers' `generate` and CTranslate2.

Every prompt has 64 random tokens and every response the same number of tokens, sampled at temperature 1 from the whole
vocabulary. First, greedy responses of salmon are read by the peers: the log-probability of each token must be the same.
"""

from peers import CTranslate2, Transformers
from side_by_side import MODELS, Rows, Salmon, interleave, rounds, same, say, timed, tokens

PROMPT = 64
NEW = {"0.2M": 64, "45M": 64, "500M": 32}
TARGETS = {"0.2M": 10, "45M": 3, "500M": 2.5}


def check(salmon, name, peers):
    draw = tokens(name, "greedy")
    prompts = [draw(PROMPT) for _ in range(3)]
    responses = salmon.ask("generate", prompts=prompts, max_tokens=16, temperature=0, seed=1)["ids"]
    ours = salmon.ask("logprobs", prompts=prompts, responses=responses)["logprobs"]
    ours = [x for row in ours for x in row]
    theirs, behind = [], []
    for prompt, response in zip(prompts, responses):
        row, gap = peers["transformers"].logprobs(prompt, response)
        theirs += row
        behind += gap
    same(f"{name}, log-probabilities of greedy tokens, transformers", ours, theirs)
    # A greedy token may be another one where two are as likely, and no other.
    same(f"{name}, how far they are from the likeliest", behind, [0.0] * len(behind))
    for peer in ["CTranslate2", "CTranslate2 int8"]:
        read = [x for prompt, response in zip(prompts, responses) for x in peers[peer].logprobs(prompt, response)]
        same(f"{name}, log-probabilities of greedy tokens, {peer}", ours, read, 1e-3 if peer == "CTranslate2" else 1)


def main():
    rows, salmon = Rows(__file__), Salmon()
    for name in MODELS:
        folder, _ = salmon.open(name)
        peers = {"transformers": Transformers(folder), "CTranslate2": CTranslate2(folder, "float32"),
                 "CTranslate2 int8": CTranslate2(folder, "int8")}
        check(salmon, name, peers)
        new = NEW[name]
        for batch in [1, 16, 64]:
            def prompts(number, batch=batch):
                draw = tokens(name, batch, number)
                return [draw(PROMPT) for _ in range(batch)]

            def ours(number):
                return salmon.seconds("generate", prompts=prompts(number), max_tokens=new, temperature=1, seed=number + 1)

            def warm_up(side):
                # Memory for this batch, with few tokens.
                prompt = prompts(-1)
                if side == "salmon":
                    salmon.ask("generate", prompts=prompt, max_tokens=2, temperature=1, seed=1)
                else:
                    peers[side].generate(prompt, 2)

            def theirs(peer):
                return lambda number: timed(lambda: peer.generate(prompts(number), new))

            sides = {"salmon": ours} | {peer: theirs(model) for peer, model in peers.items()}
            say(f"{name}, batch {batch}")
            seconds = interleave(sides, rounds(name), warm_up)
            setting = f"batch {batch}, {PROMPT} + {new} tokens; tokens/s"
            targets = {"transformers": TARGETS[name], "CTranslate2": 1.5, "CTranslate2 int8": None}
            rows.compare("rollouts", name, setting, batch * new, seconds, targets)


if __name__ == "__main__":
    main()
