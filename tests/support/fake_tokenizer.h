// A tokenizer that can be read off a page: one token per byte, then two special ones, then some
// longer tokens that only decoding makes.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "engine/tokenizer/tokenizer.h"

namespace nibble {

class FakeTokenizer final : public Tokenizer {
 public:
  static constexpr int32_t kBegin = 256;  // put first when special tokens are added
  static constexpr int32_t kEnd = 257;    // put last; the end of an answer
  static constexpr int32_t kFirstWord = 258;

  explicit FakeTokenizer(std::vector<std::string> words = {}) : words_(std::move(words)) {
    bos_id_ = kBegin;
    eos_id_ = kEnd;
  }

  std::string TokenBytes(int32_t id, bool) const override {
    if (id == kBegin) return "<s>";
    if (id == kEnd) return "</s>";
    if (id >= kFirstWord) return words_[static_cast<size_t>(id - kFirstWord)];
    return std::string(1, static_cast<char>(id));
  }
  int32_t vocab_size() const override { return kFirstWord + static_cast<int32_t>(words_.size()); }
  bool IsSpecial(int32_t id) const override { return id == kBegin || id == kEnd; }
  std::optional<int32_t> TokenToId(std::string_view token) const override {
    for (int32_t id = 0; id < vocab_size(); ++id) {
      if (TokenBytes(id, false) == token) return id;
    }
    return std::nullopt;
  }
  int64_t MemoryBytes() const override { return 0; }

 protected:
  absl::StatusOr<Encoding> EncodeText(std::string_view text,
                                      const EncodeOptions& options) const override {
    Encoding encoding;
    if (options.add_special_tokens) encoding.ids.push_back(kBegin);
    for (const char c : text) encoding.ids.push_back(static_cast<unsigned char>(c));
    if (options.add_special_tokens) encoding.ids.push_back(kEnd);
    return encoding;
  }

 private:
  const std::vector<std::string> words_;
};

}  // namespace nibble
