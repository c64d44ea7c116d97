"""Writes tests/golden/tokenizer from Hugging Face's `tokenizers`:

  corpus.json        the texts
  tiny/NAME.json     a complete small tokenizer of each pipeline, trained here
  tiny/NAME.golden   what the library makes of the corpus with it
  real/NAME.golden   the same for real vocabularies, which are not ours to commit

A golden's lines: "ids|plain|offsets|kept|skipped" for each text of the corpus, where ids are with
special tokens added (mostly "#count:hash"), plain is the hash of the ids without,
offsets of the offsets with, kept and skipped of the decoded ids with and without special tokens; then
"d ids|kept|skipped" for sequences of random ids. Hashes are the upper half of FNV-1a of
"1 2 ", "0,1 1,2 " or the text.

Usage: tokenizer_goldens.py REPOSITORY_ROOT [TOKENIZERS_DIR [MODELS_DIR]]
  TOKENIZERS_DIR/NAME/tokenizer.json; MODELS_DIR/NAME.gguf and MODELS_DIR/NAME/tokenizer.json
"""

import glob
import json
import os
import random
import sys

import tokenizers
from tokenizers import (AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers,
                        processors, trainers)

CONTRACTIONS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
TAIL = r"|\s*[\r\n]+|\s+(?!\S)|\s+"
L3 = CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*" + TAIL
Q2 = L3.replace(r"\p{N}{1,3}", r"\p{N}")
DS = (r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^""" + "\r\n" + r"\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"
      r"| ?[\p{P}\p{S}]+[" + "\r\n" + r"]*|\s*[" + "\r\n" + r"]+|\s+(?!\S)|\s+")
UPPER, LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
PREFIX = r"[^\r\n\p{L}\p{N}]?"


def cased(contractions, numbers):
    c = contractions + "?" if contractions else ""
    return (f"{PREFIX}{UPPER}*{LOWER}+{c}|{PREFIX}{UPPER}+{LOWER}*{c}|{numbers}"
            r"| ?[^\s\p{L}\p{N}]+[\r\n/]*" + TAIL)


O2 = cased(CONTRACTIONS, r"\p{N}{1,3}")
TK = cased("", r"\p{N}")

TRAINING = """
The server reads a model once and keeps it; what it answers depends on nothing but the request.
She said that they'd come, that we're late, and that it's nobody's fault. I'll go, you'll stay, he'd've
asked. THE END. McDonald's isn't here; DON'T SHOUT, they SAID. Numbers: 1, 22, 333, 4444, 55555, 3.14159,
2024-06-30 12:45:59, 1,000,000. for (int i = 0; i < n; ++i) { sum += x[i] * y[i]; }  // a comment
def f(x):\n    return x ** 2 if x > 0 else -x\n\n\nclass A:\n\tpass\r\n\r\nhttps://example.org/a/b?c=d&e=f
Der Fluß fließt über die Brücke; größer, schöner, höher. L'été dernier, déjà vu, où êtes-vous, ça va?
El niño pequeño comió piña. Xin chào thế giới, tiếng Việt rất đẹp. Příliš žluťoučký kůň úpěl ďábelské ódy.
Привет, мир! Как дела? Ελληνικά γράμματα. שלום עולם. مرحبا بالعالم. नमस्ते दुनिया। สวัสดีชาวโลก
日本語のテキストを読む。カタカナとひらがな。中文分词很有意思，对吗？一二三四五。한국어 문장을 읽습니다.
😀 😃 👍🏽 👨‍👩‍👧‍👦 🏳️‍🌈 ❤️ → ← ∑ √ ∞ € £ ¥ © ® ™ … — – “quoted” ‘single’ «guillemets»
""" * 2

SPECIALS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]


def byte_bpe(pre, size=700, normalizer=None, specials=SPECIALS, **model):
    tokenizer = Tokenizer(models.BPE(**model))
    if normalizer:
        tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(pre) if isinstance(pre, list) else pre
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=size, special_tokens=list(specials), show_progress=False,
                                  initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()))
    tokenizer.train_from_iterator(TRAINING.split("\n"), trainer)
    return tokenizer


def isolated(regex):
    return pre_tokenizers.Split(Regex(regex), "isolated")


def byte_level(use_regex=False, add_prefix_space=False):
    return pre_tokenizers.ByteLevel(add_prefix_space=add_prefix_space, use_regex=use_regex)


def around(before, after=""):
    return lambda t: processors.TemplateProcessing(
        single=f"{before} $A {after}".strip(),
        special_tokens=[(x, t.token_to_id(x)) for x in {before, after} - {""}])


def bert(cased_text, cleanup):
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=not cased_text)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece(cleanup=cleanup)
    trainer = trainers.WordPieceTrainer(
        vocab_size=900, show_progress=False,
        special_tokens=["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"])
    tokenizer.train_from_iterator(TRAINING.split("\n") + ["n't 'm 's 've 're do not ?!.,' and don't"] * 3,
                                  trainer)
    tokenizer.post_processor = around("[CLS]", "[SEP]")(tokenizer)
    return tokenizer


def with_post(tokenizer, make):
    tokenizer.post_processor = make(tokenizer)
    return tokenizer


def with_strange_added_tokens(tokenizer):
    tokenizer.add_tokens([
        AddedToken("word", single_word=True, normalized=False),
        AddedToken("<l>", lstrip=True, normalized=False),
        AddedToken("<r>", rstrip=True, normalized=False),
        AddedToken("<lr>", lstrip=True, rstrip=True, normalized=False),
        AddedToken("<l><r>", normalized=False),
        AddedToken("cafe\u0301", normalized=True),
        AddedToken("na\u00efve", normalized=False),
        AddedToken(" spaced out ", normalized=True),
        AddedToken("\n\n\n", normalized=False),
        AddedToken("日本", normalized=False, single_word=True),
    ])
    tokenizer.add_special_tokens([AddedToken("<sp>", lstrip=True), AddedToken("STRASSE", normalized=True)])
    return tokenizer


def unknown():
    tokenizer = byte_bpe(byte_level(True), 420)
    data = json.loads(tokenizer.to_str())
    model = data["model"]
    gone = {"Ġ", "a", "Ã", "©", "\u0143"}
    keep = [t for t in sorted(model["vocab"], key=model["vocab"].get) if t in SPECIALS or not set(t) & gone]
    model["vocab"] = {t: i for i, t in enumerate(["<unk>"] + keep)}
    model["merges"] = [m for m in model["merges"] if not set("".join(m)) & gone]
    for token in data["added_tokens"]:
        token["id"] = model["vocab"][token["content"]]
    return data


def unknown_as(unk_token, fuse):
    data = unknown()
    data["model"]["unk_token"], data["model"]["fuse_unk"] = unk_token, fuse
    return Tokenizer.from_str(json.dumps(data))


def tiny_tokenizers():
    gpt2_post = lambda t: processors.ByteLevel(trim_offsets=True, add_prefix_space=False)
    return {
        "gpt2": with_post(byte_bpe(byte_level(True)), gpt2_post),
        "llama3": with_post(
            byte_bpe([isolated(L3), byte_level()], ignore_merges=True),
            lambda t: processors.Sequence([processors.ByteLevel(trim_offsets=True),
                                           around("<|endoftext|>")(t)])),
        "qwen2": with_post(byte_bpe([isolated(Q2), byte_level()], normalizer=normalizers.NFC()),
                           lambda t: processors.ByteLevel(trim_offsets=False)),
        "tekken": with_post(byte_bpe([isolated(TK), byte_level()], ignore_merges=True),
                            around("<|endoftext|>")),
        "o200k": byte_bpe([pre_tokenizers.Split(Regex(O2), "removed", invert=True), byte_level()]),
        "deepseek": with_post(
            byte_bpe([isolated(r"\p{N}{1,3}"), isolated("[一-龥぀-ゟ゠-ヿ]+"), isolated(DS), byte_level()],
                     normalizer=normalizers.Sequence([])),
            lambda t: processors.ByteLevel(trim_offsets=False)),
        "smollm": byte_bpe([pre_tokenizers.Digits(individual_digits=True), byte_level(True)]),
        "digit_runs": byte_bpe([pre_tokenizers.Digits(individual_digits=False), byte_level(True, True)],
                               normalizer=normalizers.NFC()),
        "no_split": byte_bpe(byte_level(False)),
        "roberta": with_post(
            byte_bpe(byte_level(True, True), specials=["<s>", "</s>", "<|endoftext|>"]),
            lambda t: processors.RobertaProcessing(("</s>", t.token_to_id("</s>")),
                                                   ("<s>", t.token_to_id("<s>")))),
        "added": with_strange_added_tokens(
            with_post(byte_bpe(byte_level(True), 450, normalizer=normalizers.NFC()), gpt2_post)),
        "vanishing": unknown_as(None, False),
        "unknown": unknown_as("<unk>", False),
        "unknown_fused": unknown_as("<unk>", True),
        "bert": bert(False, True),
        "bert_cased": with_strange_added_tokens(bert(True, False)),
        "bert_added": with_strange_added_tokens(bert(False, True)),
    }


FIXED = [
    "", " ", "a", "\n", "Hello world", " Hello  world ", "Hello, y'all! How are you 😁 ?",
    "The quick brown fox jumps over the lazy dog.", "don't DON'T Don'T we'Re I'LL they'D've 'S 's' ''s 'ſ",
    "it's i'm he'd we'll they've you're can't", "x'sy x'lly 'l 'r 'v'e 're'", "word words sword word word.word",
    *[" " * n + "x" + " " * n for n in (2, 3, 7, 16, 33)], " " * 64, "\t" * 9 + "x", "\n" * 5 + "x",
    "  \n  \n\n  x", "a \n b", "a\r\nb\r\n\r\nc", "a\rb\r", "\r\n", "x  \r\n  y", "if x:\n        y\n\n\n    z",
    "1", "12", "123", "1234", "12345678901234567890", "line\n12345", "line\n\n1", "\n 1 22 333 4444", "3.14e-10",
    "a1b22c333", "x²³¹½¼Ⅷⅷ", "٣٤٥٦٧ १२३४ 五六 𝟘𝟙𝟚𝟛 ➀➁", "₁₂₃",
    "\u00a0", "a\u00a0b", "\u00a0\u00a0x", "a\u2003b\u3000c\u2028d\u2029e\u0085f\u1680g\u205fh\u202fi",
    "zero\u200bwidth\u200cjoin\u200dbom\ufeffsoft\u00adhyphen", "\u180e\u2060\u061c",
    "".join(map(chr, range(32))), "a\x00b\x01c\x1fd", "".join(map(chr, range(0x7f, 0xa1))),
    "\ufffd", "a\ufffdb\ufffd\ufffd", "\ufffe\uffff\U0010ffff\U0001fffe", "\ue000\uf8ff\U000f0000\U00100000",
    "e\u0301 a\u0308\u0304 o\u0302\u0323 \u0301start", "q\u0307\u0323q\u0323\u0307", "\u0344\u0308\u0301",
    "\u1e9b\u0323 \u212b\u2126 \u01c4\u01c5\u01c6 ﬁ ﬂ ﬀ ǆ", "각 \u1100\u1161\u11a8 \u1100\u1161 힣 \u3131",
    "\u09c7\u09be \u0b47\u0b56 \u0dd9\u0dca \u1025\u102e \U00011935\U00011930 \U00011131\U00011127",
    "i\u0307 İstanbul ıI ẞß ΌΔΟΣ ς σ", "Ὀδυσσεύς ᾳ ᾼ ᾲ", "ÀÉÎÕÜ àéîõü ÅåØø Ççñ", "Ꭰꭰ Ა ა Ⓐ Ⅰ 𐐀𐐨 𞤀𞤢 Ɤ Ꟛ 𐵐",
    "日本語のテキスト。カタカナ、ひらがな", "中文分词abc中文123中文", "漢字とEnglishと１２３", "㐀㐁 𠀀𠀁 豈更 丽丸", "한국어 문장입니다.",
    "Привет, мир! ЁЖИК", "שלום עולם", "مرحبا بالعالم ١٢٣", "नमस्ते दुनिया", "สวัสดีชาวโลก", "ខ្មែរ", "မြန်မာ", "தமிழ்", "አማርኛ",
    "😀", "😀😃😄", "👍🏽👍🏿", "👨‍👩‍👧‍👦 👩🏽‍🚀", "🏳️‍🌈🏴‍☠️", "🇩🇪🇫🇷🇯🇵", "❤️ ☺︎ ✈️", "a😀b", "1️⃣2️⃣", "🏴\U000e0067\U000e0062\U000e007f",
    "𝔘𝔫𝔦𝔠𝔬𝔡𝔢 𝒜𝒷 𝟙𝟚", "𐍈𐌰𐌲 𐎀𐎁 𒀀𒁀 𓀀𓂀", "𖠀 𛀀 𝄞𝅘𝅥𝅮 𞠀 🀀🂡", "𪜀 𫝀 𬺰 丽 𰀀", "\U000e0100x\U000e01ef",
    "(A) [b] {C} <d> \"e\" 'f' `g`", "!!!???...,,,;;;:::", "a/b//c///\n/d", "path/to/File.txt\n/usr//bin/", "foo_bar-baz+qux=1*2",
    "#include <stdio.h>\nint main(void) {\n\treturn 0;\n}\n", "SELECT * FROM t WHERE a='x';--", "https://example.org/a?b=c&d=%20#e",
    "camelCaseWord HTTPServer XMLHttpRequest iPhone McDonald ABCdef aBC ǅabc Ǆ", "ABC\u0301DEF \u0301ABC a\u0301BC",
    "ʻokina ʰʲʷ ªº", "“curly” ‘quotes’ — dash – en … ‚low‛", "€£¥₿ ½ © ® ™ ° ± × ÷ ∑√∞", "$100 10% #1 @me &amp; ^_^ ~x~ |y|",
    "<|endoftext|>", "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n", "a<|endoftext|>b", " <|endoftext|> ", "<|im_start|",
    "<|im_start|><|im_start|><|im_end|>", "[CLS] a [SEP] [MASK] [UNK] [PAD] [cls]", "<s>x</s> <s> </s>", "[INST] hi [/INST]",
    "<｜begin▁of▁sentence｜><｜User｜>hi<｜Assistant｜>", "<think>\nhm\n</think>\n\nyes", "<tool_call>{\"name\": \"f\"}</tool_call>",
    "<file_sep><repo_name>x<jupyter_code>", "<|fim_prefix|>a<|fim_suffix|>b<|fim_middle|>", "<SPECIAL_20><unk>",
    "x <l> y", "x  <r>  y", "x \n<lr>\t y", "<l><r>", "<l> <r>  <lr>  <sp> x", "a<l>b<r>c<lr>d", "<r>   <l>", "  <sp>  <|endoftext|>  <r>",
    "café cafe\u0301 CAFÉ cafe", "naïve nai\u0308ve", "so spaced out now", "a\n\n\n\nb", "日本 日本語 x日本 日本x", "Strasse STRASSE straße strasse",
    "supercalifragilisticexpialidocious", "antidisestablishmentarianism " * 3, "x" * 99, "x" * 100, "x" * 101, "ab" * 200, "é" * 101,
    "a.b,c!d?e 'f' do not n't I 'm it 's they 've we 're", "Hello , world ! How ' s it ? Fine .",
]


def random_text(rng):
    pools = [
        [chr(c) for c in range(32, 127)], list(" \t\n\r\u00a0\u2003\u3000\u0085\u2028\u200b\u200d\x0b\x0c\x1c"),
        list("0123456789٣五²½Ⅷ𝟘"), list("sdmtlrveSDMTLRVE'’ſ"), [chr(c) for c in range(0x300, 0x370)],
        list("一二三四五ぁあアｱ가각ᄀ힣豈"), list("😀👨‍👩‍👧‍👦🏳️‍🌈🇩🇪👍🏽"), list("éÉñßİıΣςǅǆÅＡａ"),
        list("/.,!?;:()[]{}<>|@#$%^&*_-+=~`\"\\"), [chr(c) for c in range(0x900, 0xE00)],
        [chr(c) for c in range(0x1E00, 0x2000)], [chr(c) for c in range(0x2190, 0x2800)],
        [chr(c) for c in range(0x10000, 0x12000)], [chr(c) for c in range(0x1D400, 0x1D800)],
    ]
    words = ["'s", "'LL", "don't", "   ", "\n\n", "\r\n", " \n ", "123", "1234567", " the", "The", "hello", "WORLD", "//", "/*\n", "...",
             "<|im_start|>", "[MASK]", "<l>", "<r>", "word", "\u0301", "e\u0301"]
    style = rng.sample(pools, rng.randint(1, 4))
    out = []
    for _ in range(rng.choice([2, 5, 8, 13, 21, 34])):
        kind = rng.random()
        if kind < 0.15:
            out.append(rng.choice(words))
        elif kind < 0.2:
            out.append(rng.choice(" \n\t") * rng.randint(1, 5))
        else:
            out.append(rng.choice(rng.choice(style)))
    return "".join(out)


def corpus():
    rng = random.Random(20250607)
    planes = []
    for plane in range(17):
        for _ in range(3):
            code_points = [plane * 0x10000 + rng.randrange(0x10000) for _ in range(12)]
            planes.append("".join(chr(c) for c in code_points if not 0xD800 <= c < 0xE000))
    return FIXED + planes + [random_text(rng) for _ in range(150)]


def fnv(text):
    value = 0xCBF29CE484222325
    for byte in text.encode():
        value = (value ^ byte) * 0x100000001B3 % 2**64
    return f"{value >> 32:x}"


def spelled(ids):
    return "".join(f"{i} " for i in ids)


def write_golden(path, tokenizer, texts, full_ids):
    tokenizer.no_truncation()
    tokenizer.no_padding()
    rng = random.Random(7)
    size = tokenizer.get_vocab_size()
    with open(path, "w") as out:
        out.write(f"# tokenizers {tokenizers.__version__}\n")
        for text in texts:
            encoding = tokenizer.encode(text)
            plain = tokenizer.encode(text, add_special_tokens=False)
            ids = spelled(encoding.ids)
            fields = [ids if full_ids else f"#{len(encoding.ids)}:{fnv(ids)}", fnv(spelled(plain.ids)),
                      fnv("".join(f"{a},{b} " for a, b in encoding.offsets)),
                      fnv(tokenizer.decode(encoding.ids, skip_special_tokens=False)),
                      fnv(tokenizer.decode(encoding.ids, skip_special_tokens=True))]
            out.write("|".join(fields) + "\n")
        for length in (1, 2, 3, 5, 8, 13, 21, 34, 34, 34):
            ids = [rng.randrange(size) for _ in range(length)]
            out.write("d " + "|".join([spelled(ids), fnv(tokenizer.decode(ids, skip_special_tokens=False)),
                                       fnv(tokenizer.decode(ids, skip_special_tokens=True))]) + "\n")


def from_gguf(path):
    """SmolLM2's pipeline as the model's own tokenizer.json has it, over the GGUF's vocabulary."""
    import gguf
    fields = gguf.GGUFReader(path).fields
    tokens, types, merges = (fields["tokenizer.ggml." + key].contents()
                             for key in ("tokens", "token_type", "merges"))
    assert fields["tokenizer.ggml.pre"].contents() == "smollm"
    tokenizer = Tokenizer(models.BPE({t: i for i, t in enumerate(tokens)},
                                     [tuple(m.split(" ")) for m in merges]))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), byte_level(True)])
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([t for t, kind in zip(tokens, types) if kind == 3])
    return tokenizer


def main():
    golden = sys.argv[1] + "/tests/golden/tokenizer"
    os.makedirs(golden + "/tiny", exist_ok=True)
    os.makedirs(golden + "/real", exist_ok=True)
    texts = corpus()
    with open(golden + "/corpus.json", "w") as out:
        json.dump({"texts": texts}, out, indent=0)
        out.write("\n")
    for name, tokenizer in tiny_tokenizers().items():
        data = json.loads(tokenizer.to_str())
        if name in ("gpt2", "smollm"):  # as old files write merges
            data["model"]["merges"] = [" ".join(m) for m in data["model"]["merges"]]
        with open(f"{golden}/tiny/{name}.json", "w") as out:
            json.dump(data, out, ensure_ascii=name == "qwen2", separators=(",", ":"))
            out.write("\n")
        write_golden(f"{golden}/tiny/{name}.golden", Tokenizer.from_str(json.dumps(data)), texts,
                     name in ("gpt2", "bert"))
    for folder in sys.argv[2:4]:
        for path in sorted(glob.glob(folder + "/*/tokenizer.json")):
            if '"byte_fallback": true' in open(path).read():
                continue  # SentencePiece's kind has its own issue
            name = os.path.basename(os.path.dirname(path))
            write_golden(f"{golden}/real/{name}.golden", Tokenizer.from_file(path), texts, False)
        for path in sorted(glob.glob(folder + "/*.gguf")):
            name = os.path.basename(path).removesuffix(".gguf")
            write_golden(f"{golden}/real/{name}.golden", from_gguf(path), texts, False)


if __name__ == "__main__":
    main()
