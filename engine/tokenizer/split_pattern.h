// The regular expressions that tokenizers split text by, each as a function written by hand: where
// a match that begins at `at` ends, or `at` itself when none begins there (no match is empty). All
// texts are valid UTF-8 and at < text.size(). A text is only ever one piece: looking ahead past its
// end sees nothing, as in Hugging Face.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace nibble {

using Scanner = size_t (*)(std::string_view text, size_t at);

// GPT-2's, which ByteLevel has built in:
// 's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
size_t ScanGpt2(std::string_view text, size_t at);

// Of Llama 3, of Qwen 2 (\p{N} for \p{N}{1,3}), the last of DeepSeek V3's three (which leaves
// gaps), GPT-4o's and Mistral's Tekken; their texts stand in split_pattern.cc.
size_t ScanLlama3(std::string_view text, size_t at);
size_t ScanQwen2(std::string_view text, size_t at);
size_t ScanDeepSeek(std::string_view text, size_t at);
size_t ScanO200k(std::string_view text, size_t at);
size_t ScanTekken(std::string_view text, size_t at);
size_t ScanThreeNumbers(std::string_view text, size_t at);  // \p{N}{1,3}
size_t ScanHanAndKana(std::string_view text, size_t at);    // [一-龥぀-ゟ゠-ヿ]+

size_t ScanNumericCharacter(std::string_view text, size_t at);  // Digits, individual
size_t ScanNumericRun(std::string_view text, size_t at);        // Digits, contiguous
size_t ScanSpace(std::string_view text, size_t at);             // \s+
size_t ScanBertPunctuation(std::string_view text, size_t at);   // one of BERT's punctuation

// The scanner for the exact text of a Split's regular expression, carriage returns and line feeds
// written as characters or as escapes; null when it is none of those known.
Scanner FindScanner(std::string_view regex);

}  // namespace nibble
