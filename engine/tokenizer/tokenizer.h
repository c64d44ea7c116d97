// Text to token ids and back, equal to Hugging Face's tokenizers. Immutable after construction;
// thread-safe.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/loader/checkpoint.h"

namespace nibble {

// A piece of text and whether special tokens written in it count as such. A chat template's own
// text does; what came from a message's content does not, so that no content can forge a control
// token.
struct TextSegment {
  std::string text;
  bool is_content = false;
};

struct TokenOffset {
  int64_t begin = 0;  // in Unicode characters of the input text, as Hugging Face counts
  int64_t end = 0;
};

struct Encoding {
  std::vector<int32_t> ids;
  std::vector<TokenOffset>
      offsets;  // filled only when asked for; special tokens added around: (0, 0)
};

class Tokenizer {
 public:
  virtual ~Tokenizer() = default;

  // Errors: DATA_LOSS (broken file), UNIMPLEMENTED (a component we do not have, by name).
  static absl::StatusOr<std::unique_ptr<Tokenizer>> Make(const HuggingFaceTokenizer& files);
  static absl::StatusOr<std::unique_ptr<Tokenizer>> Make(const GgufTokenizer& fields);

  // Encodes as Hugging Face does: special tokens inside the text are recognised; add_special_tokens
  // runs the post-processor. Errors: INVALID_ARGUMENT for invalid UTF-8, with the byte offset.
  absl::StatusOr<Encoding> Encode(std::string_view text, bool add_special_tokens,
                                  bool offsets = false) const;

  // Encodes a rendered chat: the segments' text is one text for the pre-tokenizer, but added tokens
  // are matched only outside content. Nothing is added around it.
  absl::StatusOr<std::vector<int32_t>> EncodeSegments(std::span<const TextSegment> segments) const;

  // As Hugging Face's decode with clean_up_tokenization_spaces=false, invalid UTF-8 replaced by
  // U+FFFD. Errors: INVALID_ARGUMENT for an id out of range.
  absl::StatusOr<std::string> Decode(std::span<const int32_t> ids, bool skip_special_tokens) const;

  // The bytes that id appends to a text that already has some tokens (`first`: to an empty one).
  // Special tokens give their own text. id must be in range.
  virtual std::string TokenBytes(int32_t id, bool first) const = 0;

  virtual int32_t vocab_size() const = 0;  // ids are 0 … vocab_size-1
  virtual bool IsSpecial(int32_t id) const = 0;
  virtual std::optional<int32_t> TokenToId(std::string_view token) const = 0;
  std::optional<int32_t> bos_id() const { return bos_id_; }
  std::optional<int32_t> eos_id() const { return eos_id_; }
  // Heap bytes held, within 1 %: what the ledger counts as "tokenizer".
  virtual int64_t MemoryBytes() const = 0;

 protected:
  // Bytes [begin, end) of a text.
  struct ByteRange {
    size_t begin = 0;
    size_t end = 0;
  };
  struct EncodeOptions {
    bool add_special_tokens = false;
    bool offsets = false;
    std::span<const ByteRange> content;  // ascending; no added token is found that touches them
  };
  // Encode once the text is known to be valid UTF-8 of less than 2^31 bytes. Unless overridden:
  // UNIMPLEMENTED.
  virtual absl::StatusOr<Encoding> EncodeText(std::string_view text,
                                              const EncodeOptions& options) const;

  std::optional<int32_t> bos_id_, eos_id_;
};

}  // namespace nibble
