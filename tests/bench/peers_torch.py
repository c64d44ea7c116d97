#!/usr/bin/env python3
"""Times what PyTorch and bitsandbytes do on the CPU beside Nibble, one JSON line a figure.

usage: peers_torch.py matmul NxK ROWS,ROWS...   a matrix as bf16 linear and as bitsandbytes' NF4, from memory
       peers_torch.py embed MODEL               64 texts of 32 tokens through a sentence-transformers folder
"""
import copy
import json
import os
import statistics
import sys
import time

import torch

MEMORY = 256 << 20  # bytes of distinct weights at least, so that no cache holds them
SAMPLES = 30
SECONDS = 8  # of one figure at most


def tell(name, seconds, **more):
    print(json.dumps({"name": name, "seconds": statistics.median(seconds), "best": min(seconds),
                      "samples": len(seconds), "threads": torch.get_num_threads(), **more}), flush=True)


def times(call, warm=3, samples=SAMPLES):
    """Seconds of each of some calls; the first ones, which pack and allocate, do not count."""
    for turn in range(warm):
        call(turn)
    taken, end = [], time.perf_counter() + SECONDS
    while len(taken) < samples and (len(taken) < 3 or time.perf_counter() < end):
        begin = time.perf_counter()
        call(len(taken))
        taken.append(time.perf_counter() - begin)
    return taken


def copies_of(layer, size):
    return [layer] + [copy.deepcopy(layer) for _ in range(MEMORY // size)]


def nf4_layer(n, k):
    import bitsandbytes

    layer = bitsandbytes.nn.Linear4bit(k, n, bias=False, compute_dtype=torch.bfloat16, quant_type="nf4",
                                       compress_statistics=False)
    layer.weight = bitsandbytes.nn.Params4bit(torch.randn(n, k) * 0.02, requires_grad=False, quant_type="nf4",
                                              compress_statistics=False)
    return layer.to("cpu").eval()


def matmul(shape, rows):
    n, k = (int(side) for side in shape.split("x"))
    makers = {
        "torch bf16": (lambda: torch.nn.Linear(k, n, bias=False, dtype=torch.bfloat16).eval(), 2 * n * k),
        "bitsandbytes nf4": (lambda: nf4_layer(n, k), n * k // 2),
    }
    for name, (make, size) in makers.items():
        try:
            layers = copies_of(make(), size)
            for m in rows:
                x = torch.randn(m, k, dtype=torch.bfloat16)
                taken = times(lambda turn: layers[turn % len(layers)](x), len(layers))
                tell(name, taken, m=m, n=n, k=k, copies=len(layers))
        except Exception as error:  # one that a machine cannot run must not hide the other
            print(json.dumps({"name": name, "error": str(error)}), flush=True)


def embed(path):
    import transformers

    texts, tokens = 64, 32
    for dtype in (torch.float32, torch.bfloat16):
        model = transformers.AutoModel.from_pretrained(path, dtype=dtype).eval()
        ids = torch.randint(1000, 20000, (texts, tokens))

        def call(_):
            hidden = model(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state
            return torch.nn.functional.normalize(hidden.float().mean(dim=1), dim=1)

        taken = times(call, samples=10)
        tell("torch " + str(dtype).removeprefix("torch."), taken, texts=texts, tokens=tokens,
             texts_per_second=texts / statistics.median(taken))


def main():
    torch.manual_seed(1)
    torch.set_num_threads(int(os.environ.get("NIBBLE_PEERS_THREADS") or len(os.sched_getaffinity(0))))
    with torch.inference_mode():
        if sys.argv[1:2] == ["matmul"] and len(sys.argv) == 4:
            matmul(sys.argv[2], [int(m) for m in sys.argv[3].split(",")])
        elif sys.argv[1:2] == ["embed"] and len(sys.argv) == 3:
            embed(sys.argv[2])
        else:
            sys.exit(__doc__)


if __name__ == "__main__":
    main()
