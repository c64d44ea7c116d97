// The token ids that config.json and generation_config.json both name.
#pragma once

#include "engine/loader/checkpoint.h"
#include "engine/loader/value.h"

namespace nibble {

// bos_token_id, eos_token_id (one, or a list), pad_token_id. Null says that there is none; without
// the member transformers would take Llama 2's.
Value::Object TokenIds(const Checkpoint& checkpoint);

}  // namespace nibble
