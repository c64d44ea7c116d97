// bitsandbytes' own CUDA kernels, from the library that its PyPI wheel brings
// (libbitsandbytes_cuda130.so): C entry points, opened at run time. Each product goes the way that
// bitsandbytes 0.50's Python would take on this GPU.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/cuda/runtime.h"

namespace nibble::bench {

// A matrix as bitsandbytes keeps it on a GPU: [N, K] NF4 in the checkpoint's order, groups of 64
// with fp32 scales.
struct PeerMatrix {
  const uint8_t* codes = nullptr;  // [N·K/2]
  const float* absmax = nullptr;   // [N·K/64]
  int64_t n = 0;
  int64_t k = 0;
};

class BitsAndBytes {
 public:
  // Errors: UNAVAILABLE with the loader's own text.
  static absl::StatusOr<std::unique_ptr<BitsAndBytes>> Open(const std::string& library,
                                                            const cuda::DeviceTraits& traits);

  // Whether its fused kernel multiplies m rows.
  bool IsFused(int64_t m, int64_t n, int64_t k) const;
  // out = x·Wᵀ. x: [M, K] bf16; out: room for [M, N] fp32, and in bf16 where fused; scratch: [N, K]
  // bf16.
  absl::Status MatMul(const PeerMatrix& matrix, const void* x, int64_t m, float* out, void* scratch,
                      cuda::Stream* stream) const;
  // out: [N, K] bf16.
  void Dequantize(const PeerMatrix& matrix, void* out, cuda::Stream* stream) const;

 private:
  using Gemm = void (*)(const void* x, const void* codes, const void* absmax,
                        const void* absmax_codes, const void* map, const void* offset, void* out,
                        const void* bias, int m, int n, int k, int group, int type, void* stream);
  using Dequantizer = void (*)(const void* codebook, const void* codes, const void* absmax,
                               void* out, int group, int count, void* stream);
  explicit BitsAndBytes(const cuda::DeviceTraits& traits) : traits_(traits) {}

  cuda::DeviceTraits traits_;
  Gemm gemm_ = nullptr;
  Dequantizer dequantize_ = nullptr;
};

}  // namespace nibble::bench
