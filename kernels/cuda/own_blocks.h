// What the backend takes for itself when it is made, and never more: one block of device memory and
// one of page-locked host memory, carved up.
//
//   device := the formats' tables, step inputs, results, weight upload's pieces, cuBLAS's workspace
//   host   := step inputs, results
#pragma once

#include <cstdint>

#include "absl/status/statusor.h"
#include "kernels/cuda/device_tables.h"
#include "kernels/cuda/owned.h"

namespace nibble::cuda {

// What does not fit goes in parts, with a wait between them.
struct OwnSizes {
  int64_t input_bytes = int64_t{16} << 20;
  // Sampled tokens and their most likely ones, and what CopyToHost brings.
  int64_t result_bytes = int64_t{4} << 20;
};

struct OwnBlocks {
  OwnSizes sizes;
  OwnedDevice device;
  OwnedHost host;
  DeviceTables tables;
  char* inputs = nullptr;
  char* inputs_host = nullptr;
  char* results = nullptr;
  char* results_host = nullptr;
  char* pieces = nullptr;
  char* gemm = nullptr;
  int64_t gemm_bytes = 0;
  int64_t device_bytes = 0;  // of the block
};

// `sizes`: multiples of 256, inputs at least 4096. Tables are in place when it returns; `stream` is
// used for that. Errors: RESOURCE_EXHAUSTED, INTERNAL.
absl::StatusOr<OwnBlocks> TakeOwnBlocks(const DeviceTraits& traits, const OwnSizes& sizes,
                                        Stream* stream);

}  // namespace nibble::cuda
