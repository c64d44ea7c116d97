// Both forms are first written as changes: a list of new characters, each of which replaces the
// next old one (0), is put in without replacing any (1), or replaces the next old one and swallows
// n more (-n). Origins follow from walking the old characters along the changes; where canonical
// ordering moves characters past each other, their changes move with them and the origins do not.
#include "engine/tokenizer/canonical_form.h"

#include <utf8proc.h>

#include <algorithm>
#include <optional>

#include "engine/tokenizer/unicode.h"

namespace nibble {
namespace {

struct Change {
  char32_t code = 0;
  int32_t change = 0;
  uint8_t combining_class = 0;
};

constexpr size_t kLongestDecomposition = 8;  // Unicode's longest canonical one has 4

uint8_t CombiningClass(char32_t c) {
  if (c < 0x300 || (unicode::Traits(c) & unicode::kNfcUnknown) != 0) return 0;
  const auto* property = utf8proc_get_property(static_cast<utf8proc_int32_t>(c));
  return static_cast<uint8_t>(property->combining_class);
}

// Calls emit for each character of c's canonical decomposition.
template <typename Emit>
void Decompose(char32_t c, const Emit& emit) {
  utf8proc_int32_t parts[kLongestDecomposition];
  utf8proc_ssize_t count = 0;
  if (c >= 0xC0 && (unicode::Traits(c) & unicode::kNfcUnknown) == 0) {
    int last_class = 0;
    count = utf8proc_decompose_char(
        static_cast<utf8proc_int32_t>(c), parts, kLongestDecomposition,
        static_cast<utf8proc_option_t>(UTF8PROC_DECOMPOSE | UTF8PROC_STABLE), &last_class);
  }
  if (count < 1 || count > static_cast<utf8proc_ssize_t>(kLongestDecomposition)) return emit(c);
  for (utf8proc_ssize_t i = 0; i < count; ++i) emit(static_cast<char32_t>(parts[i]));
}

std::optional<char32_t> Compose(char32_t first, char32_t second) {
  if ((unicode::Traits(second) & unicode::kNfcSensitive) == 0) return std::nullopt;
  utf8proc_int32_t pair[3] = {static_cast<utf8proc_int32_t>(first),
                              static_cast<utf8proc_int32_t>(second), 0};
  const utf8proc_ssize_t left = utf8proc_normalize_utf32(
      pair, 2, static_cast<utf8proc_option_t>(UTF8PROC_COMPOSE | UTF8PROC_STABLE));
  if (left != 1) return std::nullopt;
  const auto composed = static_cast<char32_t>(pair[0]);
  if ((unicode::Traits(composed) & unicode::kNfcUnknown) != 0) return std::nullopt;
  return composed;
}

void SortMarks(std::vector<Change>* changes, size_t begin) {
  const auto by_class = [](const Change& a, const Change& b) {
    return a.combining_class < b.combining_class;
  };
  const auto first = changes->begin() + static_cast<std::ptrdiff_t>(begin);
  if (!std::is_sorted(first, changes->end(), by_class)) {
    std::stable_sort(first, changes->end(), by_class);
  }
}

std::vector<Change> Decomposition(const std::vector<TracedCharacter>& characters) {
  std::vector<Change> changes;
  changes.reserve(characters.size());
  size_t marks = 0;  // where the characters after the last starter begin
  for (const TracedCharacter& character : characters) {
    int32_t change = 0;
    Decompose(character.code, [&](char32_t part) {
      const uint8_t combining_class = CombiningClass(part);
      if (combining_class == 0) SortMarks(&changes, marks);
      changes.push_back({part, change, combining_class});
      if (combining_class == 0) marks = changes.size();
      change = 1;
    });
  }
  SortMarks(&changes, marks);
  return changes;
}

std::vector<Change> Composition(const std::vector<Change>& decomposed) {
  std::vector<Change> out;
  out.reserve(decomposed.size());
  std::optional<Change> starter;
  std::vector<Change> marks;  // that follow the starter and did not join it
  const auto flush = [&] {
    if (starter.has_value()) out.push_back(*starter);
    out.insert(out.end(), marks.begin(), marks.end());
    marks.clear();
  };
  for (const Change& next : decomposed) {
    if (!starter.has_value() && next.combining_class != 0) {
      out.push_back(next);
      continue;
    }
    const bool blocked = !marks.empty() && marks.back().combining_class >= next.combining_class;
    if (starter.has_value() && !blocked) {
      if (const auto composed = Compose(starter->code, next.code)) {
        starter = Change{*composed, starter->change + next.change - 1, 0};
        continue;
      }
    }
    if (next.combining_class != 0) {
      marks.push_back(next);
      continue;
    }
    flush();
    starter = next;
  }
  flush();
  return out;
}

void Apply(const std::vector<Change>& changes, std::vector<TracedCharacter>* characters) {
  std::vector<TracedCharacter> out;
  out.reserve(changes.size());
  size_t next = 0;  // of the old characters
  for (const Change& change : changes) {
    const size_t source = change.change > 0 && next > 0 ? next - 1 : next;
    out.push_back({change.code, (*characters)[std::min(source, characters->size() - 1)].origin});
    if (change.change <= 0) next += static_cast<size_t>(1 - change.change);
  }
  *characters = std::move(out);
}

}  // namespace

bool IsPlainlyComposed(std::string_view text) {
  for (size_t at = 0; at < text.size();) {
    const utf8::Decoded c = utf8::Decode(text, at);
    if (c.code >= 0x300 && (unicode::Traits(c.code) & unicode::kNfcSensitive) != 0) return false;
    at += c.length;
  }
  return true;
}

void ToNfd(std::vector<TracedCharacter>* characters) {
  Apply(Decomposition(*characters), characters);
}

void ToNfc(std::vector<TracedCharacter>* characters) {
  Apply(Composition(Decomposition(*characters)), characters);
}

}  // namespace nibble
