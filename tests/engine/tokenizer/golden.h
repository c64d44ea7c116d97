// The committed goldens of tests/oracle/tokenizer_goldens.py, read and compared.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "engine/loader/checkpoint.h"
#include "engine/tokenizer/tokenizer.h"

namespace nibble::golden {

inline const std::string kFolder = std::string(NIBBLE_SOURCE_DIR) + "/tests/golden/tokenizer/";

// The whole file; empty when there is none.
std::string ReadFile(const std::string& path);
const std::vector<std::string>& Corpus();

// tiny/NAME.json as files of a model.
HuggingFaceTokenizer TinyFiles(std::string_view name);
// The tokenizer of those; fails the test and gives null when it does not load.
std::unique_ptr<Tokenizer> LoadTiny(std::string_view name);
// The same vocabulary, merges and special tokens as GGUF would hold them.
GgufTokenizer TinyAsGguf(std::string_view name, std::string_view pre);

// Compares with every line of a golden: ids, offsets, both decodings, the stream decoder.
void ExpectEqualsGolden(const Tokenizer& tokenizer, const std::string& golden);

uint64_t Fnv(std::string_view text);

}  // namespace nibble::golden
