// Our own broken invariants end the process with a sentence; nothing from outside comes here.
#pragma once

#include <cstdio>
#include <cstdlib>

namespace nibble {

inline void Check(bool holds, const char* invariant) {
  if (holds) return;
  std::fprintf(stderr, "broken invariant: %s\n", invariant);
  std::abort();
}

}  // namespace nibble
