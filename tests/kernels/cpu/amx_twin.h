// The `amx` row on lanes and tiles in plain C++: its layouts, tails and numbers, on any machine.
#pragma once

#include "kernels/cpu/isa_table.h"

namespace nibble {

extern const IsaTable kAmxTwinTable;

}  // namespace nibble
