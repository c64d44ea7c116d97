// WordPiece's cleanup works on each token by itself, in Hugging Face's order of replacements.
#include "engine/tokenizer/decoder.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "engine/status.h"
#include "engine/tokenizer/byte_level.h"

namespace nibble {
namespace {

void CleanUp(std::string* text) {
  constexpr struct {
    const char* from;
    const char* to;
  } kReplacements[] = {
      {" .", "."},   {" ?", "?"},     {" !", "!"},     {" ,", ","},
      {" ' ", "'"},  {" n't", "n't"}, {" 'm", "'m"},   {" do not", " don't"},
      {" 's", "'s"}, {" 've", "'ve"}, {" 're", "'re"},
  };
  for (const auto& [from, to] : kReplacements) absl::StrReplaceAll({{from, to}}, text);
}

}  // namespace

std::string Decoder::Decode(std::string_view text, Vocabulary::Kind token_kind, bool first) const {
  if (kind == Kind::kByteLevel) {
    std::string bytes;
    if (token_kind == Vocabulary::Kind::kBytes || !AppendByteLevel(text, &bytes)) bytes = text;
    return bytes;
  }
  std::string out;
  if (first) {
    out = text;
  } else if (kind == Kind::kWordPiece && text.starts_with(continuing_prefix)) {
    out = text.substr(continuing_prefix.size());
  } else {
    out = absl::StrCat(" ", Str(text));
  }
  if (kind == Kind::kWordPiece && cleanup) CleanUp(&out);
  return out;
}

int64_t Decoder::MemoryBytes() const {
  const size_t capacity = continuing_prefix.capacity();
  return capacity > std::string().capacity() ? static_cast<int64_t>(capacity + 1) : 0;
}

}  // namespace nibble
