// BERT's steps in their order: clean, space out ideographs, strip accents, lower case.
#include "engine/tokenizer/normalizer.h"

#include <algorithm>

#include "engine/tokenizer/canonical_form.h"
#include "engine/tokenizer/unicode.h"

namespace nibble {
namespace {

constexpr char32_t kCapitalIWithDot = 0x130;  // the one character whose lower case is two
constexpr char32_t kDotAbove = 0x307;

bool IsIdeograph(char32_t c) {
  struct Range {
    char32_t first, last;
  };
  constexpr Range kRanges[] = {{0x3400, 0x4DBF},   {0x4E00, 0x9FFF},   {0xF900, 0xFAFF},
                               {0x20000, 0x2A6DF}, {0x2A700, 0x2B73F}, {0x2B740, 0x2B81F},
                               {0x2B920, 0x2CEAF}, {0x2F800, 0x2FA1F}};
  return std::any_of(std::begin(kRanges), std::end(kRanges),
                     [c](const Range& range) { return c >= range.first && c <= range.last; });
}

void Clean(std::vector<TracedCharacter>* characters) {
  std::erase_if(*characters, [](const TracedCharacter& c) {
    return (unicode::Traits(c.code) & unicode::kBertRemoved) != 0;
  });
  for (TracedCharacter& c : *characters) {
    if ((unicode::Traits(c.code) & unicode::kSpace) != 0) c.code = ' ';
  }
}

void SpaceOutIdeographs(std::vector<TracedCharacter>* characters) {
  std::vector<TracedCharacter> out;
  out.reserve(characters->size());
  for (const TracedCharacter& c : *characters) {
    const bool ideograph = IsIdeograph(c.code);
    if (ideograph) out.push_back({' ', c.origin});
    out.push_back(c);
    if (ideograph) out.push_back({' ', c.origin});
  }
  *characters = std::move(out);
}

void StripAccents(std::vector<TracedCharacter>* characters) {
  ToNfd(characters);
  std::erase_if(*characters, [](const TracedCharacter& c) {
    return (unicode::Traits(c.code) & unicode::kBertMark) != 0;
  });
}

void Lowercase(std::vector<TracedCharacter>* characters) {
  std::vector<TracedCharacter> out;
  out.reserve(characters->size());
  for (const TracedCharacter& c : *characters) {
    if (c.code == kCapitalIWithDot) {
      out.push_back({'i', c.origin});
      out.push_back({kDotAbove, c.origin});
    } else {
      out.push_back({unicode::ToLower(c.code), c.origin});
    }
  }
  *characters = std::move(out);
}

}  // namespace

Normalizer Normalizer::Nfc() {
  Normalizer normalizer;
  normalizer.kind_ = Kind::kNfc;
  return normalizer;
}

Normalizer Normalizer::Bert(const BertNormalizerOptions& options) {
  Normalizer normalizer;
  normalizer.kind_ = Kind::kBert;
  normalizer.bert_ = options;
  return normalizer;
}

TracedText Normalizer::Normalize(const TracedText& in, bool traced, TracedBuffer* buffer) const {
  if (kind_ == Kind::kNone || (kind_ == Kind::kNfc && IsPlainlyComposed(in.text))) return in;
  std::vector<TracedCharacter> characters = ToCharacters(in, traced);
  if (kind_ == Kind::kNfc) {
    ToNfc(&characters);
  } else {
    NormalizeBert(&characters);
  }
  ToText(characters, traced, buffer);
  return buffer->View();
}

void Normalizer::NormalizeBert(std::vector<TracedCharacter>* characters) const {
  const bool ascii = std::all_of(characters->begin(), characters->end(),
                                 [](const TracedCharacter& c) { return c.code < 128; });
  if (bert_.clean_text) Clean(characters);
  if (bert_.handle_chinese_chars && !ascii) SpaceOutIdeographs(characters);
  if (bert_.strip_accents && !ascii) StripAccents(characters);
  if (bert_.lowercase) Lowercase(characters);
}

}  // namespace nibble
