#!/usr/bin/env python3
"""Writes a Llama of 1B shape with random fp16 weights as GGUF, for measuring speed: 2.3 GB, no packages needed.

usage: make_1b_gguf.py OUT [LAYERS]      (16 layers unless told)

Its tokenizer is the 256 bytes, one merge and names that no text has, so that any text is tokens.
"""
import array
import random
import struct
import sys

HIDDEN, FFN, HEADS, KV_HEADS, HEAD_DIM, VOCAB = 2048, 8192, 32, 8, 64, 32000
UINT32, INT32, FLOAT32, BOOL, STRING, ARRAY = 4, 5, 6, 7, 8, 9  # GGUF's value types
F32, F16 = 0, 1  # and tensor types
ALIGNMENT = 32


def text(value):
    data = value.encode()
    return struct.pack("<Q", len(data)) + data


def field(key, kind, value):
    """One key with its value; an ARRAY's value is (element type, values)."""
    scalars = {UINT32: "<I", INT32: "<i", FLOAT32: "<f", BOOL: "<?"}
    if kind == ARRAY:
        element, values = value
        packed = [text(v) if element == STRING else struct.pack(scalars[element], v) for v in values]
        body = struct.pack("<IQ", element, len(values)) + b"".join(packed)
    else:
        body = text(value) if kind == STRING else struct.pack(scalars[kind], value)
    return text(key) + struct.pack("<I", kind) + body


def byte_tokens():
    """GPT-2's printable character for each byte."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in plain]
    return [chr(code) for code in plain] + [chr(256 + i) for i in range(len(others))]


def fields(layers):
    tokens = byte_tokens() + ["th"]
    tokens += [f"<{i}>" for i in range(len(tokens), VOCAB)]
    return [
        field("general.architecture", STRING, "llama"),
        field("general.name", STRING, "random 1B"),
        field("general.file_type", UINT32, 1),
        field("llama.context_length", UINT32, 8192),
        field("llama.embedding_length", UINT32, HIDDEN),
        field("llama.block_count", UINT32, layers),
        field("llama.feed_forward_length", UINT32, FFN),
        field("llama.attention.head_count", UINT32, HEADS),
        field("llama.attention.head_count_kv", UINT32, KV_HEADS),
        field("llama.attention.layer_norm_rms_epsilon", FLOAT32, 1e-5),
        field("llama.rope.freq_base", FLOAT32, 500000.0),
        field("llama.rope.dimension_count", UINT32, HEAD_DIM),
        field("llama.vocab_size", UINT32, VOCAB),
        field("tokenizer.ggml.model", STRING, "gpt2"),
        field("tokenizer.ggml.pre", STRING, "gpt-2"),
        field("tokenizer.ggml.tokens", ARRAY, (STRING, tokens)),
        field("tokenizer.ggml.token_type", ARRAY, (INT32, [1] * VOCAB)),
        field("tokenizer.ggml.merges", ARRAY, (STRING, ["t h"])),
        field("tokenizer.ggml.eos_token_id", UINT32, VOCAB - 1),
        field("tokenizer.ggml.add_bos_token", BOOL, False),
    ]


def tensors(layers):
    """Name and shape [N, K], or [N] of ones, in the order of the file."""
    yield "token_embd.weight", (VOCAB, HIDDEN)
    yield "output.weight", (VOCAB, HIDDEN)
    yield "output_norm.weight", (HIDDEN,)
    for i in range(layers):
        for name in ("attn_norm", "ffn_norm"):
            yield f"blk.{i}.{name}.weight", (HIDDEN,)
        yield f"blk.{i}.attn_q.weight", (HEADS * HEAD_DIM, HIDDEN)
        yield f"blk.{i}.attn_k.weight", (KV_HEADS * HEAD_DIM, HIDDEN)
        yield f"blk.{i}.attn_v.weight", (KV_HEADS * HEAD_DIM, HIDDEN)
        yield f"blk.{i}.attn_output.weight", (HIDDEN, HEADS * HEAD_DIM)
        yield f"blk.{i}.ffn_gate.weight", (FFN, HIDDEN)
        yield f"blk.{i}.ffn_up.weight", (FFN, HIDDEN)
        yield f"blk.{i}.ffn_down.weight", (HIDDEN, FFN)


def size(shape):
    return 4 * shape[0] if len(shape) == 1 else 2 * shape[0] * shape[1]


def padding(length):
    return -length % ALIGNMENT


def write(path, layers):
    source = random.Random(1)
    count = 1 << 20
    # Normal numbers twice over: a matrix begins anywhere in the first half and goes round.
    noise = struct.pack(f"<{count}e", *(source.gauss(0, 0.02) for _ in range(count))) * 2
    infos, offset = [], 0
    for name, shape in tensors(layers):
        dimensions = struct.pack(f"<I{len(shape)}Q", len(shape), *reversed(shape))
        kind = F32 if len(shape) == 1 else F16
        infos.append(text(name) + dimensions + struct.pack("<IQ", kind, offset))
        offset += size(shape) + padding(size(shape))
    keys = fields(layers)
    header = b"GGUF" + struct.pack("<IQQ", 3, len(infos), len(keys)) + b"".join(keys + infos)
    with open(path, "wb") as out:
        out.write(header + bytes(padding(len(header))))
        for _, shape in tensors(layers):
            left = size(shape)
            if len(shape) == 1:
                out.write(array.array("f", [1.0] * shape[0]).tobytes())
            while len(shape) == 2 and left > 0:
                begin = 2 * source.randrange(count)
                piece = noise[begin : begin + min(left, 2 * count)]
                out.write(piece)
                left -= len(piece)
            out.write(bytes(padding(size(shape))))


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    write(sys.argv[1], int(sys.argv[2]) if len(sys.argv) == 3 else 16)
