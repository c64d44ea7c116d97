// Rotary embedding with the KV store, paged attention and encoder attention: cuts queries into
// units and points the ISA row at pages.
#pragma once

#include <cstdint>
#include <span>

#include "kernels/backend.h"
#include "kernels/cpu/context.h"

namespace nibble {

int64_t AttentionScratchBytes(const BackendLimits& limits, int num_threads);

void CpuRopeAndStore(const CpuContext& context, const Activations& q, const Activations& k,
                     const Activations& v, std::span<const float> inv_freq,
                     std::span<const SequenceRows> sequences, const KvCache& cache, int64_t layer);

void CpuPagedAttention(const CpuContext& context, const Activations& q,
                       std::span<const SequenceRows> sequences, const KvCache& cache, int64_t layer,
                       float scale, const Activations& out);

void CpuEncoderAttention(const CpuContext& context, const Activations& q, const Activations& k,
                         const Activations& v, std::span<const SequenceRows> sequences,
                         int64_t num_heads, float scale, const Activations& out);

}  // namespace nibble
