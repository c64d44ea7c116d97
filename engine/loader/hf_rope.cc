// See hf_rope.h.
#include "engine/loader/hf_rope.h"

#include <string>

#include "absl/strings/str_cat.h"
#include "engine/loader/config_rules.h"
#include "engine/loader/errors.h"

namespace nibble {
namespace {

float Positive(Fields& fields, std::string_view key) {
  return static_cast<float>(fields.Number(key, kMinReal, kMaxReal));
}

void ReadScaling(Fields& fields, RopeConfig& rope) {
  const std::string type =
      fields.Has("rope_type") ? fields.Text("rope_type") : fields.TextOr("type", "default");
  if (type == "default") return;
  if (type == "linear") {
    rope.type = RopeType::kLinear;
    rope.factor = Positive(fields, "factor");
  } else if (type == "llama3") {
    rope.type = RopeType::kLlama3;
    rope.factor = Positive(fields, "factor");
    rope.low_freq_factor = Positive(fields, "low_freq_factor");
    rope.high_freq_factor = Positive(fields, "high_freq_factor");
    rope.original_max_positions = fields.Int("original_max_position_embeddings", 1, kMaxPositions);
    if (fields.status().ok() && rope.high_freq_factor <= rope.low_freq_factor) {
      fields.Fail(CorruptFile(fields.where(), "high_freq_factor is not above low_freq_factor"));
    }
  } else {
    fields.Fail(UnsupportedModel(fields.where(),
                                 absl::StrCat("RoPE type ", Quoted(type),
                                              " is not supported; supported: default, linear, "
                                              "llama3")));
  }
}

// Only some of a head's elements rotated.
void RefusePartial(Fields& fields) {
  const double share = fields.NumberOr("partial_rotary_factor", 1, 0, 1);
  if (share != 1) {
    fields.Fail(UnsupportedModel(fields.where(), absl::StrCat("partial_rotary_factor ", share,
                                                              " is not supported; supported: 1")));
  }
}

}  // namespace

void ReadHfRope(Fields& fields, RopeConfig& rope) {
  rope.theta = static_cast<float>(fields.NumberOr("rope_theta", 10000, kMinReal, kMaxReal));
  RefusePartial(fields);
  for (const char* key : {"rope_scaling", "rope_parameters"}) {
    const Value* object = fields.ObjectOrNull(key);
    if (object == nullptr) continue;
    Fields inner(absl::StrCat(fields.where(), ": ", key), *object);
    rope.theta = static_cast<float>(inner.NumberOr("rope_theta", rope.theta, kMinReal, kMaxReal));
    RefusePartial(inner);
    ReadScaling(inner, rope);
    fields.Fail(inner.status());
  }
}

}  // namespace nibble
