// What may follow an operand: .attribute, [subscript], (call), |filter, is test.
#include "engine/status.h"
#include "engine/tokenizer/jinja_expression_parser.h"

namespace nibble::jinja {

void ExpressionParser::ParseSuffixes(std::vector<Suffix>* suffixes) {
  while (true) {
    if (IsOperator(".")) {
      suffixes->push_back(ParseAttribute());
    } else if (IsOperator("[")) {
      suffixes->push_back(ParseSubscript());
    } else if (IsOperator("(")) {
      suffixes->push_back(Call{ParseArguments()});
    } else {
      return;
    }
  }
}

void ExpressionParser::ParseFiltersAndTests(std::vector<Suffix>* suffixes) {
  while (true) {
    if (AcceptOperator("|")) {
      suffixes->push_back(ParseFilter());
    } else if (AcceptWord("is")) {
      suffixes->push_back(ParseTest());
    } else if (IsOperator("(")) {
      suffixes->push_back(Call{ParseArguments()});
    } else {
      return;
    }
  }
}

std::vector<Suffix> ExpressionParser::ParseFilters() {
  std::vector<Suffix> filters;
  do {
    filters.push_back(ParseFilter());
  } while (AcceptOperator("|"));
  return filters;
}

Suffix ExpressionParser::ParseAttribute() {
  Next();
  if (Peek().kind == TokenKind::kInteger) return Subscript{ParseNumber()};
  return Attribute{ExpectName()};
}

Suffix ExpressionParser::ParseSubscript() {
  Next();
  const auto part = [this]() -> ExpressionPtr {
    return IsOperator(":") || IsOperator("]") ? nullptr : ParseExpression();
  };
  Slice slice;
  slice.start = part();
  if (!IsOperator(":")) {
    if (slice.start == nullptr) Fail("a subscript is missing");
    ExpectOperator("]");
    return Subscript{std::move(slice.start)};
  }
  Next();
  slice.stop = part();
  if (AcceptOperator(":")) slice.step = part();
  ExpectOperator("]");
  return slice;
}

CallArguments ExpressionParser::ParseArguments() {
  CallArguments arguments;
  ExpectOperator("(");
  while (!IsOperator(")") && !AtEnd()) {
    if (IsOperator("*") || IsOperator("**")) {
      Unsupported("unpacking of arguments");
    } else if (Peek().kind == TokenKind::kName && IsOperator("=", 1)) {
      std::string name = Next().text;
      Next();
      arguments.named.emplace_back(std::move(name), ParseExpression());
    } else if (!arguments.named.empty()) {
      Fail("a positional argument after a named one");
    } else {
      arguments.positional.push_back(ParseExpression());
    }
    if (!AcceptOperator(",")) break;
  }
  ExpectOperator(")");
  return arguments;
}

Suffix ExpressionParser::ParseFilter() {
  FilterCall filter{ExpectName(), {}};
  if (IsOperator("(")) filter.arguments = ParseArguments();
  return filter;
}

Suffix ExpressionParser::ParseTest() {
  TestCall test;
  test.negated = AcceptWord("not");
  test.name = ExpectName();
  if (IsOperator("(")) {
    test.arguments = ParseArguments();
    return test;
  }
  if (IsWord("is")) Fail("tests with 'is' cannot be chained");
  const TokenKind kind = Peek().kind;
  const bool begins_operand = kind == TokenKind::kName || kind == TokenKind::kString ||
                              kind == TokenKind::kInteger || kind == TokenKind::kFloat ||
                              IsOperator("(") || IsOperator("[") || IsOperator("{");
  // As jinja2: a word after a test is its argument, unless it can only go on the expression.
  if (!begins_operand || IsWord("else") || IsWord("or") || IsWord("and")) return test;
  const int32_t line = Peek().line;
  Postfix argument;
  argument.base = Enter() ? ParsePrimary() : nullptr;
  ParseSuffixes(&argument.suffixes);
  Leave();
  test.arguments.positional.push_back(Make(line, std::move(argument)));
  return test;
}

}  // namespace nibble::jinja
