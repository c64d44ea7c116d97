// Which row of arithmetic to use: the best that the CPU has, or the one that was asked for.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/backend_options.h"
#include "kernels/cpu/isa_table.h"

namespace nibble {

// Every row of this build, slowest first, whatever the CPU.
std::vector<std::string> IsaNames();

// The rows this CPU can run, slowest first; "scalar" is always there.
std::vector<const IsaTable*> SupportedIsas();

// The best row, or the one named. Errors: INVALID_ARGUMENT (unknown name, or a row this CPU lacks).
absl::StatusOr<const IsaTable*> ChooseIsa(const std::string& name);

// The numeric mode of `auto`, decided by the CPU and never by a measurement: bf16 where the row has
// its instructions at full rate (AMX; AMD's AVX512_BF16, Intel's being slower than fp32), else
// fp32.
Compute AutoCompute(const IsaTable& isa);

}  // namespace nibble
