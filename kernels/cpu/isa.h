// Which row of arithmetic to use: the best that the CPU has, or the one that was asked for.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/cpu/isa_table.h"

namespace nibble {

// The rows this CPU can run, slowest first; "scalar" is always there.
std::vector<const IsaTable*> SupportedIsas();

// The best row, or the one named. Errors: INVALID_ARGUMENT (unknown name, or a row this CPU lacks).
absl::StatusOr<const IsaTable*> ChooseIsa(const std::string& name);

}  // namespace nibble
