// One text through the parts: added tokens in the text as it came, the rest normalized; added
// tokens in that, the rest split; each piece through the model; then the post-processor.
#include "engine/tokenizer/pipeline.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/loader/errors.h"
#include "engine/tokenizer/byte_level.h"
#include "engine/tokenizer/unicode.h"

namespace nibble {
namespace {

bool IsPadding(char32_t c) {
  return c == ByteLevelCharacter(' ') || (unicode::Traits(c) & unicode::kSpace) != 0;
}

TokenPadding PaddingOf(std::string_view spelled) {
  TokenPadding padding;
  for (size_t at = 0; at < spelled.size();) {
    const utf8::Decoded c = utf8::Decode(spelled, at);
    if (!IsPadding(c.code)) break;
    ++padding.leading;
    at += c.length;
  }
  for (size_t end = spelled.size(); end > 0;) {
    const utf8::Decoded c = utf8::DecodeBefore(spelled, end);
    if (!IsPadding(c.code)) break;
    ++padding.trailing;
    end -= c.length;
  }
  return padding;
}

// As PaddingOf the spelling: of the bytes only the space is spelled as padding.
TokenPadding PaddingOfBytes(std::string_view bytes) {
  const size_t first = bytes.find_first_not_of(' ');
  if (first == std::string_view::npos) {
    return {static_cast<int64_t>(bytes.size()), static_cast<int64_t>(bytes.size())};
  }
  return {static_cast<int64_t>(first),
          static_cast<int64_t>(bytes.size() - 1 - bytes.find_last_not_of(' '))};
}

// From bytes of text to characters.
void ToCharacterOffsets(std::string_view text, std::vector<TokenOffset>* offsets) {
  std::vector<uint32_t> character(text.size() + 1);
  uint32_t count = 0;
  for (size_t i = 0; i < text.size(); ++i) {
    character[i] = count;
    if (i + 1 == text.size() || !utf8::IsContinuation(text[i + 1])) ++count;
  }
  character[text.size()] = count;
  for (TokenOffset& offset : *offsets) {
    offset = {character[static_cast<size_t>(offset.begin)],
              character[static_cast<size_t>(offset.end)]};
  }
}

int64_t HeapBytes(const std::string& text) {
  return text.capacity() > std::string().capacity() ? static_cast<int64_t>(text.capacity() + 1) : 0;
}

}  // namespace

class Pipeline::Run {
 public:
  Run(const Pipeline& pipeline, const EncodeOptions& options)
      : pipeline_(pipeline),
        options_(options),
        // Content must be known again in the normalized text.
        traced_(options.offsets ||
                (!options.content.empty() && !pipeline.added_normalized_.empty())) {}

  Encoding Encode(std::string_view text) {
    const TracedText whole{text, nullptr, 0};
    pipeline_.added_.Split(
        text, [this](size_t begin, size_t end) { return !TouchesContent(begin, end); },
        [&](int32_t id, size_t begin, size_t end) {
          const TracedText part = whole.Slice(begin, end);
          if (id >= 0) return AddToken(id, part);
          EncodePlain(part);
        });
    if (options_.offsets) ToCharacterOffsets(text, &out_.offsets);
    pipeline_.post_processor_.Process(options_.add_special_tokens, options_.offsets,
                                      std::move(padding_), &out_);
    return std::move(out_);
  }

 private:
  bool TouchesContent(size_t begin, size_t end) const {
    const auto after =
        std::partition_point(options_.content.begin(), options_.content.end(),
                             [begin](const ByteRange& range) { return range.end <= begin; });
    return after != options_.content.end() && after->begin < end;
  }

  void EncodePlain(const TracedText& part) {
    TracedBuffer buffer;
    const TracedText text = pipeline_.normalizer_.Normalize(part, traced_, &buffer);
    const size_t part_end = part.base + part.text.size();
    const auto accept = [&](size_t begin, size_t end) {
      if (options_.content.empty()) return true;
      // Up to where the next character came from: what joined the last one counts as touched.
      const size_t last = end < text.text.size() ? text.OriginOf(end, end + 1).begin : part_end;
      return !TouchesContent(text.OriginOf(begin, end).begin, last);
    };
    pipeline_.added_normalized_.Split(text.text, accept, [&](int32_t id, size_t begin, size_t end) {
      const TracedText slice = text.Slice(begin, end);
      if (id >= 0) return AddToken(id, slice);
      pipeline_.pre_tokenizer_.Split(slice, traced_,
                                     [this](const TracedText& piece) { AddPiece(piece); });
    });
  }

  void AddPiece(const TracedText& piece) {
    tokens_.clear();
    if (const auto* bpe = std::get_if<BpeModel>(pipeline_.model_.get())) {
      bpe->Tokenize(piece.text, &bpe_scratch_, &tokens_);
    } else {
      std::get<WordPieceModel>(*pipeline_.model_).Tokenize(piece.text, &word_scratch_, &tokens_);
    }
    for (const TokenSpan& token : tokens_) {
      out_.ids.push_back(token.id);
      if (!options_.offsets) continue;
      AddOffset(piece.OriginOf(token.begin, token.end));
      const Vocabulary& vocabulary = *pipeline_.vocabulary_;
      const std::string_view text = vocabulary.Text(token.id);
      padding_.push_back(vocabulary.kind(token.id) == Vocabulary::Kind::kBytes
                             ? PaddingOfBytes(text)
                             : PaddingOf(text));
    }
  }

  void AddToken(int32_t id, const TracedText& matched) {
    out_.ids.push_back(id);
    if (!options_.offsets) return;
    AddOffset(matched.OriginOf(0, matched.text.size()));
    padding_.push_back(PaddingOf(matched.text));
  }

  void AddOffset(Origin origin) { out_.offsets.push_back({origin.begin, origin.end}); }

  const Pipeline& pipeline_;
  const EncodeOptions& options_;
  const bool traced_;
  Encoding out_;
  std::vector<TokenPadding> padding_;
  std::vector<TokenSpan> tokens_;
  BpeModel::Scratch bpe_scratch_;
  std::string word_scratch_;
};

absl::Status CheckParts(std::string_view file, const PipelineParts& parts) {
  const auto check = [&](int32_t id, std::string_view what) {
    if (id >= 0 && id < parts.vocabulary->size()) return absl::OkStatus();
    return CorruptFile(file, absl::StrCat(std::string(what), " has id ", id, ", wanted 0…",
                                          parts.vocabulary->size() - 1));
  };
  for (const PostStep& step : parts.post_processor.steps()) {
    for (const std::vector<int32_t>* ids : {&step.before, &step.after}) {
      for (const int32_t id : *ids) {
        if (absl::Status status = check(id, "a token of the post-processor"); !status.ok()) {
          return status;
        }
      }
    }
  }
  for (const std::optional<int32_t>& id : {parts.bos_id, parts.eos_id}) {
    if (!id.has_value()) continue;
    if (absl::Status status = check(*id, "the first or last token"); !status.ok()) return status;
  }
  return absl::OkStatus();
}

Pipeline::Pipeline(PipelineParts parts)
    : vocabulary_(std::move(parts.vocabulary)),
      model_(std::move(parts.model)),
      special_(static_cast<size_t>(vocabulary_->size()) / 64 + 1),
      normalizer_(parts.normalizer),
      pre_tokenizer_(std::move(parts.pre_tokenizer)),
      post_processor_(std::move(parts.post_processor)),
      decoder_(std::move(parts.decoder)) {
  bos_id_ = parts.bos_id;
  eos_id_ = parts.eos_id;
  SortAddedTokens(std::move(parts.added_tokens));
}

void Pipeline::SortAddedTokens(std::vector<AddedTokenSpec> specs) {
  std::vector<AddedToken> raw;
  std::vector<AddedToken> normalized;
  for (AddedTokenSpec& spec : specs) {
    const int32_t id = spec.token.id;
    TracedBuffer buffer;
    const std::string text(
        spec.normalized
            ? normalizer_.Normalize({spec.token.content, nullptr, 0}, false, &buffer).text
            : std::string_view{spec.token.content});
    // Special tokens are told by their text, so a respelled one is not special any more.
    if (text != spec.token.content) {
      respelled_.push_back({id, text});
    } else if (spec.special) {
      special_[static_cast<size_t>(id) / 64] |= uint64_t{1} << (id % 64);
    }
    if (text.empty()) continue;
    spec.token.content = text;
    (spec.normalized ? normalized : raw).push_back(std::move(spec.token));
  }
  std::sort(respelled_.begin(), respelled_.end(),
            [](const Respelled& a, const Respelled& b) { return a.id < b.id; });
  respelled_.shrink_to_fit();
  for (Respelled& token : respelled_) token.text.shrink_to_fit();
  added_ = AddedTokens(std::move(raw));
  added_normalized_ = AddedTokens(std::move(normalized));
}

absl::StatusOr<Encoding> Pipeline::EncodeText(std::string_view text,
                                              const EncodeOptions& options) const {
  return Run(*this, options).Encode(text);
}

std::string Pipeline::TokenBytes(int32_t id, bool first) const {
  const Vocabulary::Kind kind = vocabulary_->kind(id);
  const auto respelled = std::partition_point(
      respelled_.begin(), respelled_.end(), [id](const Respelled& token) { return token.id < id; });
  if (respelled != respelled_.end() && respelled->id == id) {
    return decoder_.Decode(respelled->text, Vocabulary::Kind::kText, first);
  }
  if (kind == Vocabulary::Kind::kHole) return {};
  return decoder_.Decode(vocabulary_->Text(id), kind, first);
}

bool Pipeline::IsSpecial(int32_t id) const {
  return (special_[static_cast<size_t>(id) / 64] >> (id % 64) & 1) != 0;
}

std::optional<int32_t> Pipeline::TokenToId(std::string_view token) const {
  if (utf8::FindInvalid(token) != utf8::kNone) return std::nullopt;
  const int32_t added = vocabulary_->Find(token, Vocabulary::Kind::kAdded);
  const int32_t id = added >= 0 ? added : vocabulary_->FindSpelled(token);
  return id < 0 ? std::nullopt : std::optional<int32_t>(id);
}

int64_t Pipeline::MemoryBytes() const {
  int64_t bytes = static_cast<int64_t>(sizeof(Pipeline) + sizeof(Vocabulary) + sizeof(TokenModel));
  bytes += vocabulary_->MemoryBytes();
  bytes += std::visit([](const auto& model) { return model.MemoryBytes(); }, *model_);
  bytes += added_.MemoryBytes() + added_normalized_.MemoryBytes();
  bytes += static_cast<int64_t>(special_.capacity() * sizeof(uint64_t));
  bytes += static_cast<int64_t>(respelled_.capacity() * sizeof(Respelled));
  for (const Respelled& token : respelled_) bytes += HeapBytes(token.text);
  return bytes + pre_tokenizer_.MemoryBytes() + post_processor_.MemoryBytes() +
         decoder_.MemoryBytes();
}

}  // namespace nibble
