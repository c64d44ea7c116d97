#!/usr/bin/env python3
"""Goldens of the model tests: transformers in fp32 on the small models' weights, as each form of them dequantizes.

usage: model_goldens.py MODELS OUT
  MODELS: tests/golden/models     OUT: tests/golden/model
Needs torch, transformers, bitsandbytes, safetensors.
"""
import json
import os
import sys

import bitsandbytes
import bitsandbytes.functional as bnb
import torch
import transformers
from safetensors.torch import load_file
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

VERSIONS = {"torch": torch.__version__, "transformers": transformers.__version__, "bitsandbytes": bitsandbytes.__version__}
FORMS = [
    {"weights": "nf4", "group_size": 64, "double_quant": True},
    {"weights": "nf4", "group_size": 64, "double_quant": False},
    {"weights": "nf4", "group_size": 128, "double_quant": True},
    {"weights": "bf16", "group_size": 64, "double_quant": True},
]


def held(weight, form):
    """What a Linear's weight is worth once the server holds it in this form."""
    if form["weights"] == "bf16":
        return weight.bfloat16().float()
    # As one long row: bitsandbytes 0.50.2 on AVX-512 dequantizes wrongly when groups straddle rows.
    codes, state = bnb.quantize_4bit(weight.float().reshape(1, -1), blocksize=form["group_size"],
                                     compress_statistics=form["double_quant"], quant_type="nf4")
    return bnb.dequantize_4bit(codes, state).float().reshape(weight.shape)


def sixteen_bits(weight):
    """The file's own 16-bit type, else fp16 (every value of these models fits)."""
    return weight.float() if weight.dtype in (torch.float16, torch.bfloat16) else weight.half().float()


def load(cls, folder, form, **kwargs):
    config = transformers.AutoConfig.from_pretrained(folder)
    config._attn_implementation = "eager"
    config.dtype = torch.float32
    model = cls(config, **kwargs).float().eval()
    state = {}
    for name, weight in load_file(os.path.join(folder, "model.safetensors")).items():
        if weight.dim() == 2 and ("embed" in name or "lm_head" in name):
            state[name] = sixteen_bits(weight)
        elif weight.dim() == 2:
            state[name] = held(weight, form)
        else:
            state[name] = weight.float()
    if config.tie_word_embeddings and "lm_head.weight" not in state and cls is transformers.LlamaForCausalLM:
        state["lm_head.weight"] = state["model.embed_tokens.weight"]
    wanted = model.state_dict().keys()
    model.load_state_dict({name: weight for name, weight in state.items() if name in wanted})
    return model


@torch.no_grad()
def generate(model, prompt_ids, count):
    """Greedy ids; how far the best logit was ahead; and the log-probability of each prompt token and each new one."""
    ids, gaps = list(prompt_ids), []
    for _ in range(count):
        best = torch.topk(model(input_ids=torch.tensor([ids])).logits[0, -1], 2)
        ids.append(int(best.indices[0]))
        gaps.append(round(float(best.values[0] - best.values[1]), 5))
    logprobs = torch.log_softmax(model(input_ids=torch.tensor([ids])).logits[0], dim=-1)
    logprobs = [round(float(logprobs[i, ids[i + 1]]), 5) for i in range(len(ids) - 1)]
    return {"prompt_ids": prompt_ids, "ids": ids[len(prompt_ids):], "gaps": gaps, "logprobs": logprobs}


def decoder_cases(models):
    prompts = {"stories260k": ([1, 403, 407, 261, 378], 60), "tiny_chat": ([1, 300, 17, 411, 5, 499, 260, 31, 77], 24)}
    cases = []
    for name, (prompt_ids, count) in prompts.items():
        for form in FORMS:
            model = load(transformers.LlamaForCausalLM, os.path.join(models, name), form)
            cases.append({"model": name, **form, **generate(model, prompt_ids, count)})
    return cases


def published(models):
    """stories260K's greedy text as llama2.c publishes it: the same ids as the unquantized file gives."""
    model = transformers.LlamaForCausalLM.from_pretrained(os.path.join(models, "stories260k"), dtype=torch.float32).eval()
    return generate(model, [1, 403, 407, 261, 378], 60)["ids"]


@torch.no_grad()
def encoder_cases(models):
    folder = os.path.join(models, "tiny_bert")
    texts = [[2, 3], [2, 17, 3], [2, 40, 41, 42, 200, 237, 5, 3], [2] + [(7 * i) % 230 + 5 for i in range(46)] + [3]]
    cases = []
    for form in FORMS:
        model = load(transformers.BertModel, folder, form, add_pooling_layer=False)
        for ids in texts:
            hidden = model(input_ids=torch.tensor([ids])).last_hidden_state[0]
            rows = {"mean": hidden.mean(dim=0), "cls": hidden[0], "last": hidden[-1]}
            for pooling, vector in rows.items():
                cases.append({**form, "ids": ids, "pooling": pooling,
                              "values": [round(float(value), 5) for value in vector]})
    return cases


def rope_cases():
    kinds = [
        {"rope_type": "default", "rope_theta": 10000.0, "head_dim": 64},
        {"rope_type": "default", "rope_theta": 100000.0, "head_dim": 64},
        {"rope_type": "default", "rope_theta": 500000.0, "head_dim": 8},
        {"rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0, "head_dim": 128},
        {"rope_type": "llama3", "rope_theta": 500000.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
         "original_max_position_embeddings": 8192, "head_dim": 128},
        {"rope_type": "llama3", "rope_theta": 500000.0, "factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
         "original_max_position_embeddings": 8192, "head_dim": 64},
    ]
    cases = []
    for kind in kinds:
        parameters = {key: value for key, value in kind.items() if key != "head_dim"}
        config = transformers.LlamaConfig(hidden_size=kind["head_dim"], num_attention_heads=1, head_dim=kind["head_dim"],
                                          max_position_embeddings=131072, rope_parameters=parameters)
        if kind["rope_type"] == "default":
            frequencies = transformers.models.llama.modeling_llama.LlamaRotaryEmbedding(config).inv_freq
        else:
            frequencies, _ = ROPE_INIT_FUNCTIONS[kind["rope_type"]](config, torch.device("cpu"))
        cases.append({**kind, "inv_freq": [float(value) for value in frequencies]})
    return cases


def write(path, golden, cases):
    """One case a line: small, and a change reads well in a diff."""
    head = json.dumps(golden, indent=1)[:-2]
    lines = ",\n".join(json.dumps(case, separators=(",", ":")) for case in cases)
    with open(path, "w", encoding="ascii") as file:
        file.write(f'{head},\n "cases": [\n{lines}\n]}}\n')


def main():
    models, out = sys.argv[1:]
    os.makedirs(out, exist_ok=True)
    write(os.path.join(out, "rope.json"), {"versions": VERSIONS}, rope_cases())
    write(os.path.join(out, "encoder.json"), {"versions": VERSIONS}, encoder_cases(models))
    write(os.path.join(out, "decoder.json"), {"versions": VERSIONS, "published": published(models)}, decoder_cases(models))


if __name__ == "__main__":
    main()
