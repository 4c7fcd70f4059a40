"""What the training scripts share: settings that both sides have, and a clock in TRL's loop.

In: a trainer of TRL and what salmon does in a step. Out: the seconds of both sides, step by step in turn.
"""

import time

import torch
import transformers

from side_by_side import THREADS, WORK, say

torch.set_num_threads(THREADS)
transformers.utils.logging.set_verbosity_error()

PROJECTIONS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
LORA = {"r": 16, "lora_alpha": 16, "target_modules": PROJECTIONS}
# AdamW in float32 at a constant learning rate.
LEARNING_RATE = 1e-4
ARGUMENTS = {
    "output_dir": str(WORK / "trl"), "learning_rate": LEARNING_RATE, "lr_scheduler_type": "constant", "bf16": False,
    "use_cpu": True, "gradient_checkpointing": False, "report_to": "none", "save_strategy": "no", "logging_steps": 1,
    "disable_tqdm": True, "dataloader_pin_memory": False,
}


def tokenizer(folder, pad):
    """For TRL, which wants one even where rows are token ids."""
    return transformers.PreTrainedTokenizerFast(
        tokenizer_file=str(folder / "tokenizer.json"), pad_token=pad, eos_token=pad, unk_token="w0")


class InTurn(transformers.TrainerCallback):
    """After each step of TRL, a step of salmon. The first of both warms up."""

    def __init__(self, ours):
        self.ours, self.seconds, self.metrics = ours, {"salmon": [], "TRL": []}, {"salmon": [], "TRL": []}
        self.start = None

    def on_train_begin(self, args, state, control, **kwargs):
        self.start = time.perf_counter()

    def on_log(self, args, state, control, logs=None, **kwargs):
        self.metrics["TRL"].append(dict(logs))

    def on_step_end(self, args, state, control, **kwargs):
        theirs = time.perf_counter() - self.start
        time.sleep(0.2)
        answer = self.ours(len(self.metrics["salmon"]))
        self.metrics["salmon"].append(answer["metrics"])
        say(f"a step: salmon {answer['seconds']:.3g} s, TRL {theirs:.3g} s, {answer.get('parts', '')}")
        if len(self.metrics["salmon"]) > 1:
            self.seconds["TRL"].append(theirs)
            self.seconds["salmon"].append(answer["seconds"])
        time.sleep(0.2)
        self.start = time.perf_counter()
