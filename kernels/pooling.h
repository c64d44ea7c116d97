// How the rows of an encoded sequence become one vector.
#pragma once

#include <cstdint>

namespace nibble {

enum class Pooling : uint8_t { kMean, kCls, kLast };

}  // namespace nibble
