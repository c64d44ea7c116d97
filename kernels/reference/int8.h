// LLM.int8() by its definition (kernels/backend.h): rounded where the definition rounds a decision
// (fp16, codes), in double elsewhere.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "kernels/backend.h"

namespace nibble::reference {

// One row of x [K], taken apart.
struct Int8Row {
  float stat = 0;
  std::vector<int32_t> codes;    // [K], 0 at outliers
  std::vector<float> outliers;   // [K], 0 at the others
  std::vector<bool> is_outlier;  // [K]
};
Int8Row TakeApart(std::span<const float> x, float threshold);

// One part of Backend::MatMul, its weight being INT8 in the oracle's layout.
void MatMulInt8(const Activations& x, const MatMulPart& part);

}  // namespace nibble::reference
