// See quant_state.h.
#include "engine/loader/quant_state.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <string>

#include "absl/strings/str_cat.h"
#include "engine/loader/config_rules.h"
#include "engine/loader/errors.h"
#include "engine/loader/json.h"
#include "engine/loader/value.h"
#include "engine/status.h"
#include "kernels/four_bit.h"

namespace nibble {
namespace {

constexpr size_t kMaxBytes = 4096;
constexpr std::array<std::string_view, 7> kKeys = {
    "quant_type",       "blocksize",    "dtype",        "shape",
    "nested_blocksize", "nested_dtype", "nested_offset"};

void Unsupported(Fields& fields, std::string_view what) {
  fields.Fail(UnsupportedModel(fields.where(), what));
}

void RefuseUnknownKeys(Fields& fields, const Value& object) {
  for (const Value::Member& member : *object.AsObject()) {
    if (std::find(kKeys.begin(), kKeys.end(), member.key) != kKeys.end()) continue;
    fields.Fail(
        CorruptFile(fields.where(), absl::StrCat("has the unknown key ", Quoted(member.key))));
  }
}

void ReadType(Fields& fields, std::string_view type_name, QuantState& out) {
  const std::string type = fields.Text("quant_type");
  if (type != type_name) {
    fields.Fail(
        CorruptFile(fields.where(), absl::StrCat("\"quant_type\" is ", Quoted(type),
                                                 ", the tensor's name says ", Quoted(type_name))));
  }
  out.type = type == "fp4" ? TensorType::kFP4 : TensorType::kNF4;
}

void ReadGroupSize(Fields& fields, QuantState& out) {
  const int64_t size = fields.Int("blocksize", 0, 1 << 30);
  if (!IsAllowedGroupSize(size)) {
    fields.Fail(CorruptFile(
        fields.where(), absl::StrCat("\"blocksize\" is ", size, ", wanted 32, 64, 128 … 4096")));
  }
  out.group_size = static_cast<int32_t>(size);
}

void ReadDtype(Fields& fields, QuantState& out) {
  const std::string dtype = fields.Text("dtype");
  if (dtype == "float16") {
    out.source_dtype = DType::kF16;
  } else if (dtype == "bfloat16") {
    out.source_dtype = DType::kBF16;
  } else if (dtype == "float32") {
    out.source_dtype = DType::kF32;
  } else {
    Unsupported(fields, absl::StrCat("\"dtype\" is ", Quoted(dtype),
                                     "; supported: float16, bfloat16, float32"));
  }
}

void ReadShape(Fields& fields, QuantState& out) {
  const Value::Array* shape = fields.ArrayOrNull("shape");
  const bool is_matrix = shape != nullptr && shape->size() == 2;
  const int64_t* rows = is_matrix ? (*shape)[0].AsInt() : nullptr;
  const int64_t* cols = is_matrix ? (*shape)[1].AsInt() : nullptr;
  int64_t values = 0;
  if (rows == nullptr || cols == nullptr || *rows < 1 || *cols < 1 ||
      __builtin_mul_overflow(*rows, *cols, &values) || values >= int64_t{1} << 60) {
    return fields.Fail(
        CorruptFile(fields.where(),
                    "\"shape\" is not [rows, columns], both at least 1 and together under "
                    "2^60 values"));
  }
  out.rows = *rows;
  out.cols = *cols;
}

// All three or none.
void ReadNested(Fields& fields, QuantState& out) {
  out.nested =
      fields.Has("nested_blocksize") || fields.Has("nested_dtype") || fields.Has("nested_offset");
  if (!out.nested) return;
  const int64_t size = fields.Int("nested_blocksize", 1, 1 << 30);
  if (size != kNestedGroup) {
    Unsupported(fields, absl::StrCat("\"nested_blocksize\" is ", size, "; supported: 256"));
  }
  const std::string dtype = fields.Text("nested_dtype");
  if (dtype != "float32") {
    Unsupported(fields,
                absl::StrCat("\"nested_dtype\" is ", Quoted(dtype), "; supported: float32"));
  }
  const double offset = fields.Number("nested_offset", -HUGE_VAL, HUGE_VAL);
  if (std::fabs(offset) > static_cast<double>(std::numeric_limits<float>::max())) {
    return fields.Fail(NonFiniteWeight(
        fields.where(), absl::StrCat("\"nested_offset\" is ", offset, ", past fp32")));
  }
  out.nested_offset = static_cast<float>(offset);
}

}  // namespace

absl::StatusOr<QuantState> ParseQuantState(std::string_view place, std::string_view type_name,
                                           std::string_view text) {
  if (text.size() > kMaxBytes) {
    return CorruptFile(place,
                       absl::StrCat("has ", text.size(), " bytes, at most 4096 are allowed"));
  }
  const absl::StatusOr<Value> json = ParseJsonObject(place, text);
  if (!json.ok()) return json.status();
  Fields fields(Str(place), *json);
  QuantState out;
  RefuseUnknownKeys(fields, *json);
  ReadType(fields, type_name, out);
  ReadGroupSize(fields, out);
  ReadDtype(fields, out);
  ReadShape(fields, out);
  ReadNested(fields, out);
  if (!fields.status().ok()) return fields.status();
  return out;
}

}  // namespace nibble
