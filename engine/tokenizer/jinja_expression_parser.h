// Parses expressions from a token list, for the statement parser. After the first error the list
// reads as ended, so every loop stops; results are then worthless and may be null.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "engine/tokenizer/jinja_lexer.h"
#include "engine/tokenizer/jinja_program.h"

namespace nibble::jinja {

class ExpressionParser {
 public:
  // Names and memory are recorded in `program`, which must outlive the parser.
  ExpressionParser(std::vector<Token> tokens, int32_t max_depth, Program* program)
      : tokens_(std::move(tokens)), max_depth_(max_depth), program_(program) {}

  const absl::Status& status() const { return status_; }
  const Token& Peek(size_t ahead = 0) const;
  Token Next();
  bool AtEnd() const { return Peek().kind == TokenKind::kEnd; }
  bool IsOperator(std::string_view op, size_t ahead = 0) const;
  bool IsWord(std::string_view word, size_t ahead = 0) const;
  bool AcceptOperator(std::string_view op);
  bool AcceptWord(std::string_view word);
  void ExpectOperator(std::string_view op);
  void ExpectWord(std::string_view word);
  void Expect(TokenKind kind, std::string_view what);
  NameRef ExpectName();

  void Fail(std::string_view message);
  void Unsupported(std::string_view feature);
  // Nesting of expressions and blocks: false past the limit. Leave() for every Enter().
  bool Enter();
  void Leave() { --depth_; }

  ExpressionPtr ParseExpression(bool with_condition = true);
  // One expression, or a tuple of several without parentheses around.
  ExpressionPtr ParseTuple(bool with_condition = true);
  // name | name, name … | namespace.attribute
  Target ParseTarget();
  // The filters of a block: name(args) | name …, the cursor at the first name.
  std::vector<Suffix> ParseFilters();
  CallArguments ParseArguments();
  void CountMemory(size_t bytes) { program_->memory_bytes += static_cast<int64_t>(bytes); }

 private:
  ExpressionPtr ParseCondition();
  ExpressionPtr ParseLogical(bool is_or);
  ExpressionPtr ParseNot();
  ExpressionPtr ParseComparison();
  ExpressionPtr ParseArithmetic(int level);
  ExpressionPtr ParseUnary(bool with_filters);
  ExpressionPtr ParsePrimary();
  ExpressionPtr ParseNumber();
  ExpressionPtr ParseParenthesized();
  ExpressionPtr ParseList();
  ExpressionPtr ParseDict();
  void ParseSuffixes(std::vector<Suffix>* suffixes);
  void ParseFiltersAndTests(std::vector<Suffix>* suffixes);
  Suffix ParseAttribute();
  Suffix ParseSubscript();
  Suffix ParseFilter();
  Suffix ParseTest();
  bool AcceptComparator(Comparator* comparator);
  bool AcceptArithmetic(int level, Operator* op);
  bool IsTupleEnd() const;
  NameRef Intern(const std::string& name);
  template <typename Node>
  ExpressionPtr Make(int32_t line, Node node) {
    CountMemory(sizeof(Expression) + 16);
    return std::make_unique<const Expression>(Expression{line, std::move(node)});
  }

  const std::vector<Token> tokens_;
  const int32_t max_depth_;
  Program* const program_;
  size_t pos_ = 0;
  int32_t depth_ = 0;
  absl::Status status_;
};

}  // namespace nibble::jinja
