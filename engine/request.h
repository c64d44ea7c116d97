// What a client asks and what it gets back, as plain structs: no proto, no gRPC, no device.
// Absent optionals take the model's own default (generation_config.json), then the contract's.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "absl/time/time.h"
#include "kernels/backend.h"

namespace nibble {

using RequestId = uint64_t;

enum class Operation : uint8_t { kGenerate, kEmbed };
constexpr const char* Name(Operation op) {
  return op == Operation::kGenerate ? "generate" : "embed";
}

enum class Priority : uint8_t { kLow, kNormal, kHigh };

struct ChatMessage {
  std::string role;
  std::string content;
};

struct TextPrompt {
  std::string text;
};
struct TokenPrompt {
  std::vector<int32_t> ids;
};
struct ChatPrompt {
  std::vector<ChatMessage> messages;
};

struct SamplingParams {
  std::optional<float> temperature;         // >= 0; 0 is greedy
  std::optional<int32_t> top_k;             // >= 0; 0: all
  std::optional<float> top_p;               // (0, 1]
  std::optional<float> min_p;               // [0, 1]
  std::optional<float> repetition_penalty;  // > 0; 1 is neutral
  std::optional<float> frequency_penalty;   // [-2, 2]
  std::optional<float> presence_penalty;    // [-2, 2]
  std::map<int32_t, float> logit_bias;      // token -> finite addend, or -inf: never
  std::optional<uint64_t> seed;             // absent: drawn, and reported with the answer
  int32_t n = 1;                            // answers wanted
};

struct StoppingParams {
  std::optional<int32_t> max_tokens;  // >= 1; absent: to the end of the context
  int32_t min_tokens = 0;             // no stop before this many
  std::vector<std::string> stop;      // stop strings, none empty
  std::vector<int32_t> stop_token_ids;
  bool ignore_eos = false;
  bool include_stop = false;  // the stop itself is part of the answer
};

struct OutputParams {
  bool token_ids = false;
  int32_t logprobs = -1;         // -1: none; k: the sampled token and the k most likely
  int32_t prompt_logprobs = -1;  // the same for every prompt token but the first
};

// What every request carries, whatever it asks for.
struct RequestContext {
  std::string request_id;
  std::string tenant;
  absl::Time received = absl::InfinitePast();  // when the server saw it; InfinitePast: at Submit
  absl::Time deadline = absl::InfiniteFuture();
};

struct GenerateRequest {
  std::string model;  // empty: the only generative model
  std::variant<std::monostate, TextPrompt, TokenPrompt, ChatPrompt> prompt;
  SamplingParams sampling;
  StoppingParams stopping;
  OutputParams output;
  Priority priority = Priority::kNormal;
  bool add_special_tokens = true;  // for text
  RequestContext context;
};

enum class Truncation : uint8_t { kNone, kRight, kLeft };  // kRight keeps the beginning

struct EmbedRequest {
  std::string model;  // empty: the only embedding model
  std::vector<std::variant<TextPrompt, TokenPrompt>> inputs;
  int32_t dimensions = 0;          // 0: all; else the first so many, before normalization
  std::optional<bool> normalize;   // absent: as the model's own modules say
  std::optional<Pooling> pooling;  // absent: the model's
  std::string prompt_name;         // empty: the model's default prompt, if it has one
  Truncation truncation = Truncation::kNone;
  RequestContext context;
};

enum class FinishReason : uint8_t { kNone, kStop, kLength };

struct LogprobTop {
  int32_t token_id = 0;
  std::string token;  // its bytes
  float logprob = 0;
};
struct TokenLogprobs {
  int32_t token_id = 0;
  std::string token;
  float logprob = 0;
  std::vector<LogprobTop> top;
};

struct Usage {
  int64_t prompt_tokens = 0;  // of index 0 only, so that sums count it once
  int64_t cached_prompt_tokens = 0;
  int64_t completion_tokens = 0;
};

struct Timing {
  double queue_ms = 0;
  double prefill_ms = 0;
  double decode_ms = 0;
  double time_to_first_token_ms = 0;
};

// A piece of one answer. Pieces of one index come in order; text is whole UTF-8 characters.
struct GenerateChunk {
  int32_t index = 0;
  std::string text;
  std::vector<int32_t> token_ids;  // always filled; the door drops them unless asked for
  std::vector<TokenLogprobs> logprobs;
  std::vector<TokenLogprobs> prompt_logprobs;  // in the first chunk of index 0
  // The rest is set in the last chunk of an index, where finish_reason is not kNone.
  FinishReason finish_reason = FinishReason::kNone;
  std::optional<int32_t> stop_token_id;
  std::optional<std::string> stop_text;
  Usage usage;
  Timing timing;
  std::string model;
  uint64_t seed = 0;
};

struct Embedding {
  std::vector<float> values;
  int32_t num_tokens = 0;
  bool truncated = false;
};

struct EmbedResult {
  std::vector<Embedding> embeddings;  // in the order of the inputs
  Usage usage;
  Timing timing;
  std::string model;
};

}  // namespace nibble
