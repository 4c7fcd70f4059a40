"""TRL's trainers run on our exported preferences and models as they are, and log under the names that we log under."""

import json
import math

from datasets import load_dataset
from shared import RUNS, WORK, claim, exported
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer
from trl import DPOConfig, DPOTrainer, RewardConfig, RewardTrainer, SFTConfig, SFTTrainer

STEPS = 3
# What a trainer of Hugging Face adds at its end.
SUMMARY = {"step", "epoch", "total_flos", "train_loss", "train_runtime", "train_samples_per_second", "train_steps_per_second"}


def options(name):
    return dict(
        output_dir=str(WORK / "trl" / name), max_steps=STEPS, per_device_train_batch_size=4, logging_steps=1,
        report_to="none", use_cpu=True, save_strategy="no", bf16=False, dataloader_pin_memory=False,
    )


def logged(trainer):
    """Names of what the trainer logged in its steps, whose losses must be numbers."""
    steps = [log for log in trainer.state.log_history if "loss" in log]
    assert len(steps) == STEPS and all(math.isfinite(log["loss"]) for log in steps), trainer.state.log_history
    return set().union(*steps), [round(log["loss"], 3) for log in steps]


def our_names(run, stage):
    """Names in our trainer_state.json, without the counts of step 0."""
    state = json.loads((exported(run, "metrics") / stage / "trainer_state.json").read_text())
    return {name for log in state["log_history"] if log["step"] > 0 for name in log} - SUMMARY


for run in RUNS:
    for layout in ["trl", "trl-conversational"]:
        data = load_dataset(str(exported(run, f"preferences-{layout}-parquet")))
        with claim(f"{run}: RewardTrainer trains on our preferences ({layout})") as notes:
            folder = exported(run, "sft")
            model = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=1, torch_dtype="float32")
            trainer = RewardTrainer(
                model=model, args=RewardConfig(**options(f"reward-{layout}"), max_length=256), train_dataset=data["train"],
                eval_dataset=data["test"], processing_class=AutoTokenizer.from_pretrained(folder),
            )
            trainer.train()
            names, losses = logged(trainer)
            notes.append(f"losses {losses}")
            unknown = our_names(run, "reward") - names
            assert not unknown, f"TRL has no metric {unknown}"
        with claim(f"{run}: DPOTrainer trains on our preferences ({layout})") as notes:
            folder = exported(run, "sft")
            trainer = DPOTrainer(
                model=AutoModelForCausalLM.from_pretrained(folder, torch_dtype="float32"),
                ref_model=AutoModelForCausalLM.from_pretrained(folder, torch_dtype="float32"),
                args=DPOConfig(**options(f"dpo-{layout}"), max_length=256), train_dataset=data["train"],
                processing_class=AutoTokenizer.from_pretrained(folder),
            )
            trainer.train()
            notes.append(f"losses {logged(trainer)[1]}")

with claim("SFTTrainer trains our model on chosen answers, and the metrics of our SFT stage have its names") as notes:
    data = load_dataset(str(exported("linear", "preferences-trl-conversational-parquet")), split="train")
    data = data.map(lambda row: {"messages": row["prompt"] + row["chosen"]}, remove_columns=data.column_names)
    folder = exported("linear", "sft")
    trainer = SFTTrainer(
        model=AutoModelForCausalLM.from_pretrained(folder, torch_dtype="float32"), train_dataset=data,
        args=SFTConfig(**options("sft"), max_length=256), processing_class=AutoTokenizer.from_pretrained(folder),
    )
    trainer.train()
    names, losses = logged(trainer)
    unknown = our_names("linear", "sft") - names
    assert not unknown, f"TRL has no metric {unknown}"
    notes.append(f"losses {losses}")
