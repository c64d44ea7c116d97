// The version that --version, GetServerInfo and nibble_build_info tell; CMake checks it against the
// project's.
#pragma once

namespace nibble {

inline constexpr char kVersion[] = "0.1.0";

}  // namespace nibble
