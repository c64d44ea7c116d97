// Marked text: the marks themselves, and characters in UTF-8.
#include "engine/tokenizer/jinja_text.h"

#include <algorithm>

#include "engine/tokenizer/utf8.h"

namespace nibble::jinja {

Text::Text(std::string bytes, bool is_content) : bytes_(std::move(bytes)) {
  if (is_content) Mark(0, bytes_.size());
}

void Text::Mark(size_t begin, size_t end) {
  if (begin == end) return;
  if (!content_.empty() && content_.back().end == begin) {
    content_.back().end = static_cast<uint32_t>(end);
  } else {
    content_.push_back({static_cast<uint32_t>(begin), static_cast<uint32_t>(end)});
  }
}

void Text::Append(std::string_view bytes, bool is_content) {
  const size_t begin = bytes_.size();
  bytes_.append(bytes);
  if (is_content) Mark(begin, bytes_.size());
}

void Text::Append(const Text& other, size_t begin, size_t end) {
  const size_t base = bytes_.size();
  bytes_.append(other.bytes_, begin, end - begin);
  auto span = std::upper_bound(other.content_.begin(), other.content_.end(), begin,
                               [](size_t at, const Span& s) { return at < s.end; });
  for (; span != other.content_.end() && span->begin < end; ++span) {
    Mark(base + std::max<size_t>(span->begin, begin) - begin,
         base + std::min<size_t>(span->end, end) - begin);
  }
}

char32_t DecodeChar(std::string_view bytes, size_t pos, size_t* length) {
  const utf8::Stretch stretch = utf8::Scan(bytes, pos);
  *length = stretch.valid ? stretch.length : 1;
  if (!stretch.valid) return 0xDC00u + static_cast<unsigned char>(bytes[pos]);
  return utf8::Decode(bytes, pos).code;
}

void AppendChar(char32_t code_point, std::string* bytes) {
  if (code_point >= 0xDC80 && code_point <= 0xDCFF) {
    bytes->push_back(static_cast<char>(code_point - 0xDC00));
    return;
  }
  utf8::Append(code_point, bytes);
}

bool CharReader::Next() {
  const std::string& bytes = text_->bytes();
  begin_ = end_;
  if (begin_ >= bytes.size()) return false;
  size_t length = 0;
  code_point_ = DecodeChar(bytes, begin_, &length);
  end_ = begin_ + length;
  const auto& spans = text_->content();
  while (span_ < spans.size() && spans[span_].end <= begin_) ++span_;
  is_content_ = span_ < spans.size() && spans[span_].begin <= begin_;
  return true;
}

int64_t CountChars(std::string_view bytes) {
  int64_t count = 0;
  size_t length = 0;
  for (size_t pos = 0; pos < bytes.size(); pos += length) {
    DecodeChar(bytes, pos, &length);
    ++count;
  }
  return count;
}

size_t CharOffset(std::string_view bytes, int64_t index) {
  size_t pos = 0;
  size_t length = 0;
  for (; index > 0 && pos < bytes.size(); --index, pos += length) DecodeChar(bytes, pos, &length);
  return pos;
}

bool IsSpace(char32_t c) {
  return (c >= 0x09 && c <= 0x0D) || (c >= 0x1C && c <= 0x20) || c == 0x85 || c == 0xA0 ||
         c == 0x1680 || (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F ||
         c == 0x205F || c == 0x3000;
}

Searcher::Searcher(std::string_view what) : what_(what), fallback_(what.size() + 1) {
  uint32_t length = 0;  // of the longest proper border of what[0, i]
  for (size_t i = 1; i < what.size(); ++i) {
    while (length > 0 && what[i] != what[length]) length = fallback_[length];
    if (what[i] == what[length]) ++length;
    fallback_[i + 1] = length;
  }
}

size_t Searcher::Find(std::string_view text, size_t from) const {
  if (what_.empty()) return from <= text.size() ? from : std::string_view::npos;
  size_t matched = 0;
  for (size_t i = from; i < text.size(); ++i) {
    if (matched == 0) {  // to the next place where it may begin
      i = text.find(what_[0], i);
      if (i == std::string_view::npos) return i;
    }
    while (matched > 0 && text[i] != what_[matched]) matched = fallback_[matched];
    if (text[i] == what_[matched]) ++matched;
    if (matched == what_.size()) return i + 1 - matched;
  }
  return std::string_view::npos;
}

int64_t CountOccurrences(std::string_view text, std::string_view what) {
  if (what.empty()) return CountChars(text) + 1;
  const Searcher searcher(what);
  int64_t count = 0;
  for (size_t at = searcher.Find(text); at != std::string_view::npos;
       at = searcher.Find(text, at + what.size())) {
    ++count;
  }
  return count;
}

Text Substring(const Text& text, size_t begin, size_t end) {
  Text result;
  result.Append(text, begin, end);
  return result;
}

}  // namespace nibble::jinja
