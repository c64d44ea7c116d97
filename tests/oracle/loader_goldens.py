#!/usr/bin/env python3
"""Makes tests/golden/loader: GGUF and Hugging Face files written by their own libraries.

blocks.gguf  every block type: a tensor of random bytes named by its type, and "<type>.values",
             what gguf.quants.dequantize makes of them in fp32
pair.gguf    a random Llama as llama.cpp's converter writes it (q and k permuted, rope_freqs)
pair/        the same model as transformers writes it (version 5's config.json, sharded)

usage: loader_goldens.py tests/golden/loader
"""
import importlib.metadata
import pathlib
import sys

import gguf
import numpy as np
import torch
import transformers
from gguf import GGMLQuantizationType as Type
from gguf.quants import dequantize

VERSIONS = ", ".join(f"{package} {importlib.metadata.version(package)}"
                     for package in ("gguf", "numpy", "torch", "transformers", "safetensors"))
# Where a block keeps its fp16 numbers, in bytes.
HALVES = {Type.Q4_0: [0], Type.Q4_1: [0, 2], Type.Q5_0: [0], Type.Q5_1: [0, 2], Type.Q8_0: [0],
          Type.Q4_K: [0, 2], Type.Q5_K: [0, 2], Type.Q6_K: [208]}


def random_blocks(rng, kind, rows, blocks_per_row):
    """Random bytes; fp16 fields keep every finite value, subnormals and zeros among them."""
    values, size = gguf.GGML_QUANT_SIZES[kind]
    raw = rng.integers(0, 256, (rows * blocks_per_row, size), dtype=np.uint8)
    for at in HALVES.get(kind, range(0, size, 2) if size == 2 else []):
        half = raw[:, at].astype(np.uint16) | raw[:, at + 1].astype(np.uint16) << 8
        half = np.where((half & 0x7c00) == 0x7c00, half & 0x83ff, half)  # no infinity, no NaN
        half[0], half[1] = 0x8000, 0x0001  # minus zero, the smallest subnormal
        raw[:, at], raw[:, at + 1] = half & 255, half >> 8
    return raw.reshape(rows, blocks_per_row * size)


def write_blocks(path):
    rng = np.random.default_rng(3)
    writer = gguf.GGUFWriter(path, "golden")
    writer.add_string("golden.versions", VERSIONS)
    for kind in [Type.F32, Type.F16, Type.BF16, *HALVES]:
        values, _ = gguf.GGML_QUANT_SIZES[kind]
        if kind == Type.F32:
            raw = rng.normal(size=(4, 16)).astype(np.float32)
            expected = raw
        else:
            raw = random_blocks(rng, kind, 4, {1: 16, 32: 2, 256: 1}[values])
            if kind == Type.BF16:  # random exponents: NaN and infinity out
                half = raw.view(np.uint16)
                half[:] = np.where((half & 0x7f80) == 0x7f80, half & 0xbfff, half)
            expected = dequantize(raw, kind)
        assert np.isfinite(expected).all()
        writer.add_tensor(kind.name, raw, raw_dtype=kind)
        writer.add_tensor(f"{kind.name}.values", expected.astype(np.float32))
    finish(writer)


def finish(writer):
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def permute(weight, heads):
    """Rows of each head from halves to pairs, as llama.cpp's convert_hf_to_gguf does."""
    shape = weight.shape
    halves = weight.reshape(heads, 2, shape[0] // heads // 2, *shape[1:])
    return halves.swapaxes(1, 2).reshape(shape)


def rope_freqs(config):
    """llama3's divisors per frequency, as llama.cpp's convert_hf_to_gguf computes them."""
    rope, dim = config.rope_parameters, config.head_dim
    freqs = 1.0 / (rope["rope_theta"] ** (torch.arange(0, dim, 2, dtype=torch.float32) / dim))
    original = rope["original_max_position_embeddings"]
    low, high, factor = rope["low_freq_factor"], rope["high_freq_factor"], rope["factor"]
    out = []
    for freq in freqs:
        wavelength = 2 * np.pi / freq.item()
        if wavelength < original / high:
            out.append(1)
        elif wavelength > original / low:
            out.append(factor)
        else:
            smooth = (original / wavelength - low) / (high - low)
            out.append(1 / ((1 - smooth) / factor + smooth))
    return np.array(out, dtype=np.float32)


NAMES = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output",
         "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
         "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
         "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
         "mlp.down_proj": "ffn_down"}


def gguf_name(name):
    stem, suffix = name.rsplit(".", 1)
    if stem.startswith("model.layers."):
        _, _, layer, part = stem.split(".", 3)
        return f"blk.{layer}.{NAMES[part]}.{suffix}"
    return f"{NAMES[stem]}.{suffix}"


def make_model():
    torch.manual_seed(3)
    config = transformers.LlamaConfig(
        hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=16, vocab_size=40, max_position_embeddings=64,
        attention_bias=True, tie_word_embeddings=False, rms_norm_eps=1e-5, bos_token_id=1,
        eos_token_id=2,
        rope_parameters={"rope_type": "llama3", "rope_theta": 500000.0, "factor": 8.0,
                         "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                         "original_max_position_embeddings": 32})
    model = transformers.LlamaForCausalLM(config).to(torch.bfloat16)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape) * 0.1)
    return model


def write_pair(directory):
    model = make_model()
    config = model.config
    model.save_pretrained(directory / "pair", max_shard_size="20KB")
    for file in (directory / "pair").iterdir():
        file.chmod(0o644)

    writer = gguf.GGUFWriter(directory / "pair.gguf", "llama")
    writer.add_string("golden.versions", VERSIONS)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(config.head_dim)
    writer.add_value_length(config.head_dim)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list([f"t{i}" for i in range(config.vocab_size)])
    writer.add_token_types([3] * 3 + [1] * (config.vocab_size - 3))
    writer.add_token_merges(["t 1", "t 2"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_eot_token_id(3)
    writer.add_add_bos_token(True)
    writer.add_chat_template("{{ messages[0]['content'] }}")
    writer.add_tensor("rope_freqs.weight", rope_freqs(config))
    for name, tensor in model.state_dict().items():
        values = tensor.float().numpy()
        if ".q_proj." in name:
            values = permute(values, config.num_attention_heads)
        if ".k_proj." in name:
            values = permute(values, config.num_key_value_heads)
        if values.ndim == 1:  # as the converter: vectors in fp32
            writer.add_tensor(gguf_name(name), np.ascontiguousarray(values))
        else:
            raw = gguf.quants.quantize(np.ascontiguousarray(values), Type.BF16)
            writer.add_tensor(gguf_name(name), raw, raw_dtype=Type.BF16)
    finish(writer)


if __name__ == "__main__":
    out = pathlib.Path(sys.argv[1])
    out.mkdir(parents=True, exist_ok=True)
    write_blocks(out / "blocks.gguf")
    write_pair(out)
