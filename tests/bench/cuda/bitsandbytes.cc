// The library's entry points, as its Python declares them, and its choice between fused and not
// (0.50, bf16 inputs, matrices of at least 4 Mi values).
#include "tests/bench/cuda/bitsandbytes.h"

#include <dlfcn.h>

#include "absl/strings/str_cat.h"

namespace nibble::bench {
namespace {

constexpr int kNf4 = 2;  // its number of the type
constexpr int kGroup = 64;

// The most rows that the fused kernel takes, by how often N / 64 thread blocks fill the GPU.
// Hopper's are bitsandbytes' own; elsewhere its bounds for the RTX 4090, which it also takes where
// it knows nothing better.
int64_t MostFusedRows(int64_t n, int64_t k, const cuda::DeviceTraits& traits) {
  const int64_t blocks = (n + 63) / 64, processors = traits.num_processors;
  if (traits.compute_major != 9) {
    if (blocks >= processors * 3) return 256;
    if (blocks >= processors * 2) return 128;
    return blocks * 5 >= processors * 4 ? 64 : 16;
  }
  if (blocks >= processors * 3) return 64;
  if (blocks >= processors * 2) return 48;
  if (blocks >= processors) return 32;
  if (blocks * 2 < processors) return 7;
  return k >= n && blocks * 4 < processors * 3 ? 7 : 16;
}

}  // namespace

absl::StatusOr<std::unique_ptr<BitsAndBytes>> BitsAndBytes::Open(const std::string& library,
                                                                 const cuda::DeviceTraits& traits) {
  if (library.empty()) return absl::UnavailableError("no library was named");
  void* const handle = dlopen(library.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (handle == nullptr) return absl::UnavailableError(dlerror());
  std::unique_ptr<BitsAndBytes> peer(new BitsAndBytes(traits));
  peer->gemm_ = reinterpret_cast<Gemm>(dlsym(handle, "cgemm_4bit_bf16"));
  peer->dequantize_ =
      reinterpret_cast<Dequantizer>(dlsym(handle, "cdequantize_blockwise_bf16_nf4"));
  if (peer->gemm_ == nullptr || peer->dequantize_ == nullptr) {
    return absl::UnavailableError(absl::StrCat(library, " lacks an entry point"));
  }
  return peer;
}

bool BitsAndBytes::IsFused(int64_t m, int64_t n, int64_t k) const {
  if (m <= 4) return true;
  // Between 5 and 7 rows it keeps its fused kernel but for a few shapes that are not timed here.
  return m <= MostFusedRows(n, k, traits_) || m < 8;
}

absl::Status BitsAndBytes::MatMul(const PeerMatrix& matrix, const void* x, int64_t m, float* out,
                                  void* scratch, cuda::Stream* stream) const {
  if (IsFused(m, matrix.n, matrix.k)) {
    gemm_(x, matrix.codes, matrix.absmax, nullptr, nullptr, nullptr, out, nullptr,
          static_cast<int>(m), static_cast<int>(matrix.n), static_cast<int>(matrix.k), kGroup, kNf4,
          cuda::NativeStream(stream));
    return absl::OkStatus();
  }
  Dequantize(matrix, scratch, stream);
  cuda::GemmCall call;
  call.type = cuda::GemmCall::Type::kBf16;
  call.m = m;
  call.n = matrix.n;
  call.k = call.x_stride = call.w_stride = matrix.k;
  call.x = x;
  call.w = scratch;
  call.out = out;
  call.out_stride = matrix.n;
  return cuda::IssueGemm(call, stream);
}

void BitsAndBytes::Dequantize(const PeerMatrix& matrix, void* out, cuda::Stream* stream) const {
  dequantize_(nullptr, matrix.codes, matrix.absmax, out, kGroup,
              static_cast<int>(matrix.n * matrix.k), cuda::NativeStream(stream));
}

}  // namespace nibble::bench
