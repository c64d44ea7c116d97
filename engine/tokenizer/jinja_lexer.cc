// A hand-written scanner for the grammar in the header; linear in the source.
#include "engine/tokenizer/jinja_lexer.h"

#include <algorithm>
#include <utility>

#include "absl/strings/ascii.h"
#include "engine/status.h"
#include "engine/tokenizer/jinja_strings.h"
#include "engine/tokenizer/jinja_text.h"

namespace nibble::jinja {
namespace {

constexpr size_t kNone = std::string_view::npos;

// All newlines become \n and one at the very end goes, as jinja2 does by default.
std::string NormalizeNewlines(std::string_view source) {
  std::string result;
  result.reserve(source.size());
  for (size_t i = 0; i < source.size(); ++i) {
    if (source[i] == '\r') {
      if (i + 1 < source.size() && source[i + 1] == '\n') ++i;
      result.push_back('\n');
    } else {
      result.push_back(source[i]);
    }
  }
  if (!result.empty() && result.back() == '\n') result.pop_back();
  return result;
}

bool IsNameStart(char c) { return absl::ascii_isalpha(static_cast<unsigned char>(c)) || c == '_'; }
bool IsDigit(char c) { return absl::ascii_isdigit(static_cast<unsigned char>(c)); }

class Scanner {
 public:
  explicit Scanner(std::string source) : source_(std::move(source)) {}

  absl::StatusOr<std::vector<Token>> Run() {
    while (pos_ < source_.size()) {
      const absl::Status status = ScanTextAndTag();
      if (!status.ok()) return status;
    }
    Emit(TokenKind::kEnd, pos_, "");
    return std::move(tokens_);
  }

 private:
  char At(size_t pos) const { return pos < source_.size() ? source_[pos] : '\0'; }
  bool Has(std::string_view what) const {
    return std::string_view(source_).substr(pos_, what.size()) == what;
  }

  // Tokens come in ascending order, so counting lines costs one pass in all.
  void Locate(size_t pos) {
    for (; counted_ < pos; ++counted_) {
      if (source_[counted_] != '\n') continue;
      ++line_;
      line_begin_ = counted_ + 1;
    }
  }
  void Emit(TokenKind kind, size_t begin, std::string text) {
    Locate(begin);
    const auto column = static_cast<int32_t>(begin - line_begin_ + 1);
    tokens_.push_back({kind, line_, column, std::move(text)});
  }
  absl::Status Fail(size_t at, std::string_view message) {
    Locate(std::min(at, source_.size()));
    return SyntaxError(line_, static_cast<int32_t>(at - line_begin_ + 1), message);
  }

  // Position after whitespace as Python's \s sees it.
  size_t SkipSpace(size_t pos) const {
    size_t length = 0;
    while (pos < source_.size() && IsSpace(DecodeChar(source_, pos, &length))) pos += length;
    return pos;
  }

  // Text up to a tag, less what the tag's sign (or lstrip_blocks) takes.
  void EmitText(size_t end, char sign, bool lstrip) {
    std::string text = source_.substr(pos_, end - pos_);
    if (sign == '-') {
      text = Strip(Text(text), nullptr, Side::kRight).bytes();
    } else if (sign != '+' && lstrip) {
      const size_t newline = text.rfind('\n');
      const size_t begin = newline == std::string::npos ? 0 : newline + 1;
      const bool at_line_start = begin > 0 || pos_ == 0 || source_[pos_ - 1] == '\n';
      const bool blank = Strip(Text(text.substr(begin)), nullptr, Side::kBoth).bytes().empty();
      if (at_line_start && blank) text.resize(begin);
    }
    if (!text.empty()) Emit(TokenKind::kData, pos_, std::move(text));
  }

  size_t FindTag() const {
    size_t at = pos_;
    while (true) {
      at = source_.find('{', at);
      if (at == kNone) return kNone;
      const char next = At(at + 1);
      if (next == '%' || next == '{' || next == '#') return at;
      ++at;
    }
  }

  absl::Status ScanTextAndTag() {
    const size_t tag = FindTag();
    if (tag == kNone) {
      Emit(TokenKind::kData, pos_, source_.substr(pos_));
      pos_ = source_.size();
      return absl::OkStatus();
    }
    const char kind = source_[tag + 1];
    const char sign = At(tag + 2) == '-' || At(tag + 2) == '+' ? source_[tag + 2] : '\0';
    EmitText(tag, sign, kind != '{');
    pos_ = tag + (sign == '\0' ? 2 : 3);
    if (kind == '#') return ScanComment(tag);
    if (kind == '%' && SkipRawTag("raw", false)) return ScanRaw(tag);
    return ScanInside(tag, kind == '%');
  }

  // After a tag's end: "-" strips on, else a block's newline goes too.
  void SkipAfterTag(char sign, bool trim) {
    if (sign == '-') {
      pos_ = SkipSpace(pos_);
    } else if (sign != '+' && trim && At(pos_) == '\n') {
      ++pos_;
    }
  }

  absl::Status ScanComment(size_t begin) {
    const size_t end = source_.find("#}", pos_);
    if (end == kNone) return Fail(begin, "a comment without end");
    const char sign = end > pos_ ? source_[end - 1] : '\0';
    pos_ = end + 2;
    SkipAfterTag(sign, true);
    return absl::OkStatus();
  }

  // At "{%" + sign: whether `name` and the tag's end follow; if so, moves past them.
  bool SkipRawTag(std::string_view name, bool trim) {
    size_t pos = SkipSpace(pos_);
    if (std::string_view(source_).substr(pos, name.size()) != name) return false;
    pos = SkipSpace(pos + name.size());
    const char sign = At(pos) == '-' || (At(pos) == '+' && trim) ? source_[pos] : '\0';
    if (sign != '\0') ++pos;
    if (At(pos) != '%' || At(pos + 1) != '}') return false;
    pos_ = pos + 2;
    SkipAfterTag(sign, trim);
    return true;
  }

  absl::Status ScanRaw(size_t begin) {
    const size_t text_begin = pos_;
    for (size_t tag = source_.find("{%", pos_); tag != kNone; tag = source_.find("{%", tag + 2)) {
      const char sign = At(tag + 2) == '-' || At(tag + 2) == '+' ? source_[tag + 2] : '\0';
      pos_ = tag + (sign == '\0' ? 2 : 3);
      if (!SkipRawTag("endraw", true)) continue;
      const size_t after = std::exchange(pos_, text_begin);
      EmitText(tag, sign, true);
      pos_ = after;
      return absl::OkStatus();
    }
    return Fail(begin, "{% raw %} without {% endraw %}");
  }

  // Whether the tag ends here; if so, emits its end and moves past it and what it strips.
  bool SkipEnd(bool block) {
    const char sign = At(pos_) == '-' || (block && At(pos_) == '+') ? source_[pos_] : '\0';
    const size_t at = pos_ + (sign == '\0' ? 0 : 1);
    if (At(at) != (block ? '%' : '}') || At(at + 1) != '}') return false;
    Emit(block ? TokenKind::kBlockEnd : TokenKind::kVariableEnd, pos_, "");
    pos_ = at + 2;
    SkipAfterTag(sign, block);
    return true;
  }

  absl::Status ScanInside(size_t begin, bool block) {
    Emit(block ? TokenKind::kBlockBegin : TokenKind::kVariableBegin, begin, "");
    std::string brackets;
    while (true) {
      pos_ = SkipSpace(pos_);
      if (pos_ >= source_.size()) return Fail(begin, "a tag without end");
      if (brackets.empty() && SkipEnd(block)) return absl::OkStatus();
      const char c = source_[pos_];
      absl::Status status;
      if (IsNameStart(c)) {
        ScanName();
      } else if (IsDigit(c)) {
        status = ScanNumber();
      } else if (c == '"' || c == '\'') {
        status = ScanString();
      } else {
        status = ScanOperator(&brackets);
      }
      if (!status.ok()) return status;
    }
  }

  void ScanName() {
    const size_t begin = pos_;
    while (IsNameStart(At(pos_)) || IsDigit(At(pos_))) ++pos_;
    Emit(TokenKind::kName, begin, source_.substr(begin, pos_ - begin));
  }

  void SkipDigits(std::string* digits) {
    for (; IsDigit(At(pos_)) || (At(pos_) == '_' && IsDigit(At(pos_ + 1))); ++pos_) {
      if (source_[pos_] != '_') digits->push_back(source_[pos_]);
    }
  }

  absl::Status ScanNumber() {
    const size_t begin = pos_;
    const bool after_dot = begin > 0 && source_[begin - 1] == '.';
    std::string digits;
    SkipDigits(&digits);
    TokenKind kind = TokenKind::kInteger;
    if (!after_dot && At(pos_) == '.' && IsDigit(At(pos_ + 1))) {
      kind = TokenKind::kFloat;
      digits.push_back('.');
      ++pos_;
      SkipDigits(&digits);
    }
    const size_t sign = At(pos_ + 1) == '+' || At(pos_ + 1) == '-' ? 1 : 0;
    if (!after_dot && (At(pos_) == 'e' || At(pos_) == 'E') && IsDigit(At(pos_ + 1 + sign))) {
      kind = TokenKind::kFloat;
      digits.append(source_, pos_, 1 + sign);
      pos_ += 1 + sign;
      SkipDigits(&digits);
    }
    if (IsNameStart(At(pos_))) return Fail(begin, "a number that goes on as a name");
    Emit(kind, begin, std::move(digits));
    return absl::OkStatus();
  }

  absl::Status ScanString() {
    const size_t begin = pos_;
    const char quote = source_[pos_++];
    while (pos_ < source_.size() && source_[pos_] != quote) pos_ += source_[pos_] == '\\' ? 2 : 1;
    if (pos_ >= source_.size()) return Fail(begin, "a string without end");
    std::string text;
    const std::string_view raw = std::string_view(source_).substr(begin + 1, pos_ - begin - 1);
    const std::string error = Unescape(raw, &text);
    if (!error.empty()) return Fail(begin, error);
    ++pos_;
    Emit(TokenKind::kString, begin, std::move(text));
    return absl::OkStatus();
  }

  absl::Status ScanOperator(std::string* brackets) {
    static constexpr std::string_view kOperators[] = {
        "//", "**", "==", "!=", ">=", "<=", "+", "-", "/", "*", "%", "~", "[",
        "]",  "(",  ")",  "{",  "}",  ">",  "<", "=", ".", ":", "|", ",", ";"};
    for (const std::string_view op : kOperators) {
      if (!Has(op)) continue;
      const size_t kind = std::string_view("([{").find(op[0]);
      if (kind != kNone) brackets->push_back(")]}"[kind]);
      if (std::string_view(")]}").find(op[0]) != kNone) {
        if (brackets->empty() || brackets->back() != op[0]) {
          return Fail(pos_, absl::StrCat("an unexpected '", Str(op), "'"));
        }
        brackets->pop_back();
      }
      Emit(TokenKind::kOperator, pos_, Str(op));
      pos_ += op.size();
      return absl::OkStatus();
    }
    return Fail(pos_, "an unexpected character");
  }

  const std::string source_;
  std::vector<Token> tokens_;
  size_t pos_ = 0;
  size_t counted_ = 0;  // source_[0, counted_) is in line_ and line_begin_
  size_t line_begin_ = 0;
  int32_t line_ = 1;
};

}  // namespace

absl::Status SyntaxError(int32_t line, int32_t column, std::string_view message) {
  return Error(absl::StatusCode::kInvalidArgument, "CHAT_TEMPLATE_SYNTAX",
               absl::StrCat("chat template, line ", line, ", column ", column, ": ", Str(message)));
}

absl::StatusOr<std::vector<Token>> Tokenize(std::string_view source) {
  return Scanner(NormalizeNewlines(source)).Run();
}

}  // namespace nibble::jinja
