// Attention and the cache it reads, in double, by the two-pass softmax of the textbook.
#pragma once

#include <cstdint>
#include <span>

#include "kernels/kv_layout.h"
#include "kernels/tensor.h"

namespace nibble::reference {

// As Backend::RopeAndStore. The angle is rounded to fp32, as models are trained with; cosine and
// sine are of that.
void RopeAndStore(const Activations& q, const Activations& k, const Activations& v,
                  std::span<const float> inv_freq, std::span<const SequenceRows> sequences,
                  const KvCache& cache, int64_t layer);

// As Backend::PagedAttention. Reads no slot past the row's own position.
void PagedAttention(const Activations& q, std::span<const SequenceRows> sequences,
                    const KvCache& cache, int64_t layer, float scale, const Activations& out);

// As Backend::EncoderAttention.
void EncoderAttention(const Activations& q, const Activations& k, const Activations& v,
                      std::span<const SequenceRows> sequences, int64_t num_heads, float scale,
                      const Activations& out);

}  // namespace nibble::reference
