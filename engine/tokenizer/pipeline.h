// A tokenizer as Hugging Face composes it: added tokens, normalizer, pre-tokenizer, model,
// post-processor, decoder. Knows no file format.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "absl/status/status.h"
#include "engine/tokenizer/added_tokens.h"
#include "engine/tokenizer/bpe.h"
#include "engine/tokenizer/decoder.h"
#include "engine/tokenizer/normalizer.h"
#include "engine/tokenizer/post_processor.h"
#include "engine/tokenizer/pre_tokenizer.h"
#include "engine/tokenizer/tokenizer.h"
#include "engine/tokenizer/vocabulary.h"
#include "engine/tokenizer/wordpiece.h"

namespace nibble {

using TokenModel = std::variant<BpeModel, WordPieceModel>;

struct AddedTokenSpec {
  AddedToken token;
  bool normalized = false;  // looked for in the normalized text, by its normalized content
  bool special = false;     // left out by Decode when asked to
};

struct PipelineParts {
  std::unique_ptr<const Vocabulary> vocabulary;
  std::unique_ptr<const TokenModel> model;  // points into the vocabulary
  std::vector<AddedTokenSpec> added_tokens;
  Normalizer normalizer;
  PreTokenizer pre_tokenizer;
  PostProcessor post_processor;
  Decoder decoder;
  std::optional<int32_t> bos_id, eos_id;
};

// Errors: DATA_LOSS when an id of a part is no id of the vocabulary.
absl::Status CheckParts(std::string_view file, const PipelineParts& parts);

// Immutable; thread-safe.
class Pipeline final : public Tokenizer {
 public:
  explicit Pipeline(PipelineParts parts);  // for which CheckParts is OK

  std::string TokenBytes(int32_t id, bool first) const override;
  int32_t vocab_size() const override { return vocabulary_->size(); }
  bool IsSpecial(int32_t id) const override;
  std::optional<int32_t> TokenToId(std::string_view token) const override;
  int64_t MemoryBytes() const override;

 protected:
  absl::StatusOr<Encoding> EncodeText(std::string_view text,
                                      const EncodeOptions& options) const override;

 private:
  // An added token whose normalized content, which Decode gives, is not its content.
  struct Respelled {
    int32_t id = 0;
    std::string text;
  };
  class Run;  // one EncodeText

  void SortAddedTokens(std::vector<AddedTokenSpec> specs);

  std::unique_ptr<const Vocabulary> vocabulary_;
  std::unique_ptr<const TokenModel> model_;
  AddedTokens added_, added_normalized_;
  std::vector<uint64_t> special_;     // a bit for each id
  std::vector<Respelled> respelled_;  // ascending by id
  Normalizer normalizer_;
  PreTokenizer pre_tokenizer_;
  PostProcessor post_processor_;
  Decoder decoder_;
};

}  // namespace nibble
