// A bounded interpreter for the Jinja that chat templates are written in. A template is untrusted
// input of the model's file: steps, output bytes and depth are limited, there is no attribute
// access to anything but plain values.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "engine/request.h"
#include "engine/tokenizer/tokenizer.h"

namespace nibble {

struct ChatTemplateLimits {
  int64_t max_steps = 1'000'000;        // of work; a byte copied is 1/64, a byte searched 1/256
  int64_t max_output_bytes = 16 << 20;  // of the rendered text and of every string on the way
  int32_t max_depth = 64;               // of expressions, blocks, values; calls of macros follow
  int64_t max_source_bytes = 1 << 20;
};

struct ChatVariables {
  std::string bos_token;  // empty: undefined in the template
  std::string eos_token;
  bool add_generation_prompt = true;
  absl::Time now = absl::Now();  // what strftime_now says, in UTC
};

// Immutable after Parse; thread-safe.
class ChatTemplate {
 public:
  // Errors: INVALID_ARGUMENT with line and column of a syntax error; UNIMPLEMENTED naming a
  // statement we do not have; RESOURCE_EXHAUSTED for a source too long or nested too deep.
  static absl::StatusOr<std::unique_ptr<ChatTemplate>> Parse(std::string_view source,
                                                             ChatTemplateLimits limits = {});
  ~ChatTemplate();

  // The rendered text in order, every character marked by whether it came from a message (role or
  // content). Errors: INVALID_ARGUMENT with raise_exception's own message (what it quotes from a
  // message is "…" there), or for a type error in the template; UNIMPLEMENTED naming a filter or
  // test we do not have; RESOURCE_EXHAUSTED when a limit is hit.
  absl::StatusOr<std::vector<TextSegment>> Render(const std::vector<ChatMessage>& messages,
                                                  const ChatVariables& variables) const;
  int64_t MemoryBytes() const;

 private:
  struct Program;
  explicit ChatTemplate(std::unique_ptr<Program> program);
  std::unique_ptr<Program> program_;
};

}  // namespace nibble
