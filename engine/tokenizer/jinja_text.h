// UTF-8 text that remembers which of its bytes came from a message, and Python's string operations
// on it, which keep the marks. Knows nothing of templates.
//
// A character is a code point; an invalid byte counts as a character of its own. Every operation
// takes time linear in the bytes it reads and writes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace nibble::jinja {

class Text {
 public:
  // Bytes [begin, end) that came from a message.
  struct Span {
    uint32_t begin = 0;
    uint32_t end = 0;
  };

  Text() = default;
  explicit Text(std::string bytes, bool is_content = false);

  const std::string& bytes() const { return bytes_; }
  // Ascending, disjoint, not adjacent.
  const std::vector<Span>& content() const { return content_; }
  // What this text takes on the heap, for the budget.
  int64_t Cost() const { return static_cast<int64_t>(bytes_.size() + content_.size() * 8); }

  // Text is built by appending only, at most 4 GiB of it.
  void Append(std::string_view bytes, bool is_content = false);
  void Append(const Text& other) { Append(other, 0, other.bytes_.size()); }
  void Append(const Text& other, size_t begin, size_t end);

 private:
  void Mark(size_t begin, size_t end);

  std::string bytes_;
  std::vector<Span> content_;
};

// Walks a text one character at a time.
class CharReader {
 public:
  explicit CharReader(const Text& text) : text_(&text) {}
  // False at the end; otherwise code_point(), begin(), end() and is_content() describe a character.
  bool Next();
  char32_t code_point() const { return code_point_; }  // U+DC80 … U+DCFF: an invalid byte
  size_t begin() const { return begin_; }
  size_t end() const { return end_; }
  bool is_content() const { return is_content_; }

 private:
  const Text* text_;
  size_t begin_ = 0;
  size_t end_ = 0;
  size_t span_ = 0;
  char32_t code_point_ = 0;
  bool is_content_ = false;
};

// Decodes the character at `pos`, which is inside `bytes`; *length is its size in bytes.
char32_t DecodeChar(std::string_view bytes, size_t pos, size_t* length);
void AppendChar(char32_t code_point, std::string* bytes);
int64_t CountChars(std::string_view bytes);
// The byte offset of character `index`, or of the end when there are fewer.
size_t CharOffset(std::string_view bytes, int64_t index);
bool IsSpace(char32_t code_point);  // as Python's str.isspace

// Finds one string in others in linear time, unlike std::string::find. `what` must outlive it.
class Searcher {
 public:
  explicit Searcher(std::string_view what);
  // First occurrence at or after `from`, or npos.
  size_t Find(std::string_view text, size_t from = 0) const;

 private:
  std::string_view what_;
  std::vector<uint32_t> fallback_;  // Knuth, Morris, Pratt: of each matched length, the next best
};
// Occurrences of `what` that do not overlap, from the left; characters + 1 for an empty one.
int64_t CountOccurrences(std::string_view text, std::string_view what);

Text Substring(const Text& text, size_t begin, size_t end);

enum class Side : uint8_t { kBoth, kLeft, kRight };
// Without the characters of `chars` (null: whitespace) at its ends.
Text Strip(const Text& text, const std::string* chars, Side side);

// The pieces between separators, at most `max_splits` cuts (negative: all) from the left.
std::vector<Text> Split(const Text& text, std::string_view separator, int64_t max_splits);
std::vector<Text> SplitFromRight(const Text& text, std::string_view separator, int64_t max_splits);
// The words between runs of whitespace; what max_splits leaves keeps its whitespace.
std::vector<Text> SplitWords(const Text& text, int64_t max_splits);
std::vector<Text> SplitLines(const Text& text, bool keep_ends);

// Each of the first `max_count` (negative: all) occurrences of `what` becomes `with`.
Text Replace(const Text& text, std::string_view what, const Text& with, int64_t max_count);

// Simple case mappings of Unicode: one character becomes one.
Text Upper(const Text& text);
Text Lower(const Text& text);
Text Capitalize(const Text& text);
Text Title(const Text& text);

}  // namespace nibble::jinja
