// config.json's "quantization_config", as transformers' BitsAndBytesConfig writes it, and whether
// it agrees with the tensors. The tensors decide: each says its own format, and a config that
// promises more or less than the file holds is taken for what the file holds.
#pragma once

#include <optional>
#include <vector>

#include "absl/status/status.h"
#include "engine/loader/checkpoint.h"
#include "engine/loader/value.h"
#include "engine/model/config.h"

namespace nibble {

// `fields`: config.json's. Nothing where the file is not quantized. Fails fields with UNIMPLEMENTED
// (another method than bitsandbytes or a 4-bit type that is none, by name), DATA_LOSS (a field of
// the wrong kind), FAILED_PRECONDITION (4 and 8 bits at once).
std::optional<QuantizationConfig> ReadQuantizationConfig(Fields& fields);

// Makes config->quantization what the tensors are: nothing where none is quantized.
// Errors: FAILED_PRECONDITION naming both sides when the config says 4 bits and a tensor has 8, or
// the other way round, or when the tensors have both.
absl::Status ReconcileQuantization(const std::vector<TensorRef>& tensors, ModelConfig* config);

}  // namespace nibble
