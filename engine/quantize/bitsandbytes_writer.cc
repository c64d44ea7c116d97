// See the header. Every number that Python would write is written as Python does.
#include "engine/quantize/bitsandbytes_writer.h"

#include <array>
#include <charconv>
#include <cstdlib>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "engine/check.h"

namespace nibble {
namespace {

constexpr int64_t kMaxStateBytes = 256;

template <typename T>
std::span<const uint8_t> BytesOf(const T& values) {
  return {reinterpret_cast<const uint8_t*>(values.data()), values.size() * sizeof(values[0])};
}

// Entries one after the other; the first error stays.
class Entries {
 public:
  explicit Entries(ShardWriter* writer) : writer_(writer) {}
  void Add(std::string_view name, std::string_view dtype, std::vector<int64_t> shape,
           std::span<const uint8_t> bytes) {
    if (!status_.ok()) return;
    status_ = writer_->AddEntry(name, dtype, std::move(shape), static_cast<int64_t>(bytes.size()));
    if (status_.ok()) status_ = writer_->Write(bytes);
  }
  const absl::Status& status() const { return status_; }

 private:
  ShardWriter* writer_;
  absl::Status status_;
};

template <typename T>
int64_t Size(const T& values) {
  return static_cast<int64_t>(values.size());
}

const char* TorchName(DType dtype) {
  return dtype == DType::kF32 ? "float32" : dtype == DType::kF16 ? "float16" : "bfloat16";
}

// "X.weight" without its last part.
std::string ModuleOf(const std::string& name) { return name.substr(0, name.rfind('.')); }

std::string JsonBool(bool value) { return value ? "true" : "false"; }

}  // namespace

std::string PythonRepr(double value) {
  std::array<char, 64> text;
  const auto end =
      std::to_chars(text.data(), text.data() + text.size(), value, std::chars_format::scientific);
  const std::string scientific(text.data(), end.ptr);  // "-1.25e-07"
  const size_t e = scientific.find('e');
  if (e == std::string::npos) return scientific;  // no finite number
  int exponent = 0;
  Check(absl::SimpleAtoi(scientific.substr(e + 1), &exponent), "to_chars writes an exponent");
  const std::string sign(scientific[0] == '-' ? 1 : 0, '-');
  std::string digits;
  for (const char c : scientific.substr(0, e)) {
    if (c >= '0' && c <= '9') digits += c;
  }
  if (exponent < -4 || exponent >= 16) {
    return absl::StrFormat("%s%c%s%se%c%02d", sign, digits[0], digits.size() > 1 ? "." : "",
                           digits.substr(1), exponent < 0 ? '-' : '+', std::abs(exponent));
  }
  if (exponent < 0) {
    return absl::StrCat(sign, "0.", std::string(static_cast<size_t>(-exponent - 1), '0'), digits);
  }
  const auto whole = static_cast<size_t>(exponent) + 1;
  if (digits.size() < whole) digits.append(whole - digits.size(), '0');
  const std::string fraction = digits.size() > whole ? digits.substr(whole) : "0";
  return absl::StrCat(sign, digits.substr(0, whole), ".", fraction);
}

std::string QuantStateText(const FourBitMatrix& matrix, DType source) {
  std::string text = absl::StrCat(
      "{\"quant_type\": \"", Name(matrix.format), "\", \"blocksize\": ", matrix.group_size,
      ", \"dtype\": \"", TorchName(source), "\", \"shape\": [", matrix.n, ", ", matrix.k, "]");
  if (matrix.double_quant) {
    absl::StrAppend(&text, ", \"nested_blocksize\": ", kNestedGroup,
                    ", \"nested_dtype\": \"float32\", \"nested_offset\": ",
                    PythonRepr(static_cast<double>(matrix.nested_offset)));
  }
  return text + "}";
}

absl::Status WriteFourBit(const std::string& name, const FourBitMatrix& matrix, DType source,
                          ShardWriter* writer) {
  const std::string state = QuantStateText(matrix, source);
  Check(Size(state) <= kMaxStateBytes, "a quant_state fits its bound");
  Entries entries(writer);
  entries.Add(name, "U8", {Size(matrix.codes), 1}, matrix.codes);
  if (matrix.double_quant) {
    entries.Add(name + ".absmax", "U8", {Size(matrix.absmax_codes)}, matrix.absmax_codes);
    entries.Add(name + ".nested_absmax", "F32", {Size(matrix.nested_absmax)},
                BytesOf(matrix.nested_absmax));
    entries.Add(name + ".nested_quant_map", "F32", {Size(matrix.nested_map)},
                BytesOf(matrix.nested_map));
  } else {
    entries.Add(name + ".absmax", "F32", {Size(matrix.absmax)}, BytesOf(matrix.absmax));
  }
  entries.Add(name + ".quant_map", "F32", {Size(matrix.codebook)}, BytesOf(matrix.codebook));
  entries.Add(absl::StrCat(name, ".quant_state.bitsandbytes__", Name(matrix.format)), "U8",
              {Size(state)}, BytesOf(state));
  return entries.status();
}

absl::Status WriteInt8(const std::string& name, const Int8Matrix& matrix, ShardWriter* writer) {
  constexpr std::array<uint8_t, 1> kRowMajor = {0};
  Entries entries(writer);
  entries.Add(name, "I8", {matrix.n, matrix.k}, BytesOf(matrix.codes));
  entries.Add(ModuleOf(name) + ".SCB", "F32", {matrix.n}, BytesOf(matrix.absmax));
  entries.Add(ModuleOf(name) + ".weight_format", "U8", {}, kRowMajor);
  return entries.status();
}

int64_t QuantizedHeaderBytes(const std::string& name) {
  constexpr int64_t kEntries = 6;
  return kEntries * HeaderBytes(name + ".quant_state.bitsandbytes__nf4");
}

int64_t QuantizedDataBytes(const WeightSpec& spec) {
  const int64_t values = spec.n * spec.k;
  if (spec.format == WeightFormat::kInt8) return values + spec.n * 4 + 1;
  const int64_t groups = (values + spec.group_size - 1) / spec.group_size;
  constexpr int64_t kTables = (16 + 256) * 4;
  const int64_t nested = (groups + kNestedGroup - 1) / kNestedGroup * 4;
  return (values + 1) / 2 + (spec.double_quant ? groups + nested : groups * 4) + kTables +
         kMaxStateBytes;
}

std::string QuantizationConfigText(const QuantizationText& quantization) {
  const bool eight = quantization.format == WeightFormat::kInt8;
  std::string modules;
  for (const std::string& module : quantization.skip_modules) {
    absl::StrAppend(&modules, modules.empty() ? "" : ", ", "\"", module, "\"");
  }
  std::string text = "{\n";
  const auto add = [&](const char* key, const std::string& value) {
    absl::StrAppend(&text, "    \"", key, "\": ", value, ",\n");
  };
  const auto quoted = [](const char* word) { return absl::StrCat("\"", word, "\""); };
  add("_load_in_4bit", JsonBool(!eight));
  add("_load_in_8bit", JsonBool(eight));
  add("bnb_4bit_compute_dtype", quoted(TorchName(quantization.compute)));
  add("bnb_4bit_quant_storage", quoted("uint8"));
  add("bnb_4bit_quant_type", quoted(eight ? "nf4" : Name(quantization.format)));
  add("bnb_4bit_use_double_quant", JsonBool(!eight && quantization.double_quant));
  add("llm_int8_enable_fp32_cpu_offload", "false");
  add("llm_int8_has_fp16_weight", "false");
  add("llm_int8_skip_modules", modules.empty() ? "null" : absl::StrCat("[", modules, "]"));
  add("llm_int8_threshold", "6.0");
  add("load_in_4bit", JsonBool(!eight));
  add("load_in_8bit", JsonBool(eight));
  absl::StrAppend(&text, "    \"quant_method\": \"bitsandbytes\"\n  }");
  return text;
}

}  // namespace nibble
