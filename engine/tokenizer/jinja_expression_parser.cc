// jinja2's precedences, from the loosest: a if b else c · or · and · not · comparisons · + - · ~ ·
// * / // % · ** · unary - + · suffixes.
#include "engine/tokenizer/jinja_expression_parser.h"

#include <charconv>
#include <cstdlib>

#include "engine/status.h"

namespace nibble::jinja {

const Token& ExpressionParser::Peek(size_t ahead) const {
  return status_.ok() && pos_ + ahead < tokens_.size() ? tokens_[pos_ + ahead] : tokens_.back();
}

Token ExpressionParser::Next() {
  const Token& token = Peek();
  if (token.kind != TokenKind::kEnd) ++pos_;
  return token;
}

bool ExpressionParser::IsOperator(std::string_view op, size_t ahead) const {
  return Peek(ahead).kind == TokenKind::kOperator && Peek(ahead).text == op;
}

bool ExpressionParser::IsWord(std::string_view word, size_t ahead) const {
  return Peek(ahead).kind == TokenKind::kName && Peek(ahead).text == word;
}

bool ExpressionParser::AcceptOperator(std::string_view op) {
  if (!IsOperator(op)) return false;
  ++pos_;
  return true;
}

bool ExpressionParser::AcceptWord(std::string_view word) {
  if (!IsWord(word)) return false;
  ++pos_;
  return true;
}

void ExpressionParser::ExpectOperator(std::string_view op) {
  if (!AcceptOperator(op)) Fail(absl::StrCat("'", Str(op), "' is missing"));
}

void ExpressionParser::ExpectWord(std::string_view word) {
  if (!AcceptWord(word)) Fail(absl::StrCat("'", Str(word), "' is missing"));
}

void ExpressionParser::Expect(TokenKind kind, std::string_view what) {
  if (Peek().kind != kind) return Fail(absl::StrCat(Str(what), " is missing"));
  Next();
}

NameRef ExpressionParser::ExpectName() {
  if (Peek().kind != TokenKind::kName) {
    Fail("a name is missing");
    return Intern("");
  }
  return Intern(Next().text);
}

NameRef ExpressionParser::Intern(const std::string& name) {
  const auto [at, inserted] = program_->names.insert(name);
  if (inserted) CountMemory(sizeof(std::string) + 48 + name.capacity());
  return &*at;
}

void ExpressionParser::Fail(std::string_view message) {
  if (status_.ok()) status_ = SyntaxError(Peek().line, Peek().column, message);
}

void ExpressionParser::Unsupported(std::string_view feature) {
  if (!status_.ok()) return;
  status_ = Error(absl::StatusCode::kUnimplemented, "CHAT_TEMPLATE_FEATURE",
                  absl::StrCat("chat template, line ", Peek().line, ", column ", Peek().column,
                               ": ", Str(feature), " is not supported"));
}

bool ExpressionParser::Enter() {
  if (++depth_ > max_depth_ && status_.ok()) {
    status_ = Error(absl::StatusCode::kResourceExhausted, "CHAT_TEMPLATE_LIMIT",
                    absl::StrCat("chat template, line ", Peek().line, ", column ", Peek().column,
                                 ": nested deeper than ", max_depth_));
  }
  return status_.ok();
}

ExpressionPtr ExpressionParser::ParseExpression(bool with_condition) {
  ExpressionPtr result;
  if (Enter()) result = with_condition ? ParseCondition() : ParseLogical(true);
  Leave();
  return result;
}

bool ExpressionParser::IsTupleEnd() const {
  const TokenKind kind = Peek().kind;
  return kind == TokenKind::kVariableEnd || kind == TokenKind::kBlockEnd ||
         kind == TokenKind::kEnd || IsOperator(")");
}

ExpressionPtr ExpressionParser::ParseTuple(bool with_condition) {
  const int32_t line = Peek().line;
  ExpressionPtr first = ParseExpression(with_condition);
  if (!IsOperator(",")) return first;
  Sequence tuple{{}, true};
  tuple.items.push_back(std::move(first));
  while (AcceptOperator(",") && !IsTupleEnd()) {
    tuple.items.push_back(ParseExpression(with_condition));
  }
  return Make(line, std::move(tuple));
}

Target ExpressionParser::ParseTarget() {
  Target target;
  const bool parenthesized = AcceptOperator("(");
  target.names.push_back(ExpectName());
  if (AcceptOperator(".")) {
    target.attribute = ExpectName();
    return target;
  }
  while (AcceptOperator(",")) {
    target.is_tuple = true;
    if (Peek().kind != TokenKind::kName || IsWord("in")) break;
    target.names.push_back(ExpectName());
  }
  if (parenthesized) ExpectOperator(")");
  return target;
}

ExpressionPtr ExpressionParser::ParseCondition() {
  ExpressionPtr then = ParseLogical(true);
  const int32_t line = Peek().line;
  if (!AcceptWord("if")) return then;
  ExpressionPtr test = ParseLogical(true);
  ExpressionPtr otherwise = AcceptWord("else") ? ParseExpression() : nullptr;
  return Make(line, Conditional{std::move(test), std::move(then), std::move(otherwise)});
}

ExpressionPtr ExpressionParser::ParseLogical(bool is_or) {
  const auto operand = [&] { return is_or ? ParseLogical(false) : ParseNot(); };
  const std::string_view word = is_or ? "or" : "and";
  const int32_t line = Peek().line;
  ExpressionPtr first = operand();
  if (!IsWord(word)) return first;
  Logical chain{is_or, {}};
  chain.operands.push_back(std::move(first));
  while (AcceptWord(word)) chain.operands.push_back(operand());
  return Make(line, std::move(chain));
}

ExpressionPtr ExpressionParser::ParseNot() {
  const int32_t line = Peek().line;
  if (!AcceptWord("not")) return ParseComparison();
  ExpressionPtr operand = Enter() ? ParseNot() : nullptr;
  Leave();
  return Make(line, Unary{UnaryOperator::kNot, std::move(operand)});
}

bool ExpressionParser::AcceptComparator(Comparator* comparator) {
  static constexpr std::pair<std::string_view, Comparator> kSymbols[] = {
      {"==", Comparator::kEq}, {"!=", Comparator::kNe}, {"<", Comparator::kLt},
      {"<=", Comparator::kLe}, {">", Comparator::kGt},  {">=", Comparator::kGe}};
  for (const auto& [symbol, meaning] : kSymbols) {
    *comparator = meaning;
    if (AcceptOperator(symbol)) return true;
  }
  *comparator = Comparator::kIn;
  if (AcceptWord("in")) return true;
  *comparator = Comparator::kNotIn;
  if (!IsWord("not") || !IsWord("in", 1)) return false;
  Next();
  Next();
  return true;
}

ExpressionPtr ExpressionParser::ParseComparison() {
  const int32_t line = Peek().line;
  ExpressionPtr first = ParseArithmetic(0);
  Comparison chain;
  Comparator comparator;
  while (AcceptComparator(&comparator)) chain.rest.emplace_back(comparator, ParseArithmetic(0));
  if (chain.rest.empty()) return first;
  chain.first = std::move(first);
  return Make(line, std::move(chain));
}

bool ExpressionParser::AcceptArithmetic(int level, Operator* op) {
  struct Row {
    int level;
    std::string_view symbol;
    Operator op;
  };
  static constexpr Row kRows[] = {{0, "+", Operator::kAdd},    {0, "-", Operator::kSub},
                                  {1, "~", Operator::kConcat}, {2, "*", Operator::kMul},
                                  {2, "/", Operator::kDiv},    {2, "//", Operator::kFloorDiv},
                                  {2, "%", Operator::kMod},    {3, "**", Operator::kPow}};
  for (const Row& row : kRows) {
    if (row.level != level || !AcceptOperator(row.symbol)) continue;
    *op = row.op;
    return true;
  }
  return false;
}

ExpressionPtr ExpressionParser::ParseArithmetic(int level) {
  const auto operand = [&] { return level == 3 ? ParseUnary(true) : ParseArithmetic(level + 1); };
  const int32_t line = Peek().line;
  ExpressionPtr first = operand();
  Arithmetic chain;
  Operator op;
  while (AcceptArithmetic(level, &op)) chain.rest.emplace_back(op, operand());
  if (chain.rest.empty()) return first;
  chain.first = std::move(first);
  return Make(line, std::move(chain));
}

ExpressionPtr ExpressionParser::ParseUnary(bool with_filters) {
  const int32_t line = Peek().line;
  Postfix postfix;
  if (IsOperator("-") || IsOperator("+")) {
    const bool minus = Next().text == "-";
    ExpressionPtr operand = Enter() ? ParseUnary(false) : nullptr;
    Leave();
    postfix.base =
        Make(line, Unary{minus ? UnaryOperator::kMinus : UnaryOperator::kPlus, std::move(operand)});
  } else {
    postfix.base = ParsePrimary();
  }
  ParseSuffixes(&postfix.suffixes);
  if (with_filters) ParseFiltersAndTests(&postfix.suffixes);
  if (postfix.suffixes.empty()) return std::move(postfix.base);
  CountMemory(postfix.suffixes.capacity() * sizeof(Suffix));
  return Make(line, std::move(postfix));
}

ExpressionPtr ExpressionParser::ParsePrimary() {
  const int32_t line = Peek().line;
  if (Peek().kind == TokenKind::kString) {
    std::string text;
    while (Peek().kind == TokenKind::kString) text += Next().text;
    CountMemory(sizeof(Text) + 32 + text.size());
    return Make(line, Constant{Value::Of(std::move(text))});
  }
  if (Peek().kind == TokenKind::kInteger || Peek().kind == TokenKind::kFloat) return ParseNumber();
  if (IsOperator("(")) return ParseParenthesized();
  if (IsOperator("[")) return ParseList();
  if (IsOperator("{")) return ParseDict();
  if (Peek().kind != TokenKind::kName) {
    Fail("an expression is missing");
    return nullptr;
  }
  const std::string word = Next().text;
  if (word == "true" || word == "True") return Make(line, Constant{Value(true)});
  if (word == "false" || word == "False") return Make(line, Constant{Value(false)});
  if (word == "none" || word == "None") return Make(line, Constant{Value::None()});
  return Make(line, Name{Intern(word)});
}

ExpressionPtr ExpressionParser::ParseNumber() {
  const Token token = Next();
  if (token.kind == TokenKind::kFloat) {
    return Make(token.line, Constant{Value(std::strtod(token.text.c_str(), nullptr))});
  }
  int64_t number = 0;
  const char* end = token.text.data() + token.text.size();
  const auto parsed = std::from_chars(token.text.data(), end, number);
  if (parsed.ec != std::errc()) Fail("an integer above 2^63");
  return Make(token.line, Constant{Value(number)});
}

ExpressionPtr ExpressionParser::ParseParenthesized() {
  const int32_t line = Next().line;
  if (AcceptOperator(")")) return Make(line, Sequence{{}, true});
  ExpressionPtr inner = ParseTuple();
  ExpectOperator(")");
  return inner;
}

ExpressionPtr ExpressionParser::ParseList() {
  Sequence list;
  const int32_t line = Next().line;
  while (!IsOperator("]") && !AtEnd()) {
    list.items.push_back(ParseExpression());
    if (!AcceptOperator(",")) break;
  }
  ExpectOperator("]");
  return Make(line, std::move(list));
}

ExpressionPtr ExpressionParser::ParseDict() {
  DictLiteral dict;
  const int32_t line = Next().line;
  while (!IsOperator("}") && !AtEnd()) {
    ExpressionPtr key = ParseExpression();
    ExpectOperator(":");
    dict.entries.emplace_back(std::move(key), ParseExpression());
    if (!AcceptOperator(",")) break;
  }
  ExpectOperator("}");
  return Make(line, std::move(dict));
}

}  // namespace nibble::jinja
