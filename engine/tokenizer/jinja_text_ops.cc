// Python's string methods on marked text: what is kept keeps its marks, what is put in brings its
// own.
#include <algorithm>
#include <set>

#include "engine/tokenizer/jinja_text.h"
#include "utf8proc.h"

namespace nibble::jinja {
namespace {

constexpr size_t kNone = std::string_view::npos;

struct Word {
  size_t begin = 0;
  size_t end = 0;
};

std::vector<Text> Pieces(const Text& text, const std::vector<Word>& ranges) {
  std::vector<Text> pieces;
  pieces.reserve(ranges.size());
  for (const Word& range : ranges) pieces.push_back(Substring(text, range.begin, range.end));
  return pieces;
}

// Appends `code_point` with the mark of the character it was made from.
void AppendMapped(utf8proc_int32_t code_point, bool is_content, Text* out) {
  std::string bytes;
  AppendChar(static_cast<char32_t>(code_point), &bytes);
  out->Append(bytes, is_content);
}

utf8proc_int32_t ToLower(char32_t c) { return utf8proc_tolower(static_cast<int32_t>(c)); }
utf8proc_int32_t ToUpper(char32_t c) { return utf8proc_toupper(static_cast<int32_t>(c)); }

bool IsLetter(char32_t c) {
  const utf8proc_category_t category = utf8proc_category(static_cast<utf8proc_int32_t>(c));
  return category >= UTF8PROC_CATEGORY_LU && category <= UTF8PROC_CATEGORY_LO;
}

}  // namespace

Text Strip(const Text& text, const std::string* chars, Side side) {
  std::set<char32_t> set;
  if (chars != nullptr) {
    const Text marked(*chars);
    for (CharReader reader(marked); reader.Next();) set.insert(reader.code_point());
  }
  size_t first_kept = text.bytes().size();
  size_t last_kept = 0;  // end of the last character that stays
  for (CharReader reader(text); reader.Next();) {
    const char32_t c = reader.code_point();
    if (chars != nullptr ? set.count(c) > 0 : IsSpace(c)) continue;
    first_kept = std::min(first_kept, reader.begin());
    last_kept = reader.end();
  }
  const size_t begin = side == Side::kRight ? 0 : first_kept;
  const size_t end = side == Side::kLeft ? text.bytes().size() : last_kept;
  return Substring(text, begin, std::max(begin, end));
}

std::vector<Text> Split(const Text& text, std::string_view separator, int64_t max_splits) {
  const Searcher searcher(separator);
  std::vector<Word> ranges;
  size_t begin = 0;
  for (; max_splits != 0; --max_splits) {
    const size_t at = searcher.Find(text.bytes(), begin);
    if (at == kNone) break;
    ranges.push_back({begin, at});
    begin = at + separator.size();
  }
  ranges.push_back({begin, text.bytes().size()});
  return Pieces(text, ranges);
}

std::vector<Text> SplitFromRight(const Text& text, std::string_view separator, int64_t max_splits) {
  // Searching backwards differs from searching forwards where occurrences overlap, so the text and
  // the separator are searched reversed.
  const std::string reversed(text.bytes().rbegin(), text.bytes().rend());
  const std::string mirrored(separator.rbegin(), separator.rend());
  const Searcher searcher(mirrored);
  std::vector<Word> ranges;
  size_t begin = 0;
  const size_t size = reversed.size();
  for (; max_splits != 0; --max_splits) {
    const size_t at = searcher.Find(reversed, begin);
    if (at == kNone) break;
    ranges.push_back({size - at, size - begin});
    begin = at + mirrored.size();
  }
  ranges.push_back({0, size - begin});
  std::reverse(ranges.begin(), ranges.end());
  return Pieces(text, ranges);
}

std::vector<Text> SplitWords(const Text& text, int64_t max_splits) {
  std::vector<Word> ranges;
  bool in_word = false;
  for (CharReader reader(text); reader.Next();) {
    if (IsSpace(reader.code_point())) {
      in_word = false;
      continue;
    }
    if (!in_word && max_splits >= 0 && static_cast<int64_t>(ranges.size()) == max_splits) {
      ranges.push_back({reader.begin(), text.bytes().size()});
      return Pieces(text, ranges);
    }
    if (!in_word) ranges.push_back({reader.begin(), reader.end()});
    ranges.back().end = reader.end();
    in_word = true;
  }
  return Pieces(text, ranges);
}

std::vector<Text> SplitLines(const Text& text, bool keep_ends) {
  const auto is_break = [](char32_t c) {
    return (c >= 0x0A && c <= 0x0D) || (c >= 0x1C && c <= 0x1E) || c == 0x85 || c == 0x2028 ||
           c == 0x2029;
  };
  std::vector<Word> ranges;
  size_t begin = 0;
  bool after_return = false;
  for (CharReader reader(text); reader.Next();) {
    const char32_t c = reader.code_point();
    const bool pair = after_return && c == '\n';
    after_return = c == '\r';
    if (pair) {
      begin = reader.end();
      if (keep_ends) ranges.back().end = reader.end();
    } else if (is_break(c)) {
      ranges.push_back({begin, keep_ends ? reader.end() : reader.begin()});
      begin = reader.end();
    }
  }
  if (begin < text.bytes().size()) ranges.push_back({begin, text.bytes().size()});
  return Pieces(text, ranges);
}

Text Replace(const Text& text, std::string_view what, const Text& with, int64_t max_count) {
  Text result;
  if (what.empty()) {  // between all characters, as Python does
    for (CharReader reader(text); reader.Next();) {
      if (max_count != 0) result.Append(with);
      if (max_count > 0) --max_count;
      result.Append(text, reader.begin(), reader.end());
    }
    if (max_count != 0) result.Append(with);
    return result;
  }
  const Searcher searcher(what);
  size_t begin = 0;
  for (; max_count != 0; --max_count) {
    const size_t at = searcher.Find(text.bytes(), begin);
    if (at == kNone) break;
    result.Append(text, begin, at);
    result.Append(with);
    begin = at + what.size();
  }
  result.Append(text, begin, text.bytes().size());
  return result;
}

Text Upper(const Text& text) {
  Text result;
  for (CharReader reader(text); reader.Next();) {
    AppendMapped(ToUpper(reader.code_point()), reader.is_content(), &result);
  }
  return result;
}

Text Lower(const Text& text) {
  Text result;
  for (CharReader reader(text); reader.Next();) {
    AppendMapped(ToLower(reader.code_point()), reader.is_content(), &result);
  }
  return result;
}

Text Capitalize(const Text& text) {
  Text result;
  for (CharReader reader(text); reader.Next();) {
    const char32_t c = reader.code_point();
    AppendMapped(reader.begin() == 0 ? ToUpper(c) : ToLower(c), reader.is_content(), &result);
  }
  return result;
}

Text Title(const Text& text) {
  Text result;
  bool in_word = false;
  for (CharReader reader(text); reader.Next();) {
    const char32_t c = reader.code_point();
    AppendMapped(in_word ? ToLower(c) : ToUpper(c), reader.is_content(), &result);
    in_word = IsLetter(c);
  }
  return result;
}

}  // namespace nibble::jinja
