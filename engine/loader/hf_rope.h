// Rotary position embedding as config.json describes it, in transformers 4's spelling
// (rope_theta, rope_scaling with "type" or "rope_type") and 5's (rope_parameters).
#pragma once

#include "engine/loader/value.h"
#include "engine/model/config.h"

namespace nibble {

// Errors go to `fields`: DATA_LOSS, UNIMPLEMENTED for a scaling that we do not have, by name.
void ReadHfRope(Fields& fields, RopeConfig& rope);

}  // namespace nibble
