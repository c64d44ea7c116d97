#!/usr/bin/env python3
"""Gathers what compare_peers.sh's steps wrote into results.jsonl and report.md: ratios with floor and goal.

usage: peers_report.py OUT BIG BIG_IQ4 SMALL SMALL_IQ4     (models of ours and of llama.cpp, as GGUF)
"""
import json
import pathlib
import statistics
import struct
import sys

MODES = ("fp32", "bf16", "int8")
KNEE = 0.6  # of read bandwidth: above it llama.cpp's decode at batch 1 is judged by its bytes


def lines(path):
    """The JSON lines of a step's output, wherever they stand in it."""
    found = []
    for line in path.read_text(errors="replace").splitlines() if path.exists() else []:
        if line.startswith("{"):
            try:
                found.append(json.loads(line))
            except json.JSONDecodeError:  # a step that was cut short
                pass
    return found


def gguf_tensors(path):
    """Name and bytes of every tensor of a GGUF file: each reaches to the next one."""
    sizes = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
    with open(path, "rb") as file:

        def take(form):
            return struct.unpack("<" + form, file.read(struct.calcsize("<" + form)))

        def text():
            return file.read(take("Q")[0]).decode()

        def skip(kind):
            if kind == 8:
                text()
            elif kind == 9:
                element, count = take("IQ")
                if element in sizes:
                    file.seek(sizes[element] * count, 1)
                else:
                    for _ in range(count):
                        skip(element)
            else:
                file.seek(sizes[kind], 1)

        file.read(8)
        tensors, keys = take("QQ")
        for _ in range(keys):
            text()
            skip(take("I")[0])
        offsets = {}
        for _ in range(tensors):
            name = text()
            take(f"{take('I')[0]}Q")
            offsets[name] = take("IQ")[1]
        data = file.tell() + -file.tell() % 32
        end = file.seek(0, 2) - data
    order = sorted(offsets, key=offsets.get)
    after = [offsets[name] for name in order[1:]] + [end]
    return {name: stop - offsets[name] for name, stop in zip(order, after)}


def read_per_token(path):
    """Bytes that llama.cpp reads for a token: all but an embedding that is no head too."""
    tensors = gguf_tensors(path)
    unread = tensors["token_embd.weight"] if "output.weight" in tensors else 0
    return sum(tensors.values()) - unread


class Report:
    def __init__(self, out):
        self.out = pathlib.Path(out)
        self.rounds = sorted({int(path.name.split(".")[0]) for path in (self.out / "steps").glob("[0-9]*.*")})
        self.results = []

    def step(self, number, name):
        return lines(self.out / "steps" / f"{number}.{name}")

    def figure(self, goal, what, pairs, floor=None, aim=None, unit="tokens/s", lower=False):
        """pairs: (ours, theirs) of each round, either None where a step failed; their ratio is the figure."""
        whole = [(ours, theirs) for ours, theirs in pairs if ours and theirs]
        line = {"goal": goal, "what": what, "unit": unit, "floor": floor, "aim": aim,
                "ours": [ours for ours, _ in whole], "theirs": [theirs for _, theirs in whole]}
        if whole:
            ratios = [ours / theirs for ours, theirs in whole]
            line |= {"ratio": statistics.median(ratios), "least": min(ratios), "most": max(ratios)}
            line["verdict"] = self.verdict(line["ratio"], floor, aim, lower)
        else:
            line["verdict"] = "not run"
        self.results.append(line)

    @staticmethod
    def verdict(ratio, floor, aim, lower):
        def reached(bound):
            return bound is not None and (ratio <= bound if lower else ratio >= bound)

        if aim is None:
            return ""
        return "goal" if reached(aim) else "floor" if reached(floor) else "below"

    def each(self, ours, theirs):
        return [(ours(number), theirs(number)) for number in self.rounds]

    # --- what each step tells ---

    def nibble(self, number, model, mode, key):
        for line in self.step(number, f"nibble.{model}.{mode}"):
            if key in line:
                return line[key]
        return None

    def llama_prefill(self, number, model):
        """The best rate of a prompt, whatever its length."""
        rates = [line["avg_ts"] for line in self.step(number, f"llama.{model}") if line.get("n_prompt")]
        return max(rates, default=None)

    def llama_decode(self, number, model, batch):
        rates = [line["speed_tg"] for line in self.step(number, f"llama.{model}.batched") if line.get("pl") == batch]
        if batch == 1:
            rates += [line["avg_ts"] for line in self.step(number, f"llama.{model}.bench") if line.get("n_gen")]
        return max(rates, default=None)

    def read_bandwidth(self):
        rates = [peak["per_second"] for number in self.rounds for line in self.step(number, "peaks")
                 for peak in line["peaks"] if peak["name"].startswith("read")]
        return max(rates, default=None)

    def ours_per_token(self, model, gguf):
        """Bytes of our own: the weights and, where the head is the embedding, that."""
        tied = "output.weight" not in gguf_tensors(gguf)
        for number in self.rounds:
            for mode in MODES:
                for line in self.step(number, f"nibble.{model}.{mode}"):
                    return line["weights_bytes"] + (line["embeddings_bytes"] if tied else 0)
        return None

    # --- what is compared ---

    def language(self, goal, model, gguf, peer, floors):
        """floors[what][mode] = (floor, goal)."""
        prompts = [key for number in self.rounds for mode in MODES for line in self.step(number, f"nibble.{model}.{mode}")
                   for key in line if key.startswith("prefill_")]
        prefill = prompts[0] if prompts else "prefill"
        for mode in MODES:
            for batch in (1, 32):
                pairs = self.each(lambda n: self.nibble(n, model, mode, f"decode_batch_{batch}_tokens_per_second"),
                                  lambda n: self.llama_decode(n, model, batch))
                floor, aim = floors[f"decode {batch}"].get(mode, (None, None))
                note = ""
                if batch == 1:
                    floor, aim, note = self.by_bytes(model, gguf, peer, pairs, floor, aim)
                self.figure(goal, f"{model}, {mode}: decode, batch {batch}{note}", pairs, floor, aim)
            pairs = self.each(lambda n: self.nibble(n, model, mode, prefill),
                              lambda n: self.llama_prefill(n, f"{model}.bench"))
            floor, aim = floors["prefill"].get(mode, (None, None))
            self.figure(goal, f"{model}, {mode}: {prefill.split('_tokens')[0].replace('_', ' ')}", pairs, floor, aim)

    def by_bytes(self, model, gguf, peer, pairs, floor, aim):
        """Where the peer is bound by memory itself, nobody can be faster than the bytes allow."""
        try:
            theirs, ours, read = read_per_token(peer), self.ours_per_token(model, gguf), self.read_bandwidth()
        except OSError:
            return floor, aim, ""
        rates = [rate for _, rate in pairs if rate]
        if not (rates and ours and read):
            return floor, aim, ""
        share = statistics.median(rates) * theirs / read
        note = f" (llama.cpp at {share:.2f} of read; {ours / 1e6:.0f} MB a token, it {theirs / 1e6:.0f})"
        if share <= KNEE or aim is None:
            return floor, aim, note
        return min(floor, 0.9 * theirs / ours), 0.9 * theirs / ours, note + ", judged by bytes"

    def matmul(self):
        def ours(number, form, mode, m):
            for line in self.step(number, "nibble.matmul"):
                for product in line["products"]:
                    if product["name"].startswith(form + " ") and product["name"].endswith(f", {mode}, M={m}"):
                        return 1 / product["seconds"]
            return None

        def theirs(number, name, m):
            for line in self.step(number, "torch.matmul"):
                if line.get("name") == name and line.get("m") == m:
                    return 1 / line["seconds"]
            return None

        rows = sorted({line["m"] for number in self.rounds for line in self.step(number, "torch.matmul") if "m" in line})
        for name, aims in (("bitsandbytes nf4", True), ("torch bf16", False)):
            for form, mode in (("nf4+dq", "fp32"), ("nf4+dq", "bf16"), ("nf4", "bf16"), ("nf4+dq", "int8")):
                for m in rows or [1]:
                    aim = (1.3 if m == 1 else 1.15) if aims and mode == "bf16" else None
                    pairs = self.each(lambda n: ours(n, form, mode, m), lambda n: theirs(n, name, m))
                    self.figure("matmul", f"{form}, {mode}, M={m}, beside {name}", pairs, 1.0 if aim else None, aim, "calls/s")

    def minilm(self):
        def torch_rate(number):
            rates = [line["texts_per_second"] for line in self.step(number, "torch.minilm") if "texts_per_second" in line]
            return max(rates, default=None)

        def llama_rate(number):
            rate = self.llama_prefill(number, "minilm")
            return rate / 32 if rate else None  # texts of 32 tokens

        key = "embed_64_texts_of_32_tokens_texts_per_second"
        for mode in MODES:
            for name, rate, floor, aim in (("torch, the faster of fp32 and bf16", torch_rate, 1.0, 1.3),
                                           ("llama.cpp F16, its fastest length", llama_rate, 2.5, 3.5)):
                if mode == "int8":
                    floor, aim = None, None
                pairs = self.each(lambda n: self.nibble(n, "minilm", mode, key), rate)
                self.figure("C7b", f"MiniLM, {mode}: 64 texts of 32 tokens, beside {name}", pairs, floor, aim, "texts/s")

    def cold(self):
        def ours(number):
            for line in self.step(number, "nibble.cold"):
                return line["load_seconds"] + line["time_to_first_token_prompt_30_ms"] / 1e3
            return None

        def read(number):
            return next((line["seconds"] for line in self.step(number, "read.cold")), None)

        self.figure("C10", "NF4 checkpoint to first token, beside reading its files, cold", self.each(ours, read), 1.6, 1.15,
                    "s", lower=True)

    def write(self):
        failed = [line for line in lines(self.out / "steps.jsonl") if line["code"] != 0]
        with (self.out / "results.jsonl").open("w") as file:
            for line in self.results + failed:
                file.write(json.dumps(line) + "\n")
        text = ["| goal | what | ours | theirs | unit | ratio | of rounds | floor | goal | reached |",
                "|---|---|--:|--:|---|--:|---|--:|--:|---|"]
        for line in self.results:
            number = lambda values: ", ".join(f"{value:.4g}" for value in values) or "-"
            bound = lambda value: "" if value is None else f"{value:.2f}"
            ratio, spread = "-", "-"
            if "ratio" in line:
                ratio, spread = f"**{line['ratio']:.2f}**", f"{line['least']:.2f}–{line['most']:.2f}"
            text.append(f"| {line['goal']} | {line['what']} | {number(line['ours'])} | {number(line['theirs'])} | {line['unit']} "
                        f"| {ratio} | {spread} | {bound(line['floor'])} | {bound(line['aim'])} | {line['verdict']} |")
        text += ["", *(f"Failed: {line['step']}, exit code {line['code']} after {line['seconds']} s (limit {line['limit']} s)"
                       for line in failed)]
        facts = next((line for number in self.rounds for line in self.step(number, "peaks")), {})
        head = [f"{facts.get('cpu', 'unknown CPU')}, {facts.get('threads', '?')} threads, row {facts.get('isa', '?')}; "
                f"{len(self.rounds)} rounds in turn", ""]
        (self.out / "report.md").write_text("\n".join(head + text) + "\n")


def main():
    if len(sys.argv) != 6:
        sys.exit(__doc__)
    out, big, big_peer, small, small_peer = sys.argv[1:]
    report = Report(out)
    c7 = {"decode 1": {mode: (1.1, 1.6) for mode in ("fp32", "bf16", "int8")},
          "prefill": {"bf16": (1.1, 1.35), "int8": (1.5, 2.0)},
          "decode 32": {"bf16": (1.1, 1.4), "int8": (1.5, 2.5)}}
    smollm2 = {"decode 1": {"fp32": (1.0, 1.2), "bf16": (1.0, 1.2), "int8": (1.0, 1.2)},
               "prefill": {}, "decode 32": {"bf16": (1.0, 1.5), "int8": (1.0, 1.5)}}
    report.language("C7", "1b", big, big_peer, c7)
    report.language("SmolLM2", "smollm2", small, small_peer, smollm2)
    report.matmul()
    report.minilm()
    report.cold()
    report.write()


if __name__ == "__main__":
    main()
