// The ways of attention between which attention.cc chooses. Arguments: attention.h.
#pragma once

#include "kernels/cuda/attention.h"

namespace nibble::cuda {

// fp32 throughout; caches of any type, head_dim up to 256, any number of heads to a KV head.
void ExactPagedAttention(Tape* tape, const Activations& q, const DeviceSequences& sequences,
                         const KvCache& cache, int64_t layer, float scale, const Activations& out);
void ExactEncoderAttention(Tape* tape, const Activations& q, const Activations& k,
                           const Activations& v, const DeviceSequences& sequences,
                           int64_t num_heads, float scale, const Activations& out);

// Tensor cores: 16-bit caches, head_dim a multiple of 16 up to 256. q in the cache's type with one
// power of two per row and head; probabilities in the cache's type; fp32 sums.
void TiledPagedAttention(Tape* tape, const AttentionSetup& setup, const Activations& q,
                         const DeviceSequences& sequences, const KvCache& cache, int64_t layer,
                         float scale, const Activations& out);
// What it takes of AttentionSetup::scratch: the splits of at most 64 rows that decode at a time,
// [rows][heads][splits] of head_dim + 2 fp32 values.
int64_t TiledScratchBytes(int64_t max_rows, int64_t max_context, int64_t max_heads,
                          int64_t max_head_dim);
// The same for rows: q, keys and values in fp16 with powers of two. k and v are aligned to 16 bytes
// and so are their strides.
void TiledEncoderAttention(Tape* tape, const Activations& q, const Activations& k,
                           const Activations& v, const DeviceSequences& sequences,
                           int64_t num_heads, float scale, const Activations& out);

}  // namespace nibble::cuda
