"""Training a reward model with LoRA, against TRL's `RewardTrainer` with PEFT.

Lengths are those of Anthropic's HH (harmless-base, test): log-normal with the logarithm's mean and deviation 4.16 and 1.12
for prompts, 3.26 and 0.91 for chosen, 3.45 and 0.96 for rejected responses, in words and marks. TRL has every batch padded to
its longest row, as it does by default, or in micro-batches of 4 pairs, which pads less. The first loss must be the same.
"""

import random

from datasets import Dataset
from peft import LoraConfig
from transformers import AutoModelForSequenceClassification
from trl import RewardConfig, RewardTrainer

from side_by_side import MODELS, ROUNDS, VOCAB, Rows, Salmon, same, say
from training import ARGUMENTS, LEARNING_RATE, LORA, InTurn, tokenizer

PAIRS, LONGEST = {"0.2M": 32, "45M": 8}, 1024


def pairs(name, count):
    ids, lengths = random.Random("pairs"), random.Random("HH")

    def draw(count):
        # Id 0 pads.
        return [ids.randrange(1, VOCAB[name]) for _ in range(count)]

    def length(mean, deviation):
        return min(LONGEST // 2, max(1, round(lengths.lognormvariate(mean, deviation))))

    out = []
    for _ in range(count):
        prompt = draw(length(4.16, 1.12))
        out.append((prompt + draw(length(3.26, 0.91)), prompt + draw(length(3.45, 0.96))))
    return out


def train(salmon, name, folder, batch, micro_batch):
    """Seconds of both sides, in turn."""
    steps = ROUNDS + 1
    data = pairs(name, batch * steps)
    config = {"learning_rate": LEARNING_RATE, "lr_scheduler_type": "constant", "warmup_ratio": 0, "batch_size": batch}
    salmon.ask("reward_trainer", folder=str(folder), lora=LORA, config=config, steps=steps)

    def ours(step):
        return salmon.ask("reward_step", pairs=data[step * batch:(step + 1) * batch])

    model = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=1, dtype="float32")
    # The accumulated gradient is a mean over micro-batches, so TRL's step is the same with either.
    arguments = RewardConfig(
        **ARGUMENTS, max_steps=steps, per_device_train_batch_size=micro_batch,
        gradient_accumulation_steps=batch // micro_batch, max_length=LONGEST)
    turns = InTurn(ours)

    class InOrder(RewardTrainer):
        """Rows as they come, so that each step has ours."""

        def _get_train_sampler(self, dataset=None):
            return None

    trainer = InOrder(
        model=model, args=arguments, processing_class=tokenizer(folder, "w0"), callbacks=[turns],
        peft_config=LoraConfig(**LORA, task_type="SEQ_CLS", modules_to_save=["score"]),
        train_dataset=Dataset.from_dict({"chosen_ids": [c for c, _ in data], "rejected_ids": [r for _, r in data]}))
    trainer.train()
    losses = {side: [log["loss"] for log in logs if "loss" in log] for side, logs in turns.metrics.items()}
    say(f"losses {losses}")
    # Trainer logs four digits.
    same(f"{name}, first loss", losses["salmon"][:1], losses["TRL"][:1])
    same(f"{name}, losses", losses["salmon"], losses["TRL"], 1e-2)
    return turns.seconds


def main():
    rows, salmon = Rows(__file__), Salmon()
    for name in [name for name in MODELS if name != "500M"]:
        folder, batch = salmon.model(name), PAIRS[name]
        for micro_batch, peer in [(batch, "TRL"), (4, "TRL, micro-batches of 4")]:
            say(f"{name}, {peer}")
            seconds = train(salmon, name, folder, batch, micro_batch)
            setting = f"LoRA r {LORA['r']}, {batch} pairs a step, lengths of HH; pairs/s"
            seconds = {"salmon": seconds["salmon"], peer: seconds["TRL"]}
            rows.compare("reward training", name, setting, batch, seconds, {peer: 2.5})
        salmon.ask("close")


if __name__ == "__main__":
    main()
