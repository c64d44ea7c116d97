// Rotary positions, the KV cache and attention on the device. Equations and shapes:
// kernels/backend.h. Every function appends its launches to a tape. A row's result depends on
// nothing but its own sequence: sums over keys split at absolute positions and are combined in
// order.
#pragma once

#include <cstdint>

#include "kernels/cuda/launch.h"
#include "kernels/cuda/sequences.h"
#include "kernels/kv_layout.h"
#include "kernels/tensor.h"

namespace nibble::cuda {

// exact: everything in fp32 (compute=fp32); else the tensor cores may take q, K, V and the
// probabilities in 16 bits, with fp32 sums.
struct AttentionSetup {
  bool exact = false;
  int64_t max_context = 0;  // of the model: fixes where long sequences are split
  char* scratch = nullptr;  // AttentionScratchBytes, 256-aligned
};

// For any step of a model with these limits.
int64_t AttentionScratchBytes(int64_t max_rows, int64_t max_context, int64_t max_heads,
                              int64_t max_head_dim);

// inv_freq: device fp32 [head_dim / 2].
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
