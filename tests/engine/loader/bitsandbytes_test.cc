#include "engine/loader/bitsandbytes.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "engine/loader/hf_weights.h"
#include "engine/status.h"
#include "tests/engine/loader/bitsandbytes_parts.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temp_dir.h"

namespace nibble {
namespace {

using ::nibble::testing::FourBitParts;
using ::nibble::testing::Int8Parts;
using ::nibble::testing::IsOk;
using ::nibble::testing::Part;
using ::nibble::testing::Parts;
using ::nibble::testing::RawBytes;
using ::nibble::testing::SafetensorsOf;
using ::nibble::testing::SmallFourBit;
using ::nibble::testing::StateText;
using ::nibble::testing::StatusIs;
using ::nibble::testing::TempDir;
using ::nibble::testing::TextPart;
using ::testing::HasSubstr;
using ::testing::StartsWith;

constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
const char kState[] = "w.weight.quant_state.bitsandbytes__nf4";

// 3 x 51 = 153 values: an odd number, groups of 32 that straddle rows, the last of them short.
Parts Plain() {
  return FourBitParts("w.weight", SmallFourBit(WeightFormat::kNf4, 3, 51, 32, false));
}
Parts Nested() {
  return FourBitParts("w.weight", SmallFourBit(WeightFormat::kNf4, 3, 51, 32, true));
}
Parts EightBit() { return Int8Parts("w.weight", 3, 5); }

absl::StatusOr<HfWeights> Read(const Parts& parts, bool quantized_config = false) {
  const TempDir dir;
  dir.Write("model.safetensors", SafetensorsOf(parts));
  ModelConfig config;
  if (quantized_config) config.quantization.emplace();
  return ReadHfWeights(dir.path(), config);
}

// The error of `parts` after one change.
template <typename Change>
absl::Status After(Parts parts, Change change) {
  EXPECT_THAT(Read(parts), IsOk());
  change(parts);
  return Read(parts).status();
}

auto Lost(const std::string& message) { return StatusIs(absl::StatusCode::kDataLoss, message); }
auto LostWith(const std::string& part) {
  return StatusIs(absl::StatusCode::kDataLoss, HasSubstr(part));
}

void Truncate(Part& part, size_t bytes_each) {
  part.bytes.resize(part.bytes.size() - bytes_each);
  --part.shape[0];
}

void SetFloat(Part& part, size_t index, float value) {
  part.bytes.replace(index * 4, 4, RawBytes(value));
}

TEST(SplitCompanionName, KnowsBitsAndBytesKeys) {
  for (const char* key : {"absmax", "quant_map", "nested_absmax", "nested_quant_map", "quant_type",
                          "blocksize", "dtype", "shape", "nested_blocksize", "nested_dtype",
                          "nested_offset", "quant_state.bitsandbytes__nf4", "quant_state.other"}) {
    const auto name = SplitCompanionName(std::string("a.b.weight.") + key);
    ASSERT_TRUE(name.has_value()) << key;
    EXPECT_EQ(name->matrix, "a.b.weight");
    EXPECT_EQ(name->key, key);
    EXPECT_TRUE(name->known) << key;
  }
  for (const char* key : {"SCB", "weight_format"}) {
    const auto name = SplitCompanionName(std::string("a.b.") + key);
    ASSERT_TRUE(name.has_value()) << key;
    EXPECT_EQ(name->matrix, "a.b.weight");
    EXPECT_EQ(name->key, key);
    EXPECT_TRUE(name->known) << key;
  }
  EXPECT_FALSE(SplitCompanionName("a.b.weight.other")->known);
  for (const char* name : {"a.weight", "a.bias", "SCB", "a.xSCB", "weight_format", "absmax", ""}) {
    EXPECT_FALSE(SplitCompanionName(name).has_value()) << name;
  }
}

TEST(BitsAndBytes, MakesOneTensorOfAMatrixAndItsCompanions) {
  for (const bool nested : {false, true}) {
    const auto weights = Read(nested ? Nested() : Plain());
    ASSERT_THAT(weights, IsOk());
    ASSERT_EQ(weights->tensors.size(), 1u);
    const TensorRef& tensor = weights->tensors[0];
    EXPECT_EQ(tensor.name, "w.weight");
    EXPECT_EQ(tensor.file, "model.safetensors");
    EXPECT_EQ(tensor.type, TensorType::kNF4);
    EXPECT_EQ(tensor.shape, (std::vector<int64_t>{3, 51}));
    EXPECT_EQ(tensor.bytes, 77);
    ASSERT_NE(tensor.quantized, nullptr);
    EXPECT_EQ(tensor.quantized->group_size, 32);
    EXPECT_EQ(tensor.quantized->double_quant, nested);
    EXPECT_EQ(tensor.quantized->source_dtype, DType::kBF16);
    EXPECT_EQ(tensor.quantized->codebook, Nf4Codebook());
    EXPECT_EQ(tensor.quantized->nested_absmax != nullptr, nested);
  }
  const auto eight = Read(EightBit());
  ASSERT_THAT(eight, IsOk());
  ASSERT_EQ(eight->tensors.size(), 1u);
  EXPECT_EQ(eight->tensors[0].type, TensorType::kINT8);
  EXPECT_EQ(eight->tensors[0].shape, (std::vector<int64_t>{3, 5}));
}

TEST(BitsAndBytes, ReadsFp4) {
  const auto weights =
      Read(FourBitParts("w.weight", SmallFourBit(WeightFormat::kFp4, 2, 64, 64, true)));
  ASSERT_THAT(weights, IsOk());
  EXPECT_EQ(weights->tensors[0].type, TensorType::kFP4);
  EXPECT_EQ(weights->tensors[0].quantized->codebook, Fp4Codebook());
}

TEST(BitsAndBytes, ReadsEveryStorageTypeAlike) {
  // 128 values are 64 bytes of codes: 32 of F16, 16 of F32.
  const Parts parts = FourBitParts("w.weight", SmallFourBit(WeightFormat::kNf4, 2, 64, 64, false));
  for (const auto& [dtype, size] : {std::pair{"U8", 1}, {"F16", 2}, {"BF16", 2}, {"F32", 4}}) {
    Parts viewed = parts;
    viewed["w.weight"].dtype = dtype;
    viewed["w.weight"].shape = {64 / size, 1};
    const auto weights = Read(viewed);
    ASSERT_THAT(weights, IsOk()) << dtype;
    const TensorRef& tensor = weights->tensors[0];
    EXPECT_EQ(tensor.shape, (std::vector<int64_t>{2, 64}));
    EXPECT_EQ(std::string(reinterpret_cast<const char*>(tensor.data), 64),
              parts.at("w.weight").bytes);
  }
}

TEST(BitsAndBytes, FindsCompanionsInOtherFiles) {
  const TempDir dir;
  const Parts parts = Nested();
  std::string map;
  for (const auto& [name, part] : parts) {
    const std::string file = std::to_string(map.size()) + ".safetensors";  // one for each
    dir.Write(file, SafetensorsOf({{name, part}}));
    map.append(map.empty() ? "" : ",").append("\"" + name + "\":\"" + file + "\"");
  }
  dir.Write("model.safetensors.index.json", "{\"weight_map\":{" + map + "}}");
  const auto weights = ReadHfWeights(dir.path(), ModelConfig());
  ASSERT_THAT(weights, IsOk());
  EXPECT_EQ(weights->files.size(), parts.size());
  ASSERT_EQ(weights->tensors.size(), 1u);
  const auto whole = Read(parts);
  EXPECT_EQ(ReadFourBit(weights->tensors[0]).nested_map, DynamicMap());
  EXPECT_EQ(ReadFourBit(weights->tensors[0]).absmax_codes.size(), 5u);
}

TEST(BitsAndBytes, HonoursTheStoredTables) {
  Parts parts = Nested();
  SetFloat(parts["w.weight.quant_map"], 3, 0.125f);
  SetFloat(parts["w.weight.nested_quant_map"], 200, 0.75f);
  const auto weights = Read(parts);
  ASSERT_THAT(weights, IsOk());
  EXPECT_EQ(weights->tensors[0].quantized->codebook[3], 0.125f);
  EXPECT_EQ(weights->tensors[0].quantized->nested_map[200], 0.75f);
}

TEST(BitsAndBytes, ReadsEightBitsWithoutAFormat) {
  Parts parts = EightBit();
  parts.erase("w.weight_format");
  EXPECT_THAT(Read(parts), IsOk());
}

TEST(BitsAndBytes, LeavesOutACompanionWithItsMatrix) {
  const TempDir dir;
  Parts parts =
      FourBitParts("pooler.dense.weight", SmallFourBit(WeightFormat::kNf4, 4, 8, 32, true));
  parts.merge(Int8Parts("cls.predictions.weight", 2, 2));
  parts["a"] = {"F32", {1}, "abcd"};
  dir.Write("model.safetensors", SafetensorsOf(parts));
  ModelConfig bert;
  bert.architecture = Architecture::kBert;
  const auto weights = ReadHfWeights(dir.path(), bert);
  ASSERT_THAT(weights, IsOk());
  ASSERT_EQ(weights->tensors.size(), 1u);
  EXPECT_EQ(weights->tensors[0].name, "a");
  // A quantized head beside a tied embedding is not computed with either.
  dir.Write("model.safetensors",
            SafetensorsOf(
                FourBitParts("lm_head.weight", SmallFourBit(WeightFormat::kNf4, 4, 8, 32, false))));
  ModelConfig tied;
  tied.tied_head = true;
  EXPECT_TRUE(ReadHfWeights(dir.path(), tied)->tensors.empty());
}

// --- refusals ---

TEST(BitsAndBytes, WantsExactlyOneQuantState) {
  EXPECT_THAT(
      After(Plain(), [](Parts& parts) { parts.erase(kState); }),
      Lost("model.safetensors: tensor \"w.weight\" has no \"quant_state.bitsandbytes__nf4\" "
           "or \"…__fp4\" beside it"));
  EXPECT_THAT(
      After(Plain(),
            [](Parts& parts) { parts["w.weight.quant_state.bitsandbytes__fp4"] = parts[kState]; }),
      Lost("model.safetensors: tensor \"w.weight\" has two quant_states: "
           "\"quant_state.bitsandbytes__fp4\" and \"quant_state.bitsandbytes__nf4\""));
  EXPECT_THAT(After(Plain(),
                    [](Parts& parts) {
                      parts["w.weight.quant_state.bitsandbytes__int4"] = parts[kState];
                      parts.erase(kState);
                    }),
              StatusIs(absl::StatusCode::kUnimplemented,
                       HasSubstr("quant_state.bitsandbytes__int4\" is a quant_state that is not "
                                 "supported")));
  EXPECT_THAT(After(Plain(),
                    [](Parts& parts) {
                      parts["w.weight.quant_state.bitsandbytes__fp4"] = parts[kState];
                      parts.erase(kState);
                    }),
              LostWith("\"quant_type\" is \"nf4\", the tensor's name says \"fp4\""));
  EXPECT_THAT(After(Plain(), [](Parts& parts) { parts[kState].dtype = "I8"; }),
              LostWith("has dtype I8, wanted U8 (JSON text)"));
  EXPECT_THAT(After(Plain(), [](Parts& parts) { parts[kState] = TextPart("{garbage"); }),
              LostWith("model.safetensors: tensor \"w.weight.quant_state.bitsandbytes__nf4\": is "
                       "not valid JSON"));
}

TEST(BitsAndBytes, WantsEveryCompanion) {
  for (const char* key : {"absmax", "quant_map"}) {
    EXPECT_THAT(After(Plain(), [&](Parts& parts) { parts.erase(std::string("w.weight.") + key); }),
                Lost("model.safetensors: tensor \"w.weight\" has no \"" + std::string(key) +
                     "\" beside it"));
  }
  for (const char* key : {"nested_absmax", "nested_quant_map"}) {
    const std::string name = std::string("w.weight.") + key;
    EXPECT_THAT(After(Nested(), [&](Parts& parts) { parts.erase(name); }),
                Lost("model.safetensors: tensor \"w.weight\" has no \"" + std::string(key) +
                     "\" beside it, its quant_state has nested fields"));
    EXPECT_THAT(After(Plain(), [&](Parts& parts) { parts[name] = Nested()[name]; }),
                Lost("model.safetensors: tensor \"w.weight\" has \"" + std::string(key) +
                     "\" beside it, its quant_state has no nested fields"));
  }
  EXPECT_THAT(After(EightBit(), [](Parts& parts) { parts.erase("w.SCB"); }),
              Lost("model.safetensors: tensor \"w.weight\" has no \"SCB\" beside it"));
  EXPECT_THAT(After(Nested(), [](Parts& parts) { parts[kState] = Plain()[kState]; }),
              LostWith("its quant_state has no nested fields"));
}

TEST(BitsAndBytes, RefusesUnknownCompanions) {
  EXPECT_THAT(After(Plain(), [](Parts& parts) { parts["w.weight.zeros"] = TextPart("x"); }),
              Lost("model.safetensors: tensor \"w.weight.zeros\" is beside a 4-bit matrix, which "
                   "has no \"zeros\""));
  EXPECT_THAT(After(EightBit(), [](Parts& parts) { parts["w.weight.zeros"] = TextPart("x"); }),
              LostWith("\"w.weight.zeros\" is beside an 8-bit matrix"));
  EXPECT_THAT(After(EightBit(),
                    [](Parts& parts) { parts["w.weight.absmax"] = Plain()["w.weight.absmax"]; }),
              LostWith("\"w.weight.absmax\" is beside an 8-bit matrix, which has no \"absmax\""));
}

TEST(BitsAndBytes, RefusesUnpackedStatesByName) {
  for (const char* key : {"quant_type", "blocksize", "dtype", "shape", "nested_blocksize",
                          "nested_dtype", "nested_offset"}) {
    EXPECT_THAT(After(Nested(),
                      [&](Parts& parts) { parts[std::string("w.weight.") + key] = TextPart("x"); }),
                StatusIs(absl::StatusCode::kUnimplemented,
                         StartsWith("model.safetensors: tensor \"w.weight." + std::string(key) +
                                    "\" is a quant_state's field by itself")))
        << key;
  }
}

TEST(BitsAndBytes, RefusesCompanionsWithoutTheirMatrix) {
  for (const Parts& all : {Plain(), Nested(), EightBit()}) {
    EXPECT_THAT(After(all, [](Parts& parts) { parts.erase("w.weight"); }),
                LostWith("is there without \"w.weight\""));
  }
}

TEST(BitsAndBytes, RefusesCompanionsOfAnotherLength) {
  for (const char* key : {"absmax", "quant_map"}) {
    const std::string name = std::string("w.weight.") + key;
    EXPECT_THAT(After(Plain(), [&](Parts& parts) { Truncate(parts[name], 4); }),
                LostWith("tensor \"" + name + "\" is F32 ["))
        << key;
  }
  EXPECT_THAT(After(Plain(), [](Parts& parts) { Truncate(parts["w.weight.absmax"], 4); }),
              Lost("model.safetensors: tensor \"w.weight.absmax\" is F32 [4], wanted F32 [5]"));
  EXPECT_THAT(After(Nested(), [](Parts& parts) { Truncate(parts["w.weight.absmax"], 1); }),
              Lost("model.safetensors: tensor \"w.weight.absmax\" is U8 [4], wanted U8 [5]"));
  EXPECT_THAT(After(Nested(), [](Parts& parts) { Truncate(parts["w.weight.nested_absmax"], 4); }),
              LostWith("is F32 [0], wanted F32 [1]"));
  EXPECT_THAT(
      After(Nested(), [](Parts& parts) { Truncate(parts["w.weight.nested_quant_map"], 4); }),
      LostWith("is F32 [255], wanted F32 [256]"));
  EXPECT_THAT(After(EightBit(), [](Parts& parts) { Truncate(parts["w.SCB"], 4); }),
              Lost("model.safetensors: tensor \"w.SCB\" is F32 [2], wanted F32 [3]"));
  EXPECT_THAT(
      After(EightBit(),
            [](Parts& parts) { parts["w.weight_format"] = TextPart(std::string(2, '\0')); }),
      LostWith("\"w.weight_format\" is U8 [2], wanted U8 [1]"));
}

TEST(BitsAndBytes, RefusesCompanionsOfAnotherType) {
  EXPECT_THAT(
      After(Plain(), [](Parts& parts) { parts["w.weight.absmax"] = Nested()["w.weight.absmax"]; }),
      Lost("model.safetensors: tensor \"w.weight.absmax\" is U8 [5], wanted F32 [5]"));
  EXPECT_THAT(
      After(Nested(), [](Parts& parts) { parts["w.weight.absmax"] = Plain()["w.weight.absmax"]; }),
      LostWith("is F32 [5], wanted U8 [5]"));
  EXPECT_THAT(After(Plain(), [](Parts& parts) { parts["w.weight.quant_map"].dtype = "I32"; }),
              LostWith("is I32 [16], wanted F32 [16]"));
  EXPECT_THAT(After(EightBit(), [](Parts& parts) { parts["w.SCB"].dtype = "I32"; }),
              LostWith("\"w.SCB\" is I32 [3], wanted F32 [3]"));
}

TEST(BitsAndBytes, RefusesCodesThatAreNotTheShapes) {
  EXPECT_THAT(After(Plain(), [](Parts& parts) { Truncate(parts["w.weight"], 1); }),
              Lost("model.safetensors: tensor \"w.weight\" has 76 bytes of codes, its "
                   "quant_state's shape [3,51] wants 77"));
  EXPECT_THAT(After(Plain(),
                    [](Parts& parts) {  // 77 bytes do not fill F16, so bitsandbytes drops one
                      parts["w.weight"] = {"F16", {38, 1}, std::string(76, 'x')};
                    }),
              LostWith("has 76 bytes of codes"));
  EXPECT_THAT(After(Plain(), [](Parts& parts) { parts["w.weight"].dtype = "I8"; }),
              LostWith("has dtype I8, 4-bit codes are U8, F16, BF16 or F32"));
  EXPECT_THAT(After(Plain(),
                    [](Parts& parts) {  // bitsandbytes' spelling of "transposed"
                      parts["w.weight"].shape = {1, 77};
                    }),
              LostWith("has shape [1,77], 4-bit codes are one column"));
  EXPECT_THAT(After(EightBit(), [](Parts& parts) { parts["w.weight"].dtype = "U8"; }),
              LostWith("\"w.weight\" is U8 [3,5], 8-bit codes are I8 [rows, columns]"));
  EXPECT_THAT(After(EightBit(), [](Parts& parts) { parts["w.weight"].shape = {15}; }),
              LostWith("is I8 [15], 8-bit codes"));
  EXPECT_THAT(After(EightBit(),
                    [](Parts& parts) {
                      parts["w.weight"] = {"I8", {3, 0}, ""};
                    }),
              LostWith("is I8 [3,0], 8-bit codes"));
}

TEST(BitsAndBytes, RefusesOtherWeightFormatsByName) {
  for (const auto& [format, name] : {std::pair{1, "1 (col32)"},
                                     {2, "2 (col_turing)"},
                                     {3, "3 (col_ampere)"},
                                     {4, "4 (unknown)"},
                                     {255, "255 (unknown)"}}) {
    EXPECT_THAT(
        After(EightBit(),
              [&](Parts& parts) { parts["w.weight_format"].bytes[0] = static_cast<char>(format); }),
        Lost("model.safetensors: tensor \"w.weight_format\" is " + std::string(name) +
             ", wanted 0 (row): the others depend on a GPU and cannot be loaded"));
  }
}

TEST(BitsAndBytes, RefusesWhatIsNotFinite) {
  const auto refused = [](const std::string& message) {
    return StatusIs(absl::StatusCode::kInvalidArgument,
                    "model.safetensors: tensor " + message + "; a weight must be finite");
  };
  const absl::Status nan =
      After(Plain(), [](Parts& parts) { SetFloat(parts["w.weight.absmax"], 4, kNan); });
  EXPECT_THAT(nan, refused("\"w.weight.absmax\" is nan at [4]"));
  EXPECT_EQ(ReasonOf(nan), "WEIGHT_NOT_FINITE");
  EXPECT_THAT(After(Plain(), [](Parts& parts) { SetFloat(parts["w.weight.absmax"], 0, -kInf); }),
              refused("\"w.weight.absmax\" is -inf at [0]"));
  EXPECT_THAT(After(Plain(), [](Parts& parts) { SetFloat(parts["w.weight.quant_map"], 15, kInf); }),
              refused("\"w.weight.quant_map\" is inf at [15]"));
  EXPECT_THAT(
      After(Nested(), [](Parts& parts) { SetFloat(parts["w.weight.nested_absmax"], 0, kInf); }),
      refused("\"w.weight.nested_absmax\" is inf at [0]"));
  EXPECT_THAT(
      After(Nested(), [](Parts& parts) { SetFloat(parts["w.weight.nested_quant_map"], 7, kNan); }),
      refused("\"w.weight.nested_quant_map\" is nan at [7]"));
  EXPECT_THAT(After(EightBit(), [](Parts& parts) { SetFloat(parts["w.SCB"], 2, kInf); }),
              refused("\"w.SCB\" is inf at [2]"));
}

TEST(BitsAndBytes, RefusesCodesWithoutCompanionsByName) {
  const Parts four = {{"w.weight", Plain()["w.weight"]}};
  const Parts eight = {{"w.weight", EightBit()["w.weight"]}};
  EXPECT_THAT(Read(four, true),
              Lost("model.safetensors: tensor \"w.weight\" has dtype U8 but no quant_state beside "
                   "it, which bitsandbytes' matrices have"));
  EXPECT_THAT(Read(eight, true), LostWith("\"w.weight\" has dtype I8 but no SCB beside it"));
  EXPECT_THAT(Read(four), StatusIs(absl::StatusCode::kUnimplemented,
                                   HasSubstr("\"w.weight\" has dtype U8 and no quant_state")));
  EXPECT_THAT(Read(eight), StatusIs(absl::StatusCode::kUnimplemented,
                                    HasSubstr("\"w.weight\" has dtype I8 and no SCB")));
}

// The matrix straight from its parts, without a file.
absl::StatusOr<TensorRef> ReadInMemory(const Parts& parts) {
  std::vector<StoredTensor> stored;
  for (const auto& [name, part] : parts) {
    const auto* data = reinterpret_cast<const uint8_t*>(part.bytes.data());
    stored.push_back({"m", {name, part.dtype, part.shape, {data, part.bytes.size()}}});
  }
  Companions companions;
  const StoredTensor* matrix = nullptr;
  for (const StoredTensor& tensor : stored) {
    const auto name = SplitCompanionName(tensor.entry.name);
    if (name.has_value()) companions[name->key] = &tensor;
    if (!name.has_value()) matrix = &tensor;
  }
  return ReadQuantizedMatrix("w.weight", *matrix, companions);
}

TEST(BitsAndBytes, NeverOpensAnythingElseWhenAByteOfTheStateIsBroken) {
  Parts parts = Nested();
  const Part state = parts[kState];
  // Any number is an offset, as any is a scale: the digits and the space before them are free.
  const size_t offset = state.bytes.find(" 0.0625");
  for (size_t at = 0; at < state.bytes.size(); ++at) {
    parts[kState] = TextPart(state.bytes.substr(0, at));
    EXPECT_EQ(ReadInMemory(parts).status().code(), absl::StatusCode::kDataLoss) << at;
    parts[kState] = state;
    for (int byte = 0; byte < 256; ++byte) {
      parts[kState].bytes[at] = static_cast<char>(byte);
      const auto tensor = ReadInMemory(parts);
      if (!tensor.ok()) {
        EXPECT_THAT(std::string(tensor.status().message()), HasSubstr("w.weight")) << at;
        continue;
      }
      EXPECT_EQ(tensor->shape, (std::vector<int64_t>{3, 51})) << at << " " << byte;
      EXPECT_EQ(tensor->quantized->group_size, 32) << at << " " << byte;
      EXPECT_EQ(tensor->quantized->source_dtype, DType::kBF16) << at << " " << byte;
      if (at >= offset && at < offset + 7) continue;
      EXPECT_EQ(tensor->quantized->nested_offset, 0.0625f) << at << " " << byte;
    }
  }
}

}  // namespace
}  // namespace nibble
