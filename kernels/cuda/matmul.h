// out_i (+)= x·W_iᵀ + bias_i on the device: which way each product goes, and the scratch memory it
// takes. Two numeric modes: exact (compute=fp32: fp32 activations, fp32 codes) and the tensor
// cores' (compute=bf16: activations and codes of 16 bits, fp32 sums and scales). INT8 weights
// multiply as backend.h says in both.
#pragma once

#include <cstdint>
#include <span>

#include "kernels/backend.h"
#include "kernels/cuda/device_tables.h"
#include "kernels/cuda/four_bit_part.h"
#include "kernels/cuda/matmul_table.h"
#include "kernels/cuda/runtime.h"
#include "kernels/cuda/tape.h"

namespace nibble::cuda {

struct MatMulSetup {
  const DeviceTraits* traits = nullptr;
  DeviceTables tables;
  const MatMulTable* table = nullptr;  // which way by format and shape
  bool exact = false;
  bool batch_invariant = false;  // one way, whatever the number of rows
  // MatMulScratchBytes, 256-aligned. Its first kMatMulZeroedBytes are zero before the first product
  // and nobody else writes them: they count blocks that are done, and every product leaves zeros.
  char* scratch = nullptr;
  int64_t scratch_bytes = 0;
};
inline constexpr int64_t kMatMulZeroedBytes = 4 * kSplitCounters;

int64_t MatMulScratchBytes(const DeviceTraits& traits, const BackendLimits& limits, bool exact);

// Parts may be of different formats.
void MatMul(Tape* tape, const MatMulSetup& setup, const Activations& x,
            std::span<const MatMulPart> parts);

}  // namespace nibble::cuda
