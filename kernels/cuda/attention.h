// Rotary positions, the KV cache and attention on the device. Equations and shapes:
// kernels/backend.h. Every function appends its launches to a tape. A row's result depends on
// nothing but its own sequence, in both modes: whether it is computed alone or in a crowd, in a
// prompt's one chunk, its many or a decode step, its sums over keys split at the same positions and
// are combined in the same order, so it is the same bit for bit. (This takes a tensor core's sum
// for one element to be the same whatever the others are, and fp16 keys and values to be finite.)
// Grids depend on num_sequences, num_rows, page_stride and max_rows alone.
#pragma once

#include <cstdint>

#include "kernels/cuda/launch.h"
#include "kernels/cuda/sequences.h"
#include "kernels/kv_layout.h"
#include "kernels/tensor.h"

namespace nibble::cuda {

inline constexpr int64_t kMaxHeadDim = 256;

// exact: everything in fp32 (compute=fp32); else the tensor cores may take q, K, V and the
// probabilities in 16 bits, with fp32 sums; they do if head_dim is a multiple of 16 and the cache's
// type has 16 bits. head_dim is at most kMaxHeadDim.
struct AttentionSetup {
  bool exact = false;
  int64_t max_context = 0;  // of the model: fixes where long sequences are split
  char* scratch = nullptr;  // AttentionScratchBytes, 256-aligned
};

// For any step of a model with these limits: what attention_kernels.h says. Exact mode and
// encoders need none.
int64_t AttentionScratchBytes(int64_t max_rows, int64_t max_context, int64_t max_heads,
                              int64_t max_head_dim);

// inv_freq: device fp32 [head_dim / 2]. Rows of sequence -1 stay as they are, here and below.
void RopeAndStore(Tape* tape, const Activations& q, const Activations& k, const Activations& v,
                  const float* inv_freq, const DeviceSequences& sequences, const KvCache& cache,
                  int64_t layer);
void PagedAttention(Tape* tape, const AttentionSetup& setup, const Activations& q,
                    const DeviceSequences& sequences, const KvCache& cache, int64_t layer,
                    float scale, const Activations& out);
void EncoderAttention(Tape* tape, const AttentionSetup& setup, const Activations& q,
                      const Activations& k, const Activations& v, const DeviceSequences& sequences,
                      int64_t num_heads, float scale, const Activations& out);

}  // namespace nibble::cuda
