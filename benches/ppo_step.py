"""One step of PPO with LoRA: rollouts, rewards, reference and value, and the updates, against TRL's `PPOTrainer`.

Policy, value and reward model are of one size and start from the same weights; policy and value model train adapters of the
same rank; the reference is the policy without its adapter. 2 epochs of 2 mini-batches. First, one update is made of the same
rollouts by both sides: rewards, divergence and losses must be the same.
"""

import trl.experimental.ppo.ppo_trainer as ppo
from datasets import Dataset
from peft import LoraConfig, inject_adapter_in_model
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification
from trl.experimental.ppo import PPOConfig, PPOTrainer

from side_by_side import MODELS, ROUNDS, Rows, Salmon, same, say, tokens
from training import ARGUMENTS, LEARNING_RATE, LORA, InTurn, tokenizer

ROLLOUTS = {"0.2M": 64, "45M": 16}
PROMPT, NEW = 64, 64
COMMON = {"kl_coef": 0.05, "kl_estimator": "k1", "cliprange": 0.2, "cliprange_value": 0.2, "vf_coef": 0.1, "gamma": 1.0,
          "lam": 0.95, "temperature": 1.0, "whiten_rewards": False}


def prompts(name, count, *which):
    draw = tokens(name, *which)
    return [draw(PROMPT) for _ in range(count)]


class Both:
    """Both sides with the same settings."""

    def __init__(self, salmon, name, rollouts, epochs, mini_batches, steps):
        self.salmon, self.name, self.rollouts = salmon, name, rollouts
        self.folder = salmon.model(name)
        schedule = {"num_ppo_epochs": epochs, "num_mini_batches": mini_batches}
        config = COMMON | schedule | {"learning_rate": LEARNING_RATE, "batch_size": rollouts, "reward_scale": 1.0}
        salmon.ask("policy", folder=str(self.folder), lora=LORA, config=config, steps=steps)
        # One micro-batch for each mini-batch, the fewest that TRL can make.
        self.arguments = PPOConfig(
            **ARGUMENTS, **COMMON, **schedule, per_device_train_batch_size=rollouts, gradient_accumulation_steps=1,
            total_episodes=rollouts * steps, response_length=NEW, num_sample_generations=0,
            local_rollout_forward_batch_size=rollouts)

    def train(self, ours):
        """Steps of TRL with `ours(step)` after each."""
        def scorer():
            return AutoModelForSequenceClassification.from_pretrained(self.folder, num_labels=1, dtype="float32")

        value = inject_adapter_in_model(LoraConfig(**LORA), scorer())
        value.score.requires_grad_(True)
        turns = InTurn(ours)
        # "[PAD]" is an id beyond the vocabulary, which TRL masks: no response has it, so all have the same length.
        data = Dataset.from_dict({"input_ids": prompts(self.name, self.arguments.total_episodes, "TRL")})
        PPOTrainer(
            args=self.arguments, processing_class=tokenizer(self.folder, "[PAD]"), value_model=value, reward_model=scorer(),
            model=AutoModelForCausalLM.from_pretrained(self.folder, dtype="float32"), ref_model=None,
            train_dataset=data, eval_dataset=data.select(range(8)), callbacks=[turns],
            peft_config=LoraConfig(**LORA, task_type="CAUSAL_LM")).train()
        return turns


def check(salmon, name):
    """One update on the rollouts that TRL makes."""
    rollouts = []
    generate = ppo.batch_generation

    def kept(*arguments):
        ids, logits = generate(*arguments)
        rollouts.extend(ids.tolist())
        return ids, logits

    both = Both(salmon, name, rollouts=8, epochs=1, mini_batches=1, steps=1)
    salmon.ask("open", folder=str(both.folder))

    def ours(step):
        scores = salmon.ask("reward", prompts=rollouts)["scores"]
        rows = [(ids[:PROMPT], ids[PROMPT:], score) for ids, score in zip(rollouts, scores)]
        return salmon.ask("ppo_update", rows=rows)

    ppo.batch_generation = kept
    metrics = both.train(ours).metrics
    ppo.batch_generation = generate
    names = ["objective/scores", "objective/kl", "objective/entropy", "objective/non_score_reward", "objective/rlhf_reward",
             "val/ratio", "policy/approxkl_avg", "policy/entropy_avg", "loss/policy_avg", "loss/value_avg"]
    for key in names:
        same(f"{name}, {key}", [metrics["salmon"][0][key]], [metrics["TRL"][0][key]])


def main():
    rows, salmon = Rows(__file__), Salmon()
    for name in [name for name in MODELS if name != "500M"]:
        check(salmon, name)
        rollouts = ROLLOUTS[name]
        both = Both(salmon, name, rollouts, epochs=2, mini_batches=2, steps=ROUNDS + 1)
        say(f"{name}, steps of PPO")

        def ours(step, name=name, rollouts=rollouts):
            return salmon.ask("ppo_step", prompts=prompts(name, rollouts, step), max_tokens=NEW, seed=step + 1)

        seconds = both.train(ours).seconds
        setting = f"LoRA r {LORA['r']}, {rollouts} rollouts of {PROMPT} + {NEW} tokens; rollouts/s"
        rows.compare("PPO step", name, setting, rollouts, seconds, {"TRL": 5})
        salmon.ask("close")


if __name__ == "__main__":
    main()
