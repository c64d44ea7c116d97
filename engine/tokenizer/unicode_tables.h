// The generated table behind unicode.h. Nobody else includes this.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

namespace nibble::unicode {

inline constexpr size_t kNumRuns = 3910;
inline constexpr uint32_t kPageSize = 128;
inline constexpr size_t kNumPages = 0x110000 / kPageSize;

extern const std::array<uint32_t, 128> kAscii;                // bits of unicode.h
extern const std::array<uint32_t, 31> kKinds;                 // the sets of those bits that occur
extern const std::array<uint32_t, kNumRuns> kRunBegins;       // code point * 32 + kind, ascending
extern const std::array<uint16_t, kNumPages + 1> kFirstRuns;  // of each page
}  // namespace nibble::unicode
