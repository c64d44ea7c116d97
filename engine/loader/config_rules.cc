// See config_rules.h.
#include "engine/loader/config_rules.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "engine/loader/errors.h"

namespace nibble {

absl::Status CheckConfig(std::string_view where, const ModelConfig& config) {
  if (config.num_heads % config.num_kv_heads != 0) {
    return InconsistentModel(
        where, absl::StrCat(config.num_heads, " attention heads over ", config.num_kv_heads,
                            " key-value heads do not divide evenly"));
  }
  if (config.architecture == Architecture::kLlama && config.head_dim % 2 != 0) {
    return InconsistentModel(where, absl::StrCat("head_dim is ", config.head_dim,
                                                 ", rotary embedding wants an even one"));
  }
  if (config.architecture == Architecture::kBert &&
      config.head_dim * config.num_heads != config.hidden) {
    return InconsistentModel(
        where, absl::StrCat("hidden size ", config.hidden, " is no multiple of ", config.num_heads,
                            " attention heads"));
  }
  return absl::OkStatus();
}

absl::Status AddEosId(std::string_view where, int64_t id, ModelConfig& config) {
  if (id < 0) return absl::OkStatus();
  if (id >= config.vocab) {
    return InconsistentModel(
        where, absl::StrCat("end-of-text token ", id, ", but the vocabulary has ", config.vocab,
                            " tokens"));
  }
  std::vector<int32_t>& ids = config.generation.eos_token_ids;
  const auto narrow = static_cast<int32_t>(id);
  if (std::find(ids.begin(), ids.end(), narrow) == ids.end()) ids.push_back(narrow);
  return absl::OkStatus();
}

}  // namespace nibble
