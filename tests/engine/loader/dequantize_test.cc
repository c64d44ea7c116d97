// Goldens: tests/oracle/loader_goldens.py, from the gguf Python package.
#include "engine/loader/dequantize.h"

#include <gtest/gtest.h>

#include <cstring>
#include <string>
#include <vector>

#include "engine/loader/gguf.h"
#include "engine/loader/mapped_file.h"
#include "tests/support/status_matchers.h"

namespace nibble {
namespace {

using ::nibble::testing::IsOk;

const TensorRef* FindTensor(const GgufFile& file, const std::string& name) {
  for (const TensorRef& tensor : file.tensors) {
    if (tensor.name == name) return &tensor;
  }
  return nullptr;
}

class DequantizeGolden : public ::testing::TestWithParam<TensorType> {};

TEST_P(DequantizeGolden, EqualsTheGgufPackageBitForBit) {
  const auto mapped = MappedFile::Open(NIBBLE_SOURCE_DIR "/tests/golden/loader/blocks.gguf");
  ASSERT_THAT(mapped, IsOk());
  const auto file = ParseGguf("blocks.gguf", (*mapped)->bytes());
  ASSERT_THAT(file, IsOk());
  const std::string name = Name(GetParam());
  const TensorRef* tensor = FindTensor(*file, name);
  const TensorRef* expected = FindTensor(*file, name + ".values");
  ASSERT_NE(tensor, nullptr);
  ASSERT_NE(expected, nullptr);
  ASSERT_EQ(tensor->type, GetParam());
  ASSERT_EQ(tensor->shape, expected->shape);

  const int64_t count = tensor->NumValues();
  std::vector<float> values(static_cast<size_t>(count)), wanted(values);
  std::memcpy(wanted.data(), expected->data, static_cast<size_t>(expected->bytes));
  // Once as it lies, once from an odd address: blocks are never aligned to their numbers.
  std::vector<uint8_t> shifted(static_cast<size_t>(tensor->bytes) + 1);
  std::memcpy(shifted.data() + 1, tensor->data, static_cast<size_t>(tensor->bytes));
  for (const uint8_t* blocks : {tensor->data, static_cast<const uint8_t*>(shifted.data() + 1)}) {
    Dequantize(tensor->type, blocks, count, values.data());
    for (size_t i = 0; i < values.size(); ++i) {
      uint32_t got = 0, want = 0;
      std::memcpy(&got, &values[i], 4);
      std::memcpy(&want, &wanted[i], 4);
      ASSERT_EQ(got, want) << name << "[" << i << "]: " << values[i] << ", want " << wanted[i];
    }
  }
}

INSTANTIATE_TEST_SUITE_P(EveryType, DequantizeGolden,
                         ::testing::Values(TensorType::kF32, TensorType::kF16, TensorType::kBF16,
                                           TensorType::kQ4_0, TensorType::kQ4_1, TensorType::kQ5_0,
                                           TensorType::kQ5_1, TensorType::kQ8_0, TensorType::kQ4_K,
                                           TensorType::kQ5_K, TensorType::kQ6_K),
                         [](const auto& type) { return std::string(Name(type.param)); });

}  // namespace
}  // namespace nibble
