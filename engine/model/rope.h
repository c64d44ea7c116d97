// Rotary position embedding's frequencies. The rotation itself is the backend's.
#pragma once

#include <cstdint>
#include <vector>

#include "engine/model/config.h"

namespace nibble {

// inv_freq[i], i < head_dim / 2: the angle of pair i grows by this much per position. fp32, rounded
// where transformers rounds. Sources: RoFormer (Su et al. 2021); transformers'
// modeling_rope_utils.py for `linear` and `llama3`.
std::vector<float> InverseFrequencies(const RopeConfig& rope, int64_t head_dim);

}  // namespace nibble
