// What is known of a model without touching it: for lists, for estimates, for the door.
#pragma once

#include <cstdint>
#include <string>

#include "engine/memory/ledger.h"
#include "engine/model/config.h"
#include "engine/model/model.h"

namespace nibble {

enum class ModelState : uint8_t { kLoading, kReady, kUnloading };

struct ModelDescription {
  std::string name;
  std::string source;
  ModelState state = ModelState::kReady;
  ModelConfig config;
  ModelOptions options;  // with the defaults filled in
  std::string compute;   // "fp32", "bf16", "int8"
  std::string device;
  bool can_generate = false;
  bool can_embed = false;
  bool has_tokenizer = false;
  bool has_chat_template = false;
  int64_t max_context = 0;
  int64_t kv_tokens = 0;  // positions that the KV cache holds
  int64_t parameters = 0;
  int64_t vocabulary = 0;  // token ids are 0 … vocabulary-1: those that the tokenizer knows
  MemoryPlan memory;
};

}  // namespace nibble
