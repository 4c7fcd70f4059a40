"""transformers and CTranslate2 in their best lossless setting.

In: model folders and token ids. Out: what they give. Both compute in float32, from the same bfloat16 file.
"""

import json
import os

import torch
import transformers

from side_by_side import THREADS, say

torch.set_num_threads(THREADS)
torch.set_grad_enabled(False)
transformers.utils.logging.set_verbosity_error()


class Transformers:
    def __init__(self, folder):
        self.model = transformers.AutoModelForCausalLM.from_pretrained(
            folder, dtype=torch.float32, attn_implementation="sdpa").eval()
        self.score = None

    @torch.inference_mode()
    def generate(self, prompts, max_tokens):
        ids = torch.tensor(prompts)
        out = self.model.generate(
            ids, attention_mask=torch.ones_like(ids), do_sample=True, temperature=1.0, top_k=0, top_p=1.0,
            max_new_tokens=max_tokens, pad_token_id=0)
        assert out.shape[1] == ids.shape[1] + max_tokens
        return out[:, ids.shape[1]:].tolist()

    @torch.inference_mode()
    def logprobs(self, prompt, response):
        """Of each token of the response, and how far each is from the most likely one."""
        logits = self.model(torch.tensor([prompt + response])).logits[0, len(prompt) - 1:-1].log_softmax(-1)
        taken = logits.gather(1, torch.tensor(response)[:, None])[:, 0]
        return taken.tolist(), (logits.max(-1).values - taken).tolist()

    @torch.inference_mode()
    def next_logits(self, prompt, pad_to=0):
        """The logits after a prompt, padded on the left to a fixed length where `pad_to` says so."""
        pad = max(0, pad_to - len(prompt))
        ids = torch.tensor([[0] * pad + prompt])
        mask = torch.tensor([[0] * pad + [1] * len(prompt)]) if pad else None
        return self.model(ids, attention_mask=mask, logits_to_keep=1, use_cache=False).logits[0, -1]


class Scorer:
    """The same weights with their reward head."""

    def __init__(self, folder):
        self.model = transformers.AutoModelForSequenceClassification.from_pretrained(
            folder, num_labels=1, dtype=torch.float32, attn_implementation="sdpa").eval()

    @torch.inference_mode()
    def score(self, prompt):
        hidden = self.model.model(torch.tensor([prompt]), use_cache=False).last_hidden_state
        return self.model.score(hidden[0, -1]).item()


class CTranslate2:
    def __init__(self, folder, compute_type):
        import ctranslate2

        place = folder / f"ctranslate2-{compute_type}"
        if not (place / "complete").exists():
            say(f"converting {folder.name} for CTranslate2 ({compute_type})")
            converter = ctranslate2.converters.TransformersConverter(os.fspath(folder))
            converter.convert(os.fspath(place), quantization=compute_type, force=True)
            # It wants these tokens named; `min_length` keeps the end from being sampled.
            config = json.loads((place / "config.json").read_text())
            config |= {"bos_token": "w0", "eos_token": "w0", "unk_token": "w0"}
            (place / "config.json").write_text(json.dumps(config))
            (place / "complete").touch()
        self.generator = ctranslate2.Generator(
            os.fspath(place), compute_type=compute_type, inter_threads=1, intra_threads=THREADS)

    def generate(self, prompts, max_tokens):
        results = self.generator.generate_batch(
            [words(prompt) for prompt in prompts], max_batch_size=len(prompts), max_length=max_tokens,
            min_length=max_tokens, sampling_topk=0, sampling_temperature=1.0, include_prompt_in_result=False)
        ids = [result.sequences_ids[0] for result in results]
        assert all(len(row) == max_tokens for row in ids), [len(row) for row in ids]
        return ids

    def logprobs(self, prompt, response):
        scored = self.generator.score_batch([words(prompt + response)])[0]
        return scored.log_probs[-len(response):]


def words(ids):
    return [f"w{id}" for id in ids]
