"""PEFT opens our adapters and gives our results, and we open PEFT's and give its."""

import torch
from peft import AutoPeftModelForCausalLM, LoraConfig, PeftModel, get_peft_model
from shared import WORK, claim, close, exported, model_folder, ours, sql
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

BASE = exported("linear", "base-float32")
tokenizer = AutoTokenizer.from_pretrained(BASE)
texts = [row["response"] for row in sql("linear", "select response from rollouts order by policy, step, prompt_id limit 8")]


def ids(text):
    return tokenizer(tokenizer.bos_token + text, add_special_tokens=False, return_tensors="pt")["input_ids"]


def logprobs(model):
    """The log-probability of every token but the first, of all texts."""
    values = []
    for text in texts:
        with torch.no_grad():
            rows = model(input_ids=ids(text)).logits.log_softmax(-1)[0, :-1]
        values += rows.gather(1, ids(text)[0, 1:, None])[:, 0].tolist()
    return values


def scores(model):
    with torch.no_grad():
        return [model(input_ids=ids(text)).logits[0, 0].item() for text in texts]


def flat(rows):
    return [value for row in rows for value in row["logprobs"]]


def causal():
    return AutoModelForCausalLM.from_pretrained(BASE)


def classifier():
    model = AutoModelForSequenceClassification.from_pretrained(BASE, num_labels=1)
    model.config.pad_token_id = tokenizer.pad_token_id
    return model


for name in ["sft", "policy-brief"]:
    folder = exported("linear", f"{name}-adapter")
    with claim(f"PEFT opens our adapter of {name} and gives our log-probabilities") as notes:
        model = PeftModel.from_pretrained(causal(), folder).eval()
        own = flat(ours(texts, BASE, model_folder("linear", name.replace("-", ":"))))
        notes.append(close(logprobs(model), own, 2e-4))
        notes.append("by its base's name: " + close(logprobs(AutoPeftModelForCausalLM.from_pretrained(folder).eval()), own, 2e-4))
        merged = AutoModelForCausalLM.from_pretrained(exported("linear", f"{name}-float32")).eval()
        notes.append("merged by us: " + close(logprobs(merged), own, 2e-4))
        notes.append("merged by PEFT: " + close(logprobs(model.merge_and_unload()), own, 2e-4))
        plain = close(logprobs(causal().eval()), own, 1e9)
        assert float(plain.split()[-1]) > 1e-2, "the adapter changes nothing"

with claim("PEFT opens our adapter of the reward model, score head included, and gives our scores") as notes:
    model = PeftModel.from_pretrained(classifier(), exported("linear", "reward-adapter")).eval()
    own = [row["score"] for row in ours(texts, BASE, model_folder("linear", "reward"))]
    notes.append(close(scores(model), own, 2e-4))

for task, model in [("CAUSAL_LM", causal()), ("SEQ_CLS", classifier())]:
    with claim(f"we open an adapter that PEFT made and give its results ({task})") as notes:
        torch.manual_seed(1)
        targets = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
        # Not initialised for training: B is random too, so that the adapter changes something.
        config = LoraConfig(task_type=task, r=4, lora_alpha=8, target_modules=targets, init_lora_weights=False)
        model = get_peft_model(model, config).eval()
        folder = WORK / f"of-peft-{task}"
        model.save_pretrained(folder)
        rows = ours(texts, BASE, folder)
        if task == "CAUSAL_LM":
            notes.append(close(flat(rows), logprobs(model), 2e-4))
        else:
            notes.append(close([row["score"] for row in rows], scores(model), 2e-4))
