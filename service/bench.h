// The measurements behind `nibble bench`; exit codes as in commands.h.
#pragma once

#include "service/commands.h"

namespace nibble {

int RunBenchModel(const Arguments& args);
int RunBenchKernels(const Arguments& args);
int RunBenchServe(const Arguments& args);

}  // namespace nibble
