// Fills an inventory's memory from the checkpoint: reads slices, quantizes or rounds them, packs
// them for the device. Uses threads of its own for the time of one load.
#pragma once

#include <functional>

#include "absl/status/status.h"
#include "engine/loader/read_ahead.h"
#include "engine/model/inventory.h"
#include "engine/model/model.h"
#include "kernels/backend.h"

namespace nibble {

// The inventory is bound. Each matrix is quantized by itself in the checkpoint's row order; 16-bit
// ones keep the file's 16-bit type, or become fp16 if every |value| <= 65504, else bf16.
// Temporary memory stays below the largest matrix in fp32 plus 32 MiB.
// `ahead` reads the inventory's MatrixBytes. `progress` and `cancelled` are called on this thread,
// `cancelled` at least every 100 ms. Errors: INVALID_ARGUMENT naming file, tensor and index of a
// NaN or infinity; CANCELLED; the backend's.
absl::Status LoadWeights(Inventory* inventory, Backend* backend, ReadAhead* ahead,
                         const std::function<void(const LoadProgress&)>& progress,
                         const std::function<bool()>& cancelled);

}  // namespace nibble
