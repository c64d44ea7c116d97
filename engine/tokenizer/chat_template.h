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
#include "engine/request.h"
#include "engine/tokenizer/tokenizer.h"

namespace nibble {

struct ChatTemplateLimits {
  int64_t max_steps = 1'000'000;
  int64_t max_output_bytes = 16 << 20;
  int32_t max_depth = 64;
  int64_t max_source_bytes = 1 << 20;
};

struct ChatVariables {
  std::string bos_token;
  std::string eos_token;
  bool add_generation_prompt = true;
};

// Immutable after Parse; thread-safe.
class ChatTemplate {
 public:
  // Errors: INVALID_ARGUMENT with line and column of a syntax error; UNIMPLEMENTED naming a feature
  // we do not have.
  static absl::StatusOr<std::unique_ptr<ChatTemplate>> Parse(std::string_view source,
                                                             ChatTemplateLimits limits = {});
  ~ChatTemplate();

  // The rendered text in order, every character marked by whether it came from a message (role or
  // content). Errors: INVALID_ARGUMENT with raise_exception's own message, or for a type error in
  // the template; RESOURCE_EXHAUSTED when a limit is hit.
  absl::StatusOr<std::vector<TextSegment>> Render(const std::vector<ChatMessage>& messages,
                                                  const ChatVariables& variables) const;
  int64_t MemoryBytes() const;

 private:
  struct Program;
  explicit ChatTemplate(std::unique_ptr<Program> program);
  std::unique_ptr<Program> program_;
};

}  // namespace nibble
