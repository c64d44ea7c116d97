// Looks a code point up among the few runs of its page.
#include "engine/tokenizer/unicode.h"

#include <utf8proc.h>

#include <algorithm>

namespace nibble::unicode {
namespace {

// A stretch of capitals that utf8proc's Unicode 15 does not know yet.
struct NewCapitals {
  char32_t first, last;
  char32_t step;   // 2: every other one is a capital
  int32_t offset;  // to the small letter
};
constexpr NewCapitals kNewCapitals[] = {
    {0x1C89, 0x1C89, 1, 1},      {0xA7CB, 0xA7CB, 1, -42343}, {0xA7CC, 0xA7CE, 2, 1},
    {0xA7D2, 0xA7D4, 2, 1},      {0xA7DA, 0xA7DA, 1, 1},      {0xA7DC, 0xA7DC, 1, -42561},
    {0x10D50, 0x10D65, 1, 0x20}, {0x16EA0, 0x16EB8, 1, 0x1B},
};

}  // namespace

uint32_t FindTraits(char32_t c) {
  const size_t page = c / kPageSize;
  const auto first = kRunBegins.begin() + kFirstRuns[page];
  const auto last = kRunBegins.begin() + kFirstRuns[page + 1] + 1;
  // Of the runs that touch the page, the last that begins at or before c.
  const auto next = std::upper_bound(first, last, static_cast<uint32_t>(c) * 32 + 31);
  return kKinds[*(next - 1) % 32];
}

char32_t ToLower(char32_t c) {
  if (c < 128) return c >= 'A' && c <= 'Z' ? c + 32 : c;
  for (const NewCapitals& range : kNewCapitals) {
    if (c < range.first || c > range.last || (c - range.first) % range.step != 0) continue;
    return static_cast<char32_t>(static_cast<int32_t>(c) + range.offset);
  }
  return static_cast<char32_t>(utf8proc_tolower(static_cast<utf8proc_int32_t>(c)));
}

}  // namespace nibble::unicode
