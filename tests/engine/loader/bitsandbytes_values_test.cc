#include "engine/loader/bitsandbytes_values.h"

#include <gtest/gtest.h>

#include <bit>
#include <cstdlib>
#include <filesystem>
#include <string>
#include <vector>

#include "engine/loader/checkpoint.h"
#include "engine/loader/hf_weights.h"
#include "engine/loader/json.h"
#include "engine/loader/mapped_file.h"
#include "kernels/int8.h"
#include "tests/engine/loader/bitsandbytes_parts.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temp_dir.h"

namespace nibble {
namespace {

namespace fs = std::filesystem;
using ::nibble::testing::FourBitParts;
using ::nibble::testing::Int8Parts;
using ::nibble::testing::IsOk;
using ::nibble::testing::Parts;
using ::nibble::testing::SafetensorsOf;
using ::nibble::testing::SmallFourBit;
using ::nibble::testing::TempDir;

const std::string kGolden = NIBBLE_SOURCE_DIR "/tests/golden/bnb/";

std::vector<uint32_t> Bits(const std::vector<float>& values) {
  std::vector<uint32_t> bits;
  for (const float value : values) bits.push_back(std::bit_cast<uint32_t>(value));
  return bits;
}

std::vector<float> Rows(const TensorRef& tensor, int64_t first, int64_t count) {
  std::vector<float> out(static_cast<size_t>(count * tensor.cols()));
  ReadRows(tensor, first, count, out);
  return out;
}

// The matrix of `parts`, with the files that it lies in.
HfWeights Open(const TempDir& dir, const Parts& parts) {
  dir.Write("model.safetensors", SafetensorsOf(parts));
  auto weights = ReadHfWeights(dir.path(), ModelConfig());
  EXPECT_THAT(weights, IsOk());
  return *std::move(weights);
}

void ExpectSame(const FourBitMatrix& got, const FourBitMatrix& want) {
  EXPECT_EQ(got.format, want.format);
  EXPECT_EQ(got.n, want.n);
  EXPECT_EQ(got.k, want.k);
  EXPECT_EQ(got.group_size, want.group_size);
  EXPECT_EQ(got.double_quant, want.double_quant);
  EXPECT_EQ(got.codes, want.codes);
  EXPECT_EQ(got.absmax, want.absmax);
  EXPECT_EQ(got.absmax_codes, want.absmax_codes);
  EXPECT_EQ(got.nested_absmax, want.nested_absmax);
  EXPECT_EQ(got.nested_offset, want.nested_offset);
  EXPECT_EQ(got.codebook, want.codebook);
  EXPECT_EQ(got.nested_map, want.nested_map);
}

// Every form: groups that straddle rows, more than 256 of them, odd counts, a stored table.
std::vector<FourBitMatrix> Matrices() {
  std::vector<FourBitMatrix> all;
  for (const WeightFormat format : {WeightFormat::kNf4, WeightFormat::kFp4}) {
    for (const bool nested : {false, true}) {
      for (const int group : {32, 64, 4096}) {
        all.push_back(SmallFourBit(format, 3, 51, group, nested));
        all.push_back(SmallFourBit(format, 97, 101, group, nested));
      }
    }
  }
  all.push_back(all.back());
  all.back().codebook[5] = 0.3f;
  all.back().nested_map[77] = -0.4f;
  return all;
}

TEST(ReadFourBit, GivesTheMatrixThatWasStored) {
  for (const FourBitMatrix& matrix : Matrices()) {
    const TempDir dir;
    const HfWeights weights = Open(dir, FourBitParts("w.weight", matrix));
    ExpectSame(ReadFourBit(weights.tensors[0]), matrix);
  }
}

TEST(ReadRows, EqualsDequantizeFourBitBitForBit) {
  for (const FourBitMatrix& matrix : Matrices()) {
    const TempDir dir;
    const HfWeights weights = Open(dir, FourBitParts("w.weight", matrix));
    std::vector<float> want(static_cast<size_t>(matrix.NumValues()));
    DequantizeFourBit(matrix, 0, want);
    const TensorRef& tensor = weights.tensors[0];
    EXPECT_EQ(Bits(Rows(tensor, 0, matrix.n)), Bits(want));
    for (int64_t row = 0; row < matrix.n; ++row) {
      const auto begin = want.begin() + row * matrix.k;
      EXPECT_EQ(Bits(Rows(tensor, row, 1)), Bits({begin, begin + matrix.k})) << row;
    }
  }
}

TEST(ReadRows, MultipliesACodeByItsScaleAndThenBy127th) {
  const TempDir dir;
  const HfWeights weights = Open(dir, Int8Parts("w.weight", 3, 50));
  const TensorRef& tensor = weights.tensors[0];
  const Int8Matrix matrix = ReadInt8(tensor);
  EXPECT_EQ(matrix.n, 3);
  EXPECT_EQ(matrix.k, 50);
  EXPECT_EQ(matrix.absmax, (std::vector<float>{1, 2, 3}));
  ASSERT_EQ(matrix.codes.size(), 150u);
  EXPECT_EQ(matrix.codes[0], -60);
  EXPECT_EQ(matrix.codes[119], 59);
  EXPECT_EQ(Rows(tensor, 1, 1)[0], -10 * 2.0f * (1.0f / 127));
  EXPECT_EQ(Rows(tensor, 2, 1)[20], -60 * 3.0f * (1.0f / 127));
  std::vector<float> want(150);
  DequantizeInt8(matrix, 0, want);
  EXPECT_EQ(Bits(Rows(tensor, 0, 3)), Bits(want));
}

TEST(ReadFourBitDeathTest, AbortsOnACallersMistake) {
  const TempDir dir;
  const HfWeights eight = Open(dir, Int8Parts("w.weight", 3, 5));
  const TempDir other;
  const HfWeights four =
      Open(other, FourBitParts("w.weight", SmallFourBit(WeightFormat::kNf4, 2, 2, 32, false)));
  EXPECT_DEATH(ReadFourBit(eight.tensors[0]), "a matrix of 4 bits");
  EXPECT_DEATH(ReadInt8(four.tensors[0]), "a matrix of 8 bits");
}

// --- what transformers and bitsandbytes wrote: tests/oracle/bnb_checkpoints.py ---

uint64_t Fnv1a(const std::vector<float>& values) {
  uint64_t digest = 0xcbf29ce484222325u;
  const auto* bytes = reinterpret_cast<const uint8_t*>(values.data());
  for (size_t i = 0; i < values.size() * sizeof(float); ++i) {
    digest = (digest ^ bytes[i]) * 0x100000001b3u;
  }
  return digest;
}

uint64_t Hex(const Value& text) { return std::strtoull(text.AsText()->c_str(), nullptr, 16); }

void ExpectForm(const TensorRef& tensor, const Value& want) {
  const std::string type = *want.Find("type")->AsText();
  EXPECT_EQ(tensor.type, type == "nf4"   ? TensorType::kNF4
                         : type == "fp4" ? TensorType::kFP4
                                         : TensorType::kINT8);
  const Value::Array& shape = *want.Find("shape")->AsArray();
  EXPECT_EQ(tensor.shape, (std::vector<int64_t>{*shape[0].AsInt(), *shape[1].AsInt()}));
  EXPECT_EQ(Name(tensor.quantized->source_dtype), *want.Find("source_dtype")->AsText());
  if (type == "int8") return;
  EXPECT_EQ(tensor.quantized->group_size, *want.Find("group_size")->AsInt());
  EXPECT_EQ(tensor.quantized->double_quant, *want.Find("double_quant")->AsBool());
}

void ExpectValues(const TensorRef& tensor, const Value& want) {
  const std::vector<float> values = Rows(tensor, 0, tensor.rows());
  for (const Value::Member& member : *want.Find("values")->AsObject()) {
    const size_t index = std::strtoull(member.key.c_str(), nullptr, 10);
    ASSERT_LT(index, values.size());
    EXPECT_EQ(std::bit_cast<uint32_t>(values[index]), Hex(member.value)) << index;
  }
  EXPECT_EQ(Fnv1a(values), Hex(*want.Find("fnv1a64")));
  std::vector<float> copied(values.size());
  if (tensor.type == TensorType::kINT8) {
    DequantizeInt8(ReadInt8(tensor), 0, copied);
  } else {
    const FourBitMatrix matrix = ReadFourBit(tensor);
    EXPECT_FALSE(NeedsOwnTables(matrix)) << "bitsandbytes' tables are ours";
    DequantizeFourBit(matrix, 0, copied);
  }
  EXPECT_EQ(Bits(copied), Bits(values));
}

// Opens the checkpoint and compares every quantized matrix.
void ExpectGolden(const std::string& folder) {
  SCOPED_TRACE(folder);
  const auto text = ReadTextFile(folder + "/expected.json", 1 << 20);
  ASSERT_THAT(text, IsOk());
  const auto expected = ParseJsonObject("expected.json", *text);
  ASSERT_THAT(expected, IsOk());
  const auto checkpoint = Checkpoint::Open(folder);
  ASSERT_THAT(checkpoint, IsOk());
  size_t left_out = 0;
  for (const Value& want : *expected->Find("matrices")->AsArray()) {
    const std::string& name = *want.Find("name")->AsText();
    SCOPED_TRACE(name);
    if (name.starts_with("pooler.")) {
      ++left_out;
      continue;
    }
    const TensorRef* tensor = (*checkpoint)->Find(name);
    ASSERT_NE(tensor, nullptr);
    ASSERT_TRUE(IsBitsAndBytes(tensor->type));
    ExpectForm(*tensor, want);
    ExpectValues(*tensor, want);
  }
  size_t quantized = left_out;
  for (const TensorRef& tensor : (*checkpoint)->tensors()) {
    quantized += IsBitsAndBytes(tensor.type) ? 1 : 0;
  }
  EXPECT_EQ(quantized, expected->Find("matrices")->AsArray()->size());
  ASSERT_TRUE((*checkpoint)->config().quantization.has_value());
  EXPECT_THAT((*checkpoint)->CheckUnchanged(), IsOk());
}

TEST(BitsAndBytesGoldens, DequantizeAsBitsAndBytesDoes) {
  int count = 0;
  for (const auto& entry : fs::directory_iterator(kGolden)) {
    ExpectGolden(entry.path().string());
    ++count;
  }
  EXPECT_EQ(count, 13);
}

TEST(BitsAndBytesGoldens, KeepWhatTheConfigSays) {
  const auto outliers = Checkpoint::Open(kGolden + "int8_outliers");
  ASSERT_THAT(outliers, IsOk());
  EXPECT_EQ((*outliers)->config().quantization->format, WeightFormat::kInt8);
  EXPECT_EQ((*outliers)->config().quantization->int8_threshold, 2.5f);
  EXPECT_EQ((*outliers)->config().dtype, DType::kBF16);
  const auto fp4 = Checkpoint::Open(kGolden + "bert_fp4");
  ASSERT_THAT(fp4, IsOk());
  EXPECT_EQ((*fp4)->config().quantization->format, WeightFormat::kFp4);
  EXPECT_EQ((*fp4)->config().dtype, DType::kBF16);
}

TEST(BitsAndBytesGoldens, MixSixteenBitsAndFour) {
  const auto checkpoint = Checkpoint::Open(kGolden + "nf4_skip");
  ASSERT_THAT(checkpoint, IsOk());
  for (const char* name : {"lm_head.weight", "model.layers.0.self_attn.q_proj.weight",
                           "model.layers.1.mlp.up_proj.weight", "model.embed_tokens.weight"}) {
    EXPECT_EQ((*checkpoint)->Find(name)->type, TensorType::kBF16) << name;
  }
  for (const char* name :
       {"model.layers.0.mlp.up_proj.weight", "model.layers.1.self_attn.v_proj.weight"}) {
    EXPECT_EQ((*checkpoint)->Find(name)->type, TensorType::kNF4) << name;
  }
}

}  // namespace
}  // namespace nibble
