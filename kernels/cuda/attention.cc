// Which kernels attend: the tensor cores' where they are allowed and take the shape, else fp32.
#include "kernels/cuda/attention.h"

#include <cstdio>
#include <cstdlib>

#include "kernels/cuda/attention_kernels.h"

namespace nibble::cuda {
namespace {

[[noreturn]] void Refuse(const char* what, int64_t got, const char* wanted) {
  std::fprintf(stderr, "attention: %s is %lld, wanted %s\n", what, static_cast<long long>(got),
               wanted);
  std::abort();
}

bool Tiled(const AttentionSetup& setup, int64_t head_dim) {
  if (head_dim > kMaxHeadDim) Refuse("head_dim", head_dim, "at most kMaxHeadDim");
  return !setup.exact && head_dim % 16 == 0;
}

// Tiles of rows are read 16 bytes at a time.
bool Aligned(const Activations& x) {
  return x.stride % 4 == 0 && reinterpret_cast<uintptr_t>(x.data) % 16 == 0;
}

}  // namespace

int64_t AttentionScratchBytes(int64_t max_rows, int64_t max_context, int64_t max_heads,
                              int64_t max_head_dim) {
  constexpr int64_t kAlignment = 256;
  const int64_t bytes = TiledScratchBytes(max_rows, max_context, max_heads, max_head_dim);
  return (bytes + kAlignment - 1) / kAlignment * kAlignment;
}

void PagedAttention(Tape* tape, const AttentionSetup& setup, const Activations& q,
                    const DeviceSequences& sequences, const KvCache& cache, int64_t layer,
                    float scale, const Activations& out) {
  if (sequences.num_rows == 0) return;
  if (Tiled(setup, cache.head_dim) && cache.dtype != DType::kF32) {
    if (setup.max_context <= 0) Refuse("max_context", setup.max_context, "the model's");
    return TiledPagedAttention(tape, setup, q, sequences, cache, layer, scale, out);
  }
  ExactPagedAttention(tape, q, sequences, cache, layer, scale, out);
}

void EncoderAttention(Tape* tape, const AttentionSetup& setup, const Activations& q,
                      const Activations& k, const Activations& v, const DeviceSequences& sequences,
                      int64_t num_heads, float scale, const Activations& out) {
  if (sequences.num_rows == 0) return;
  if (Tiled(setup, q.cols / num_heads) && Aligned(k) && Aligned(v)) {
    return TiledEncoderAttention(tape, q, k, v, sequences, num_heads, scale, out);
  }
  ExactEncoderAttention(tape, q, k, v, sequences, num_heads, scale, out);
}

}  // namespace nibble::cuda
