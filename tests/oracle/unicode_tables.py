"""Asks Hugging Face's `tokenizers` about every code point and writes

  engine/tokenizer/unicode_tables.cc   the table the engine looks characters up in
  tests/golden/tokenizer/unicode.txt   hashes, per 4096 code points, of every property and mapping

The library mixes several Unicode versions (Oniguruma's, Rust's, and two older crates), so its answers,
not a Unicode release, are the definition. Usage: unicode_tables.py REPOSITORY_ROOT
"""

import subprocess
import sys
import textwrap

import tokenizers
from tokenizers import Regex, normalizers, pre_tokenizers

CODE_POINTS = [c for c in range(0x110000) if not 0xD800 <= c < 0xE000]
CHUNK = 4096

# Bit numbers; engine/tokenizer/unicode.h has the same.
BITS = ["Lu", "Ll", "Lt", "Lm", "Lo", "M", "N", "P", "S", "space", "numeric", "word", "bert_punct",
        "bert_removed", "bert_mark", "nfc_sensitive", "nfc_unknown"]


def chunks():
    for i in range(0, len(CODE_POINTS), CHUNK):
        yield CODE_POINTS[i:i + CHUNK]


def removed_by(pre_tokenizer):
    found = set()
    for chunk in chunks():
        kept = set()
        for _, (begin, end) in pre_tokenizer.pre_tokenize_str("".join(map(chr, chunk))):
            kept.update(range(begin, end))
        found.update(c for i, c in enumerate(chunk) if i not in kept)
    return found


def splits_after_letter(pre_tokenizer):
    found = set()
    for chunk in chunks():
        text = "".join("a" + chr(c) for c in chunk)
        begins = {begin for _, (begin, _) in pre_tokenizer.pre_tokenize_str(text)}
        found.update(c for i, c in enumerate(chunk) if 2 * i + 1 in begins)
    return found


def word_characters():
    found = set()
    for chunk in chunks():
        text = "".join("a" + chr(c) + " " for c in chunk)
        ends = {end for _, (begin, end) in pre_tokenizers.Whitespace().pre_tokenize_str(text)
                if end - begin == 2}
        found.update(c for i, c in enumerate(chunk) if 3 * i + 2 in ends)
    return found


def bert(**on):
    flags = dict(clean_text=False, handle_chinese_chars=False, strip_accents=False, lowercase=False)
    return normalizers.BertNormalizer(**{**flags, **on}).normalize_str


def nfc_unknown(combining):
    """Code points that have a combining class or a canonical decomposition in utf8proc's tables and
    none in the library's, which stopped at Unicode 9."""
    nfd = normalizers.NFD().normalize_str
    found = set()
    for line in combining:
        code, cls, decomposed = line.split(" ", 2)
        c, cls = int(code, 16), int(cls)
        if decomposed and nfd(chr(c)) == chr(c):
            found.add(c)
        if not decomposed and cls:
            high_moves = cls >= 240 or nfd("\u0345" + chr(c)) == chr(c) + "\u0345"
            low_moves = cls <= 1 or nfd(chr(c) + "\u0334") == "\u0334" + chr(c)
            if not (high_moves and low_moves):
                found.add(c)
    return found


UTF8PROC_DUMP = r"""
#include <stdio.h>
#include <utf8proc.h>
int main(void) {
  for (int c = 0; c < 0x110000; ++c) {
    if (c >= 0xD800 && c < 0xE000) continue;
    utf8proc_int32_t out[8];
    int last = 0;
    long n = utf8proc_decompose_char(c, out, 8, UTF8PROC_DECOMPOSE | UTF8PROC_STABLE, &last);
    int cls = utf8proc_get_property(c)->combining_class;
    int decomposed = n != 1 || out[0] != c;
    if (cls || decomposed) printf("%x %d %s\n", c, cls, decomposed ? "d" : "");
  }
}
"""


def utf8proc_facts():
    subprocess.run(["cc", "-x", "c", "-", "-o", "utf8proc_dump", "-lutf8proc"], input=UTF8PROC_DUMP,
                   text=True, check=True)
    return subprocess.run(["./utf8proc_dump"], capture_output=True, text=True,
                          check=True).stdout.splitlines()


def properties():
    sets = {name: removed_by(pre_tokenizers.Split(Regex(r"\p{%s}" % name), "removed"))
            for name in BITS[:9]}
    sets["space"] = removed_by(pre_tokenizers.Split(Regex(r"\s"), "removed"))
    assert sets["space"] == removed_by(pre_tokenizers.WhitespaceSplit())
    sets["numeric"] = splits_after_letter(pre_tokenizers.Digits(individual_digits=True))
    sets["word"] = word_characters()
    sets["bert_punct"] = splits_after_letter(pre_tokenizers.BertPreTokenizer()) - sets["space"]
    clean, strip = bert(clean_text=True), bert(strip_accents=True)
    sets["bert_removed"] = {c for c in CODE_POINTS if clean(chr(c)) == ""}
    sets["bert_mark"] = {c for c in CODE_POINTS if strip("a" + chr(c)) == "a"}
    nfc = normalizers.NFC().normalize_str
    changed = {c for c in CODE_POINTS if nfc(chr(c)) != chr(c)}
    jamo = set(range(0x1161, 0x1176)) | set(range(0x11A8, 0x11C3))
    sets["nfc_sensitive"] = sets["M"] | changed | jamo
    sets["nfc_unknown"] = nfc_unknown(utf8proc_facts())
    return sets


def bits_of(sets):
    bits = [0] * 0x110000
    for i, name in enumerate(BITS):
        for c in sets[name]:
            bits[c] |= 1 << i
    return bits


def write_table(path, bits):
    kinds = sorted(set(bits), key=lambda b: (-bits.count(b), b))
    runs, begin = [], 0
    for c in range(1, 0x110001):
        if c == 0x110000 or bits[c] != bits[begin]:
            runs.append((c - begin) * 32 + kinds.index(bits[begin]))
            begin = c
    assert len(kinds) <= 32
    with open(path, "w") as out:
        out.write(f"""// Written by tests/oracle/unicode_tables.py from tokenizers {tokenizers.__version__}; do not edit.
// kRuns covers all code points from 0 up: each entry is length * 32 + an index into kKinds.
#include "engine/tokenizer/unicode_tables.h"

namespace nibble::unicode {{

constexpr std::array<uint32_t, {len(kinds)}> kKinds = {{{{{", ".join(hex(k) for k in kinds)}}}}};

namespace {{

// clang-format off
constexpr uint32_t kRuns[] = {{
{textwrap.fill(", ".join(map(str, runs)), 100)}}};
// clang-format on
static_assert(std::size(kRuns) == kNumRuns);

// begin * 32 + kind of each run, so that a run is found by its beginning.
constexpr std::array<uint32_t, kNumRuns> Begins() {{
  std::array<uint32_t, kNumRuns> begins{{}};
  uint32_t begin = 0;
  for (size_t i = 0; i < kNumRuns; ++i) {{
    begins[i] = begin * 32 + kRuns[i] % 32;
    begin += kRuns[i] / 32;
  }}
  return begins;
}}

// The run that holds each page's first code point.
constexpr std::array<uint16_t, kNumPages + 1> FirstRuns() {{
  std::array<uint16_t, kNumPages + 1> first{{}};
  uint32_t end = 0;
  size_t page = 0;
  for (size_t i = 0; i < kNumRuns; ++i) {{
    end += kRuns[i] / 32;
    while (page < kNumPages && page * kPageSize < end) first[page++] = static_cast<uint16_t>(i);
  }}
  first[kNumPages] = kNumRuns - 1;
  return first;
}}

constexpr std::array<uint32_t, 128> Ascii() {{
  std::array<uint32_t, 128> ascii{{}};
  size_t c = 0;
  for (size_t i = 0; c < 128; ++i) {{
    for (uint32_t left = kRuns[i] / 32; left > 0 && c < 128; --left) ascii[c++] = kKinds[kRuns[i] % 32];
  }}
  return ascii;
}}

}}  // namespace

constinit const std::array<uint32_t, 128> kAscii = Ascii();
constinit const std::array<uint32_t, kNumRuns> kRunBegins = Begins();
constinit const std::array<uint16_t, kNumPages + 1> kFirstRuns = FirstRuns();

}}  // namespace nibble::unicode
""")
    subprocess.run(["clang-format", "-i", path], check=True)
    print(f"{len(runs)} runs, {len(kinds)} kinds: update unicode_tables.h")


def fnv(data):
    h = 0xCBF29CE484222325
    for b in data:
        h = (h ^ b) * 0x100000001B3 % 2**64
    return h


def write_golden(path, bits):
    mappings = {"nfc": normalizers.NFC().normalize_str, "nfd": normalizers.NFD().normalize_str,
                "lower": normalizers.Lowercase().normalize_str}
    with open(path, "w") as out:
        out.write(f"# tokenizers {tokenizers.__version__}: FNV-1a of 4096 code points' property bits"
                  " (4 bytes each, little-endian), and of their NFC, NFD and lower case\n")
        for begin in range(0, 0x110000, CHUNK):
            block = [c for c in range(begin, begin + CHUNK) if not 0xD800 <= c < 0xE000]
            if not block:
                continue
            hashes = [fnv(b"".join(bits[c].to_bytes(4, "little") for c in block))]
            hashes += [fnv("\n".join(f(chr(c)) for c in block).encode()) for f in mappings.values()]
            out.write(f"{begin:x} " + " ".join(f"{h:016x}" for h in hashes) + "\n")


def main():
    root = sys.argv[1]
    bits = bits_of(properties())
    write_table(root + "/engine/tokenizer/unicode_tables.cc", bits)
    write_golden(root + "/tests/golden/tokenizer/unicode.txt", bits)


if __name__ == "__main__":
    main()
