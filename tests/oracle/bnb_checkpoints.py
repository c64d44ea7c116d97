#!/usr/bin/env python3
"""Makes tests/golden/bnb: tiny random models that transformers + bitsandbytes quantized and saved, and what they compute.

Each folder is a checkpoint as save_pretrained wrote it, and expected.json:
  matrices  per quantized matrix its form, FNV-1a 64 of its dequantized fp32 bytes, and some values as fp32 words
  prompt_ids, greedy_ids, min_gap, logits   (Llama) 24 greedy ids; how far the best logit was ahead at the least; the
            logits of the prompt's last position
  inputs    (BERT) token ids and the mean of the last hidden states
The oracle of 4 bits is fp32 arithmetic on bitsandbytes' dequantize_4bit; of 8 bits, bitsandbytes called row by row, so
that a row's outliers do not change its neighbours. Embeddings and heads in 16 bits, as the server holds them.

usage: bnb_checkpoints.py tests/golden/bnb
Needs torch, transformers, bitsandbytes, accelerate, safetensors.
"""
import json
import logging
import pathlib
import shutil
import sys
import tempfile

import bitsandbytes
import bitsandbytes.functional as bnb
import numpy as np
import torch
import transformers
from safetensors import safe_open

VERSIONS = {"torch": torch.__version__, "transformers": transformers.__version__, "bitsandbytes": bitsandbytes.__version__}
FOUR = {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}
NESTED = {**FOUR, "bnb_4bit_use_double_quant": True}
EIGHT = {"load_in_8bit": True}
BF16, F16, F32 = torch.bfloat16, torch.float16, torch.float32
PROMPT = [1, 87, 15, 200, 42, 131, 9]
INPUTS = [[2, 3], [2, 17, 211, 3], [2, 40, 41, 42, 200, 237, 5, 3], [2] + [(7 * i) % 250 + 5 for i in range(30)] + [3]]

# name: (class, dtype of the source, its shape, BitsAndBytesConfig, more)
MODELS = {
    "nf4": ("llama", BF16, {"hidden": 96, "ffn": 112}, {**FOUR, "bnb_4bit_compute_dtype": BF16}, {}),
    "nf4_nested": ("llama", F16, {"hidden": 112, "ffn": 200, "layers": 1}, {**NESTED, "bnb_4bit_compute_dtype": F16}, {}),
    "fp4": ("llama", BF16, {"hidden": 64, "ffn": 172, "layers": 1}, {"load_in_4bit": True}, {}),
    "fp4_nested_bf16_storage": ("llama", BF16, {"hidden": 96, "ffn": 112, "layers": 1},
                                {**NESTED, "bnb_4bit_quant_type": "fp4", "bnb_4bit_quant_storage": BF16}, {}),
    "nf4_f16_storage": ("llama", F16, {"hidden": 96, "ffn": 112, "layers": 1}, {**FOUR, "bnb_4bit_quant_storage": F16},
                        {"group_size": 256}),
    "nf4_f32_storage": ("llama", F32, {"hidden": 64, "ffn": 172, "layers": 1}, {**FOUR, "bnb_4bit_quant_storage": F32}, {}),
    "nf4_nested_sharded": ("llama", BF16, {"hidden": 96, "ffn": 172, "bias": True, "layers": 1}, NESTED,
                           {"group_size": 32, "max_shard_size": "16KB"}),
    "nf4_skip": ("llama", BF16, {"hidden": 64, "ffn": 112, "tied": False},
                 {**NESTED, "llm_int8_skip_modules": ["lm_head", "q_proj", "model.layers.1.mlp"]}, {"group_size": 4096}),
    "int8": ("llama", F16, {"hidden": 96, "ffn": 112, "layers": 1}, EIGHT, {}),
    "int8_outliers": ("llama", BF16, {"hidden": 64, "ffn": 172, "layers": 1}, {**EIGHT, "llm_int8_threshold": 2.5}, {}),
    "bert_nf4_nested": ("bert", F16, {"hidden": 96, "ffn": 200, "layers": 1}, NESTED, {}),
    "bert_fp4": ("bert", BF16, {"hidden": 64, "ffn": 172, "layers": 1}, {"load_in_4bit": True}, {}),
    "bert_int8": ("bert", F16, {"hidden": 64, "ffn": 112, "layers": 1}, EIGHT, {}),
}


def make_source(kind, dtype, shape, seed):
    torch.manual_seed(seed)
    common = {"hidden_size": shape["hidden"], "intermediate_size": shape["ffn"], "num_attention_heads": 4, "vocab_size": 256,
              "num_hidden_layers": shape.get("layers", 2), "max_position_embeddings": 64}
    if kind == "llama":
        config = transformers.LlamaConfig(**common, num_key_value_heads=2, tie_word_embeddings=shape.get("tied", True),
                                          attention_bias=shape.get("bias", False), bos_token_id=1, eos_token_id=0)
        model = transformers.LlamaForCausalLM(config)
    else:
        model = transformers.BertModel(transformers.BertConfig(**common))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            scale = 0.5 if "embed" in name or "lm_head" in name else 0.2
            parameter.copy_(torch.randn(parameter.shape) * scale + (1 if "norm" in name.lower() and "weight" in name else 0))
    return model.to(dtype).eval()


def regroup(model, source, group_size):
    """transformers has no option for the group size; bitsandbytes' own Params4bit has."""
    weights = dict(source.named_parameters())
    for name, module in model.named_modules():
        if isinstance(module, bitsandbytes.nn.Linear4bit):
            old = module.weight
            module.weight = bitsandbytes.nn.Params4bit(
                weights[name + ".weight"].detach().clone(), requires_grad=False, blocksize=group_size, quant_type=old.quant_type,
                compress_statistics=old.compress_statistics, quant_storage=old.quant_storage, module=module).to("cpu")


def quantize(source, form, more, out):
    """Saves `source` as bitsandbytes has it in this form; gives the quantized model."""
    auto = transformers.AutoModel if source.config.model_type == "bert" else transformers.AutoModelForCausalLM
    with tempfile.TemporaryDirectory() as folder:
        source.save_pretrained(folder)
        model = auto.from_pretrained(folder, quantization_config=transformers.BitsAndBytesConfig(**form), dtype=source.dtype,
                                     device_map="cpu").eval()
    if "group_size" in more:
        regroup(model, source, more["group_size"])
    model.save_pretrained(out, max_shard_size=more.get("max_shard_size", "5GB"))
    for file in out.iterdir():
        file.chmod(0o644)
    return model


def read_tensors(folder):
    tensors, files = {}, {}
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, "pt") as file:
            for name in file.keys():
                tensors[name], files[name] = file.get_tensor(name), path.name
    return tensors, files


def dequantize_four(tensors, name):
    """A matrix of the file in fp32, by bitsandbytes as one long row (its AVX-512 code misreads groups that straddle rows)."""
    parts = {key[len(name) + 1:]: tensor for key, tensor in tensors.items() if key.startswith(name + ".")}
    nested = "nested_absmax" in parts
    state = bnb.QuantState.from_dict(dict(parts), torch.device("cpu"))
    shape, state.dtype = state.shape, torch.float32
    state.shape = torch.Size([1, shape.numel()])
    values = bnb.dequantize_4bit(tensors[name].view(torch.uint8).reshape(-1, 1), state).reshape(shape)
    # The same by numerics.md 5 and 6, in numpy.
    codes = tensors[name].view(torch.uint8).numpy().reshape(-1)
    codes = np.stack([codes >> 4, codes & 15], 1).reshape(-1)[: shape.numel()]
    absmax = parts["absmax"].numpy()
    if nested:
        scales = parts["nested_absmax"].numpy().repeat(256)[: absmax.size]
        absmax = parts["nested_quant_map"].numpy()[absmax] * scales + np.float32(state.offset.item())
    again = parts["quant_map"].numpy()[codes] * absmax.repeat(state.blocksize)[: shape.numel()]
    assert (again == values.numpy().reshape(-1)).all(), name
    form = {"type": state.quant_type, "group_size": state.blocksize, "double_quant": nested,
            "source_dtype": {"bfloat16": "bf16", "float16": "fp16", "float32": "fp32"}[
                json.loads(bytes(parts[f"quant_state.bitsandbytes__{state.quant_type}"].tolist()))["dtype"]]}
    # The stored map's own zeros: bitsandbytes' code has +0 or -0 for FP4's code 8 as the CPU goes.
    return torch.from_numpy(again.reshape(shape)), form


def dequantize_eight(tensors, name):
    scales = tensors[name.removesuffix("weight") + "SCB"]
    return bnb.int8_vectorwise_dequant(tensors[name], scales), {"type": "int8", "source_dtype": "fp16"}


def fnv1a(raw):
    digest = 0xCBF29CE484222325
    for byte in raw:
        digest = ((digest ^ byte) * 0x100000001B3) & 0xFFFFFFFFFFFFFFFF
    return f"{digest:016x}"


def describe(name, values, form):
    flat = np.ascontiguousarray(values.numpy().reshape(-1))
    picked = sorted({0, 1, flat.size - 1, *range(0, flat.size, max(1, flat.size // 13))})
    return {"name": name, **form, "shape": list(values.shape), "fnv1a64": fnv1a(flat.tobytes()),
            "values": {str(i): f"{flat[i:i + 1].view(np.uint32)[0]:08x}" for i in picked}}


class RowByRow(torch.nn.Module):
    """A Linear8bitLt that sees one row at a time."""

    def __init__(self, linear):
        super().__init__()
        self.linear = linear

    def forward(self, x):
        rows = x.reshape(-1, x.shape[-1])
        return torch.cat([self.linear(rows[i : i + 1]) for i in range(len(rows))]).reshape(*x.shape[:-1], -1)


def sixteen_bits(weight):
    return weight.float() if weight.dtype in (F16, BF16) else weight.half().float()


@torch.no_grad()
def make_oracle(model, tensors, matrices):
    """`model` with plain fp32 linears on the dequantized matrices, or 8-bit ones row by row; all else in fp32."""
    for name, module in list(model.named_modules()):
        if isinstance(module, bitsandbytes.nn.Linear4bit):
            linear = torch.nn.Linear(module.in_features, module.out_features, bias=module.bias is not None)
            linear.weight.copy_(matrices[name + ".weight"])
            if module.bias is not None:
                linear.bias.copy_(module.bias.float())
            model.set_submodule(name, linear)
        elif isinstance(module, bitsandbytes.nn.Linear8bitLt):
            model.set_submodule(name, RowByRow(module))
    for name, parameter in model.named_parameters():
        if not parameter.dtype.is_floating_point:
            continue
        held = "embed" in name and parameter.dim() == 2 or "lm_head" in name
        parameter.data = sixteen_bits(parameter.data) if held else parameter.data.float()
    model.config._attn_implementation = "eager"
    return model.eval()


@torch.no_grad()
def run_llama(model):
    ids, gaps, prompt_logits = list(PROMPT), [], None
    for _ in range(24):
        logits = model(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1]
        prompt_logits = logits if prompt_logits is None else prompt_logits
        best = torch.topk(logits, 2)
        gaps.append(float(best.values[0] - best.values[1]))
        ids.append(int(best.indices[0]))
    return {"prompt_ids": PROMPT, "greedy_ids": ids[len(PROMPT):], "min_gap": round(min(gaps), 5),
            "logits": [float(f"{value:.9g}") for value in prompt_logits.tolist()]}


@torch.no_grad()
def run_bert(model):
    inputs = []
    for ids in INPUTS:
        hidden = model(input_ids=torch.tensor([ids])).last_hidden_state[0]
        inputs.append({"ids": ids, "mean": [float(f"{value:.9g}") for value in hidden.mean(dim=0).tolist()]})
    return {"inputs": inputs}


def make(name, out, seed):
    kind, dtype, shape, form, more = MODELS[name]
    folder = out / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    source = make_source(kind, dtype, shape, seed)
    model = quantize(source, form, more, folder)
    tensors, files = read_tensors(folder)
    matrices, described = {}, []
    for key in tensors:
        if key + ".absmax" in tensors:
            matrices[key], about = dequantize_four(tensors, key)
        elif key.endswith("weight") and key.removesuffix("weight") + "SCB" in tensors:
            matrices[key], about = dequantize_eight(tensors, key)
        else:
            continue
        described.append(describe(key, matrices[key], about))
    assert described, name
    if "max_shard_size" in more:  # some matrix lies apart from one of its companions
        assert any(files[key] != files[key + ".quant_map"] for key in matrices)
    oracle = make_oracle(model, tensors, matrices)
    results = run_llama(oracle) if kind == "llama" else run_bert(oracle)
    return {"versions": VERSIONS, "seed": seed, "kind": kind, **results}, described


def write(path, golden, described):
    """One matrix a line: small, and a change reads well in a diff."""
    head = "".join(f" {json.dumps(key)}: {json.dumps(value)},\n" for key, value in golden.items())
    lines = ",\n".join(json.dumps(one, separators=(",", ":")) for one in described)
    path.write_text(f'{{\n{head} "matrices": [\n{lines}\n]}}\n')


def main():
    transformers.utils.logging.disable_progress_bar()
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)  # bitsandbytes' nested offset depends on the number
    out = pathlib.Path(sys.argv[1])
    for name in sys.argv[2:] or MODELS:
        smallest_gap = 0.05 if "int8" in name else 0.003
        for seed in range(100):  # greedy ids that no rounding changes
            golden, described = make(name, out, seed)
            ids = golden.get("greedy_ids", range(1, 10))
            if golden.get("min_gap", 1) > smallest_gap and len(set(ids)) > 8 and 0 not in ids:  # 0 ends an answer
                break
        else:
            sys.exit(f"{name}: no seed gives clear answers")
        write(out / name / "expected.json", golden, described)
        print(name, golden["seed"], golden.get("min_gap"), golden.get("greedy_ids"), flush=True)


if __name__ == "__main__":
    main()
