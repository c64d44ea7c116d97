// A token that a model made of a piece of text.
#pragma once

#include <cstdint>

namespace nibble {

struct TokenSpan {
  int32_t id = 0;
  uint32_t begin = 0;  // bytes of the piece
  uint32_t end = 0;
};

}  // namespace nibble
