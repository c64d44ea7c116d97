// How much one request may ask for.
#pragma once

#include <cstdint>

namespace nibble {

// Published caps; a request over one is INVALID_ARGUMENT. GetServerInfo shows them.
struct RequestCaps {
  int32_t max_n = 16;
  int32_t max_stop_strings = 16;
  int32_t max_stop_bytes = 256;  // of one stop string
  int32_t max_stop_token_ids = 256;
  int32_t max_logit_bias = 1024;
  int32_t max_logprobs = 20;
  int32_t max_output_tokens = 0;  // 0: the context
  int32_t max_messages = 1024;
  int32_t max_inputs = 2048;  // of one Embed, Tokenize or Detokenize call
  int64_t max_prompt_bytes = 4 << 20;
};

}  // namespace nibble
