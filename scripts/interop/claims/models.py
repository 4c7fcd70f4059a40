"""transformers opens every exported model and gives our token ids, our log-probabilities and our answers."""

import torch
from shared import RUNS, claim, close, exported, model_folder, ours, salmon, sql, WORK
from transformers import AutoModelForCausalLM, AutoTokenizer

INSTRUCTIONS = "select instruction from prompts where split = 'test' order by prompt_id limit 6"


def theirs(model, tokenizer, texts):
    """Token ids and log-probabilities of every token but the first."""
    rows = []
    for text in texts:
        ids = tokenizer((tokenizer.bos_token or "") + text, add_special_tokens=False, return_tensors="pt")["input_ids"]
        with torch.no_grad():
            logprobs = model(ids).logits.float().log_softmax(-1)[0, :-1].gather(1, ids[0, 1:, None])[:, 0]
        rows.append({"ids": ids[0].tolist(), "logprobs": logprobs.tolist()})
    return rows


def opened(folder, **options):
    """A folder as transformers opens it, without a weight missing or left over."""
    model, info = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True, **options)
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys")), info
    return model.eval(), AutoTokenizer.from_pretrained(folder)


def flat(rows):
    return [value for row in rows for value in row["logprobs"]]


for run in RUNS:
    asked = [row["instruction"] for row in sql(run, INSTRUCTIONS)]
    answered = sql(run, "select instruction, response from rollouts order by policy, step, prompt_id limit 8")
    for name in ["base", "sft", "policy-brief"]:
        model, tokenizer = opened(exported(run, f"{name}-float32"), torch_dtype=torch.float32)
        if name == "base":
            texts = [row["response"] for row in answered]
            own = ours(texts, exported(run, "base-float32"))
        else:
            chat = lambda row: [{"role": "user", "content": row["instruction"]}, {"role": "assistant", "content": row["response"]}]
            texts = [tokenizer.apply_chat_template(chat(row), tokenize=False) for row in answered]
            # Ours puts the bos token before a text by itself.
            texts = [text.removeprefix(tokenizer.bos_token) for text in texts]
            folder = model_folder(run, name.replace("-", ":"))
            adapter = (folder / "adapter_config.json").exists()
            own = ours(texts, *((exported(run, "base-float32"), folder) if adapter else (folder,)))
        with claim(f"{run}: transformers gives our token ids and log-probabilities of {name}") as notes:
            found = theirs(model, tokenizer, texts)
            assert [row["ids"] for row in found] == [row["ids"] for row in own], "other token ids"
            notes.append(close(flat(found), flat(own), 2e-4))
            notes.append(f"{len(flat(own))} tokens")
        with claim(f"{run}: {name} in bfloat16 (the default) is near, and the same in both programs") as notes:
            half, _ = opened(exported(run, name), torch_dtype="auto")
            assert half.dtype == torch.bfloat16, half.dtype
            whole = theirs(half.float(), tokenizer, texts)
            notes.append("rounding: " + close(flat(whole), flat(own), 0.5))
            notes.append("programs: " + close(flat(whole), flat(ours(texts, exported(run, name))), 2e-4))
        if name != "base":
            with claim(f"{run}: generate of transformers and `salmon chat` give the same greedy answers of {name}") as notes:
                model.generation_config.do_sample = False
                for instruction in asked:
                    inputs = tokenizer.apply_chat_template(
                        [{"role": "user", "content": instruction}], add_generation_prompt=True, return_dict=True, return_tensors="pt"
                    )
                    out = model.generate(**inputs, max_new_tokens=52)[0, inputs["input_ids"].shape[1] :]
                    answer = tokenizer.decode(out, skip_special_tokens=True).strip()
                    options = ["--model", name.replace("-", ":"), "--temperature", 0, "--max-tokens", 52]
                    mine = salmon("chat", "--run", WORK / run / "run", *options, "--prompt", instruction).strip()
                    assert answer == mine, f"{instruction!r}: {answer!r} against {mine!r}"
                notes.append(f"{len(asked)} answers")
    with claim(f"{run}: shards with an index are the same model, and float16 opens") as notes:
        whole, _ = opened(exported(run, "policy-brief"), torch_dtype=torch.bfloat16)
        parts, _ = opened(exported(run, "policy-brief-shards"), torch_dtype=torch.bfloat16)
        files = len(list(exported(run, "policy-brief-shards").glob("model-*.safetensors")))
        assert files > 1, "one file"
        same = all(torch.equal(a, b) for a, b in zip(whole.state_dict().values(), parts.state_dict().values(), strict=True))
        assert same, "other weights"
        half, _ = opened(exported(run, "policy-brief-float16"), torch_dtype="auto")
        assert half.dtype == torch.float16, half.dtype
        notes.append(f"{files} files")
