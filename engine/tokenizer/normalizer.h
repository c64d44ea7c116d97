// What is done to a text before it is split: nothing, NFC, or BERT's cleaning.
#pragma once

#include <string_view>

#include "engine/tokenizer/traced_text.h"

namespace nibble {

struct BertNormalizerOptions {
  bool clean_text = true;            // drop control characters, turn white space into spaces
  bool handle_chinese_chars = true;  // a space on both sides of each ideograph
  bool strip_accents = true;
  bool lowercase = true;
};

// Immutable; thread-safe. Holds nothing on the heap.
class Normalizer {
 public:
  Normalizer() = default;  // changes nothing
  static Normalizer Nfc();
  static Normalizer Bert(const BertNormalizerOptions& options);

  bool changes_nothing() const { return kind_ == Kind::kNone; }
  // The normalized text: `in` itself when it does not change, else a view of *buffer.
  TracedText Normalize(const TracedText& in, bool traced, TracedBuffer* buffer) const;

 private:
  enum class Kind { kNone, kNfc, kBert };
  void NormalizeBert(std::vector<TracedCharacter>* characters) const;

  Kind kind_ = Kind::kNone;
  BertNormalizerOptions bert_;
};

}  // namespace nibble
