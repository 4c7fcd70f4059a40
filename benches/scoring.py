"""Scoring one response under 8 sets of principles with a linear reward head.

A prompt is as salmon's reward template lays it out: response (10 + 400 tokens), instruction (100), then a set of 3 out of 11
principles (30 each) and the question (20). Against transformers, one forward per set, without padding.
"""

import random

from peers import Scorer
from side_by_side import MODELS, Rows, Salmon, interleave, rounds, same, say, timed, tokens

SETS = 8
RESPONSES = {"0.2M": 16, "45M": 4, "500M": 1}


def asked(name, response):
    """The prompts of one response."""
    draw = tokens(name, "template")
    head, question, principles = draw(10), draw(20), [draw(30) for _ in range(11)]
    sets = [random.Random(f"set {i}").sample(principles, 3) for i in range(SETS)]
    draw = tokens(name, response)
    text = head + draw(400) + draw(100)
    return [text + sum(chosen, []) + question for chosen in sets]


def main():
    rows, salmon = Rows(__file__), Salmon()
    for name in MODELS:
        folder, _ = salmon.open(name)
        model = Scorer(folder)
        prompts = asked(name, "check")
        ours = salmon.ask("reward", prompts=prompts)["scores"]
        same(f"{name}, scores", ours, [model.score(prompt) for prompt in prompts])

        def all_of(number):
            return [prompt for response in range(RESPONSES[name]) for prompt in asked(name, (number, response))]

        def ours(number):
            return salmon.seconds("reward", prompts=all_of(number))

        def theirs(number):
            prompts = all_of(number)
            return timed(lambda: [model.score(prompt) for prompt in prompts])

        def warm_up(side):
            prompts = asked(name, "warm")
            salmon.ask("reward", prompts=prompts) if side == "salmon" else model.score(prompts[0])

        say(f"{name}, scoring")
        seconds = interleave({"salmon": ours, "transformers, unpadded": theirs}, rounds(name), warm_up)
        setting = f"{SETS} principle sets, {len(prompts[0])} tokens; responses/s"
        rows.compare("scoring", name, setting, RESPONSES[name], seconds, {"transformers, unpadded": 4})


if __name__ == "__main__":
    main()
