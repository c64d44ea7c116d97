// Page-aligned, zeroed memory that is resident from the start.
#pragma once

#include <cstdint>

#include "absl/status/statusor.h"
#include "kernels/buffer.h"

namespace nibble {

// bytes >= 0; 0 gives an empty buffer. Large blocks ask for huge pages.
// Errors: RESOURCE_EXHAUSTED with the bytes asked for.
absl::StatusOr<Buffer> AllocateResident(int64_t bytes);

}  // namespace nibble
