// A kernel's name for messages.
#pragma once

#include <string>

namespace nibble::cuda::emulator {

// The function's name in the program's own symbol table; its address if the table is gone.
std::string KernelName(const void* kernel);

}  // namespace nibble::cuda::emulator
