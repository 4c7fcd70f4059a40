"""Judging pairs under 11 principles in both orders: 22 prompts a pair.

A prompt is the judge's task (60 tokens), an instruction (100), two outputs (320 each), and one principle with the question
(40): a pair of 800 tokens with everything before the principle in common. The verdict is two logits after the prompt.

Against transformers, one forward per prompt: padded to 1536 tokens, the fixed length that the published judge pads every
prompt to, and as long as the prompt is. The peers keep the logits of the last position only, which spares them the rest.
"""

from peers import Transformers
from side_by_side import MODELS, Rows, Salmon, interleave, rounds, same, say, timed, tokens

PRINCIPLES, PADDED = 11, 1536
# Pairs in a round, and how many of a pair's prompts the peers are timed on: each costs them the same.
SIZES = {"0.2M": (8, 22), "45M": (2, 22), "500M": (1, 4)}
VERDICTS = [7, 8]


def judged(name, pair):
    """The 22 prompts of one pair."""
    draw = tokens(name, "task")
    task, principles = draw(60), [draw(40) for _ in range(PRINCIPLES)]
    draw = tokens(name, pair)
    instruction, a, b = draw(100), draw(320), draw(320)
    return [task + instruction + first + second + principle for first, second in [(a, b), (b, a)]
            for principle in principles]


def main():
    rows, salmon = Rows(__file__), Salmon()
    for name in MODELS:
        folder, _ = salmon.open(name)
        model = Transformers(folder)
        pairs, timed_prompts = SIZES[name]

        prompts = judged(name, "check")[::7]
        ours = salmon.ask("choice", prompts=prompts, tokens=VERDICTS)["logits"]
        for how, pad in [("unpadded", 0), ("padded", PADDED)]:
            theirs = [model.next_logits(prompt, pad)[VERDICTS].tolist() for prompt in prompts]
            same(f"{name}, logits of verdicts, {how}", sum(ours, []), sum(theirs, []))

        def ours(number):
            prompts = [prompt for pair in range(pairs) for prompt in judged(name, (number, pair))]
            return salmon.seconds("choice", prompts=prompts, tokens=VERDICTS)

        def theirs(pad):
            def run(number):
                prompts = [prompt for pair in range(pairs) for prompt in judged(name, (number, pair))[:timed_prompts]]
                seconds = timed(lambda: [model.next_logits(prompt, pad)[VERDICTS].tolist() for prompt in prompts])
                return seconds * 2 * PRINCIPLES / timed_prompts
            return run

        def warm_up(side):
            prompts = judged(name, "warm")[:2]
            if side == "salmon":
                salmon.ask("choice", prompts=prompts, tokens=VERDICTS)
            else:
                model.next_logits(prompts[0], PADDED)

        say(f"{name}, judging")
        sides = {"salmon": ours, "padded to 1536": theirs(PADDED), "unpadded": theirs(0)}
        seconds = interleave(sides, rounds(name), warm_up)
        setting = "11 principles x 2 orders, pairs of 800 tokens; pairs/s"
        seconds = {f"transformers, {side}" if side != "salmon" else side: all for side, all in seconds.items()}
        targets = {"transformers, padded to 1536": 15, "transformers, unpadded": 5}
        rows.compare("judging", name, setting, pairs, seconds, targets)


if __name__ == "__main__":
    main()
