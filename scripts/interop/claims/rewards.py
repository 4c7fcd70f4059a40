"""transformers gives our rewards: a sequence classifier for the linear head, a causal LM for the Yes/No head."""

import json

import jinja2
import torch
from shared import WORK, claim, close, exported, salmon, sql
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

ANSWERS = "select instruction, response from rollouts order by policy, step, prompt_id, response limit 12"
CHOICES = [["Concise"], ["Concise", "not Polite"], ["Honest", "Creative", "Ethical"]]


def definitions(run, names):
    """The texts that `salmon score` shows for the names."""
    known = {row["name"]: row for row in sql(run, "select name, definition, negative_definition from principles")}
    text = lambda name: known[name.removeprefix("not ")]["negative_definition" if name.startswith("not ") else "definition"]
    return [{"text": text(name)} for name in names]


def our_rewards(run, answers, names):
    """Those of `salmon score`."""
    path = WORK / run / "answers.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in answers))
    principles = [word for name in names for word in ("--principle", name)]
    return [float(line) for line in salmon("score", "--run", WORK / run / "run", "--file", path, *principles).split()]


def prompts(folder, tokenizer, answers, principles):
    """Reward prompts from the template in the export."""
    environment = jinja2.Environment(trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string((folder / "reward_template.jinja").read_text())
    return [(tokenizer.bos_token or "") + template.render(**row, principles=principles) for row in answers]


def batch(tokenizer, texts):
    return tokenizer(texts, add_special_tokens=False, padding=True, return_tensors="pt")


for name, tolerance in [("reward-float32", 2e-4), ("reward", 0.1)]:
    folder = exported("linear", name)
    with claim(f"linear: AutoModelForSequenceClassification gives our rewards, in padded batches ({name})") as notes:
        model, info = AutoModelForSequenceClassification.from_pretrained(folder, output_loading_info=True)
        assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys")), info
        assert model.config.num_labels == 1 and model.score.weight.shape[0] == 1, model.config
        tokenizer = AutoTokenizer.from_pretrained(folder)
        assert model.config.pad_token_id == tokenizer.pad_token_id is not None, "no padding token"
        answers, found, wanted = sql("linear", ANSWERS), [], []
        for names in CHOICES:
            texts = prompts(folder, tokenizer, answers, definitions("linear", names))
            with torch.no_grad():
                found += model.float()(**batch(tokenizer, texts)).logits[:, 0].tolist()
            wanted += our_rewards("linear", answers, names)
        notes += [close(found, wanted, tolerance), f"{len(found)} rewards from {min(wanted):.2f} to {max(wanted):.2f}"]

for name, tolerance in [("reward-float32", 2e-4), ("reward", 0.1)]:
    folder = exported("yes_no", name)
    with claim(f"yes_no: AutoModelForCausalLM gives our rewards, logit(yes) - logit(no) ({name})") as notes:
        model, info = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
        assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys")), info
        tokenizer = AutoTokenizer.from_pretrained(folder)
        head = model.config.yes_no_head
        answers, found, wanted = sql("yes_no", ANSWERS), [], []
        for names in CHOICES:
            texts = prompts(folder, tokenizer, answers, definitions("yes_no", names))
            inputs = batch(tokenizer, texts)
            last = inputs["attention_mask"].sum(1) - 1
            with torch.no_grad():
                logits = model.float()(**inputs).logits[torch.arange(len(texts)), last]
            found += (logits[:, head["yes_token_id"]] - logits[:, head["no_token_id"]]).tolist()
            wanted += our_rewards("yes_no", answers, names)
        notes += [close(found, wanted, tolerance), f"{len(found)} rewards from {min(wanted):.2f} to {max(wanted):.2f}"]
