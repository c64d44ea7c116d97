// What all tokenizers share: the checks of a caller's text and ids, and decoding token by token.
#include "engine/tokenizer/tokenizer.h"

#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/status.h"
#include "engine/tokenizer/gguf_pipeline.h"
#include "engine/tokenizer/hugging_face.h"
#include "engine/tokenizer/pipeline.h"
#include "engine/tokenizer/utf8.h"

namespace nibble {
namespace {

constexpr size_t kMaxTextBytes = std::numeric_limits<int32_t>::max();

absl::Status CheckText(std::string_view text) {
  if (text.size() > kMaxTextBytes) {
    return Error(
        absl::StatusCode::kInvalidArgument, "TEXT_TOO_LONG",
        absl::StrCat("the text has ", text.size(), " bytes, wanted at most ", kMaxTextBytes));
  }
  const size_t invalid = utf8::FindInvalid(text);
  if (invalid == utf8::kNone) return absl::OkStatus();
  return Error(absl::StatusCode::kInvalidArgument, "INVALID_UTF8",
               absl::StrCat("the text is not valid UTF-8 at byte ", invalid));
}

}  // namespace

absl::StatusOr<std::unique_ptr<Tokenizer>> Tokenizer::Make(const HuggingFaceTokenizer& files) {
  absl::StatusOr<PipelineParts> parts = ReadHuggingFace(files);
  if (!parts.ok()) return parts.status();
  return std::make_unique<Pipeline>(*std::move(parts));
}

absl::StatusOr<std::unique_ptr<Tokenizer>> Tokenizer::Make(const GgufTokenizer& fields) {
  absl::StatusOr<PipelineParts> parts = ReadGguf(fields);
  if (!parts.ok()) return parts.status();
  return std::make_unique<Pipeline>(*std::move(parts));
}

absl::StatusOr<Encoding> Tokenizer::Encode(std::string_view text, bool add_special_tokens,
                                           bool offsets) const {
  if (absl::Status status = CheckText(text); !status.ok()) return status;
  return EncodeText(text, {add_special_tokens, offsets, {}});
}

absl::StatusOr<std::vector<int32_t>> Tokenizer::EncodeSegments(
    std::span<const TextSegment> segments) const {
  std::string text;
  std::vector<ByteRange> content;
  for (const TextSegment& segment : segments) {
    const size_t begin = text.size();
    text += segment.text;
    if (!segment.is_content || segment.text.empty()) continue;
    if (!content.empty() && content.back().end == begin) {
      content.back().end = text.size();
    } else {
      content.push_back({begin, text.size()});
    }
  }
  if (absl::Status status = CheckText(text); !status.ok()) return status;
  absl::StatusOr<Encoding> encoding = EncodeText(text, {false, false, content});
  if (!encoding.ok()) return encoding.status();
  return std::move(encoding->ids);
}

absl::StatusOr<Encoding> Tokenizer::EncodeText(std::string_view, const EncodeOptions&) const {
  return Error(absl::StatusCode::kUnimplemented, "TOKENIZER_CANNOT_ENCODE",
               "this tokenizer only decodes");
}

absl::StatusOr<std::string> Tokenizer::Decode(std::span<const int32_t> ids,
                                              bool skip_special_tokens) const {
  std::string bytes;
  bool first = true;
  for (size_t i = 0; i < ids.size(); ++i) {
    const int32_t id = ids[i];
    if (id < 0 || id >= vocab_size()) {
      return Error(absl::StatusCode::kInvalidArgument, "TOKEN_OUT_OF_RANGE",
                   absl::StrCat("token ", i, " has id ", id, ", wanted 0…", vocab_size() - 1));
    }
    if (skip_special_tokens && IsSpecial(id)) continue;
    const std::string token = TokenBytes(id, first);
    if (!token.empty()) first = false;  // an id without a token is no token
    bytes += token;
  }
  std::string text;
  text.reserve(bytes.size());
  utf8::AppendLossy(bytes, &text);
  return text;
}

}  // namespace nibble
