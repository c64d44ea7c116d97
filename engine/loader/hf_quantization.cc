// See hf_quantization.h.
#include "engine/loader/hf_quantization.h"

#include <string>

#include "absl/strings/str_cat.h"
#include "engine/loader/config_rules.h"
#include "engine/loader/errors.h"

namespace nibble {
namespace {

constexpr char kPlace[] = "config.json: quantization_config";
constexpr char kMethod[] = "bitsandbytes";

WeightFormat ReadFourBitType(Fields& fields) {
  const std::string type = fields.TextOr("bnb_4bit_quant_type", "fp4");
  if (type != "nf4" && type != "fp4") {
    fields.Fail(UnsupportedModel(kPlace, absl::StrCat("\"bnb_4bit_quant_type\" is ", Quoted(type),
                                                      "; supported: nf4, fp4")));
  }
  return type == "nf4" ? WeightFormat::kNf4 : WeightFormat::kFp4;
}

std::optional<QuantizationConfig> ReadBitsAndBytes(Fields& fields) {
  // Newer files have both spellings, with the same value.
  const bool four = fields.BoolOr("load_in_4bit", false) || fields.BoolOr("_load_in_4bit", false);
  const bool eight = fields.BoolOr("load_in_8bit", false) || fields.BoolOr("_load_in_8bit", false);
  // Files of before transformers 4.32 name no method.
  const std::string method = fields.TextOr("quant_method", four || eight ? kMethod : "unnamed");
  if (method != kMethod) {
    fields.Fail(UnsupportedModel(kPlace, absl::StrCat("weights quantized by ", Quoted(method),
                                                      " are not supported; supported: ", kMethod)));
  }
  if (four && eight) {
    fields.Fail(InconsistentModel(kPlace, "says both load_in_4bit and load_in_8bit"));
  }
  QuantizationConfig out;
  out.format = ReadFourBitType(fields);
  if (eight) out.format = WeightFormat::kInt8;
  out.int8_threshold = static_cast<float>(
      fields.NumberOr("llm_int8_threshold", static_cast<double>(out.int8_threshold), 0, kMaxReal));
  if (!four && !eight) return std::nullopt;
  return out;
}

}  // namespace

std::optional<QuantizationConfig> ReadQuantizationConfig(Fields& fields) {
  const Value* object = fields.ObjectOrNull("quantization_config");
  if (object == nullptr) return std::nullopt;
  Fields inner(kPlace, *object);
  const std::optional<QuantizationConfig> out = ReadBitsAndBytes(inner);
  if (!inner.status().ok()) fields.Fail(inner.status());
  return out;
}

absl::Status ReconcileQuantization(const std::vector<TensorRef>& tensors, ModelConfig* config) {
  const TensorRef* first = nullptr;
  for (const TensorRef& tensor : tensors) {
    if (!IsBitsAndBytes(tensor.type)) continue;
    if (first == nullptr) first = &tensor;
    const WeightFormat format = FormatOf(tensor.type);
    const std::string what =
        absl::StrCat("tensor ", Quoted(tensor.name), " is ", Name(tensor.type));
    if (config->quantization.has_value() &&
        IsFourBit(config->quantization->format) != IsFourBit(format)) {
      return InconsistentModel(tensor.file,
                               absl::StrCat(what, ", config.json's quantization_config says ",
                                            Name(config->quantization->format)));
    }
    if (IsFourBit(FormatOf(first->type)) != IsFourBit(format)) {
      return InconsistentModel(tensor.file, absl::StrCat(what, ", tensor ", Quoted(first->name),
                                                         " is ", Name(first->type)));
    }
  }
  if (first == nullptr) {
    config->quantization.reset();
    return absl::OkStatus();
  }
  if (!config->quantization.has_value()) config->quantization.emplace();
  config->quantization->format = FormatOf(first->type);
  return absl::OkStatus();
}

}  // namespace nibble
