// Statements: one method each, their ends found by name.
#include "engine/tokenizer/jinja_parser.h"

#include <initializer_list>
#include <string>
#include <utility>

#include "engine/status.h"
#include "engine/tokenizer/jinja_expression_parser.h"

namespace nibble::jinja {
namespace {

class StatementParser {
 public:
  StatementParser(std::vector<Token> tokens, int32_t max_depth, Program* program)
      : cursor_(std::move(tokens), max_depth, program), program_(program) {}

  absl::Status Run() {
    program_->body = ParseBlock({});
    if (!cursor_.AtEnd()) cursor_.Fail("a block ends that did not begin");
    return cursor_.status();
  }

 private:
  // Statements up to a tag that begins with one of `ends` (the cursor then is at that word), or to
  // the end of the source when there are none.
  Block ParseBlock(std::initializer_list<std::string_view> ends) {
    Block block;
    cursor_.Enter();
    while (!cursor_.AtEnd()) {
      if (cursor_.Peek().kind != TokenKind::kBlockBegin) {
        ParseText(&block);
        continue;
      }
      for (const std::string_view end : ends) {
        if (!cursor_.IsWord(end, 1)) continue;
        cursor_.Next();
        return Finish(std::move(block));
      }
      cursor_.Next();
      ParseStatement(&block);
    }
    if (ends.size() > 0)
      cursor_.Fail(absl::StrCat("{% ", Str(*std::prev(ends.end())), " %} is missing"));
    return Finish(std::move(block));
  }

  Block Finish(Block block) {
    cursor_.Leave();
    cursor_.CountMemory(block.capacity() * sizeof(Statement));
    return block;
  }

  template <typename Node>
  void Add(int32_t line, Node node, Block* block) {
    block->push_back(Statement{line, std::move(node)});
  }

  void ParseText(Block* block) {
    Token token = cursor_.Next();
    if (token.kind == TokenKind::kData) {
      cursor_.CountMemory(sizeof(Text) + 32 + token.text.size());
      return Add(token.line, Data{std::make_shared<const Text>(std::move(token.text))}, block);
    }
    ExpressionPtr value = cursor_.ParseTuple();
    cursor_.Expect(TokenKind::kVariableEnd, "'}}'");
    Add(token.line, Output{std::move(value)}, block);
  }

  void EndTag() { cursor_.Expect(TokenKind::kBlockEnd, "'%}'"); }
  // The head of a block ends, perhaps with a colon.
  void EndHead() {
    cursor_.AcceptOperator(":");
    EndTag();
  }
  // The block's end tag, the cursor at its word.
  void EndBlock(std::string_view word) {
    cursor_.ExpectWord(word);
    EndTag();
  }

  void ParseStatement(Block* block) {
    const int32_t line = cursor_.Peek().line;
    if (cursor_.AcceptWord("if")) return Add(line, ParseIf(), block);
    if (cursor_.AcceptWord("for")) return Add(line, ParseFor(), block);
    if (cursor_.AcceptWord("set")) return ParseSet(line, block);
    if (cursor_.AcceptWord("macro")) return Add(line, ParseMacro(), block);
    if (cursor_.AcceptWord("with")) return Add(line, ParseWith(), block);
    if (cursor_.AcceptWord("generation")) return Add(line, ParseGeneration(), block);
    if (cursor_.AcceptWord("filter")) return Add(line, ParseFilterBlock(), block);
    const bool is_break = cursor_.IsWord("break");
    if (!is_break && !cursor_.IsWord("continue")) return RefuseStatement();
    if (loops_ == 0) return cursor_.Fail("break or continue outside a for");
    cursor_.Next();
    EndTag();
    is_break ? Add(line, Break{}, block) : Add(line, Continue{}, block);
  }

  void RefuseStatement() {
    static constexpr std::string_view kKnown[] = {"call",    "include",   "import", "from",
                                                  "extends", "block",     "do",     "print",
                                                  "trans",   "autoescape"};
    for (const std::string_view word : kKnown) {
      if (cursor_.IsWord(word)) return cursor_.Unsupported(absl::StrCat("{% ", Str(word), " %}"));
    }
    cursor_.Fail("an unknown statement");
  }

  If ParseIf() {
    If statement;
    bool open = true;
    while (open) {
      ExpressionPtr test = cursor_.ParseTuple(false);
      EndHead();
      statement.branches.emplace_back(std::move(test), ParseBlock({"elif", "else", "endif"}));
      open = cursor_.AcceptWord("elif");
    }
    if (cursor_.AcceptWord("else")) {
      EndHead();
      statement.branches.emplace_back(nullptr, ParseBlock({"endif"}));
    }
    EndBlock("endif");
    return statement;
  }

  For ParseFor() {
    For statement;
    statement.target = cursor_.ParseTarget();
    if (statement.target.attribute != nullptr) cursor_.Fail("a for needs a name");
    cursor_.ExpectWord("in");
    statement.iterable = cursor_.ParseTuple(false);
    if (cursor_.AcceptWord("if")) statement.filter = cursor_.ParseExpression();
    if (cursor_.IsWord("recursive")) cursor_.Unsupported("a recursive for");
    EndHead();
    ++loops_;
    ++scopes_;
    statement.body = ParseBlock({"else", "endfor"});
    --loops_;
    if (cursor_.AcceptWord("else")) {
      EndHead();
      statement.otherwise = ParseBlock({"endfor"});
    }
    --scopes_;
    EndBlock("endfor");
    return statement;
  }

  void ParseSet(int32_t line, Block* block) {
    Target target = cursor_.ParseTarget();
    if (cursor_.AcceptOperator("=")) {
      ExpressionPtr value = cursor_.ParseTuple();
      EndTag();
      return Add(line, Set{std::move(target), std::move(value)}, block);
    }
    SetBlock statement{std::move(target), {}, {}};
    if (cursor_.AcceptOperator("|")) statement.filters = cursor_.ParseFilters();
    EndTag();
    statement.body = ParseScope({"endset"});
    EndBlock("endset");
    Add(line, std::move(statement), block);
  }

  Block ParseScope(std::initializer_list<std::string_view> ends) {
    ++scopes_;
    Block body = ParseBlock(ends);
    --scopes_;
    return body;
  }

  MacroDefinition ParseMacro() {
    // Elsewhere it would close over variables that may be gone when it is called.
    if (scopes_ > 0) cursor_.Unsupported("a macro inside a block with variables of its own");
    auto macro = std::make_unique<Macro>();
    macro->name = cursor_.ExpectName();
    cursor_.ExpectOperator("(");
    while (!cursor_.IsOperator(")") && !cursor_.AtEnd()) {
      const NameRef name = cursor_.ExpectName();
      ExpressionPtr value = cursor_.AcceptOperator("=") ? cursor_.ParseExpression() : nullptr;
      if (value == nullptr && !macro->parameters.empty() && macro->parameters.back().second) {
        cursor_.Fail("a parameter without default after one with");
      }
      macro->parameters.emplace_back(name, std::move(value));
      if (!cursor_.AcceptOperator(",")) break;
    }
    cursor_.ExpectOperator(")");
    EndHead();
    const int loops = std::exchange(loops_, 0);
    macro->body = ParseScope({"endmacro"});
    loops_ = loops;
    EndBlock("endmacro");
    return MacroDefinition{std::move(macro)};
  }

  With ParseWith() {
    With statement;
    while (cursor_.Peek().kind == TokenKind::kName) {
      Target target = cursor_.ParseTarget();
      cursor_.ExpectOperator("=");
      statement.variables.emplace_back(std::move(target), cursor_.ParseExpression());
      if (!cursor_.AcceptOperator(",")) break;
    }
    EndHead();
    statement.body = ParseScope({"endwith"});
    EndBlock("endwith");
    return statement;
  }

  // Hugging Face marks what the model said with it; here it only groups.
  With ParseGeneration() {
    EndTag();
    const int loops = std::exchange(loops_, 0);
    With statement{{}, ParseScope({"endgeneration"})};
    loops_ = loops;
    EndBlock("endgeneration");
    return statement;
  }

  FilterBlock ParseFilterBlock() {
    FilterBlock statement;
    statement.filters = cursor_.ParseFilters();
    EndTag();
    statement.body = ParseScope({"endfilter"});
    EndBlock("endfilter");
    return statement;
  }

  ExpressionParser cursor_;
  Program* const program_;
  int loops_ = 0;   // around the cursor, within one macro
  int scopes_ = 0;  // blocks with variables of their own around the cursor
};

}  // namespace

absl::StatusOr<Program> ParseProgram(std::string_view source, int32_t max_depth) {
  absl::StatusOr<std::vector<Token>> tokens = Tokenize(source);
  if (!tokens.ok()) return tokens.status();
  Program program;
  program.memory_bytes = sizeof(Program);
  const absl::Status status = StatementParser(*std::move(tokens), max_depth, &program).Run();
  if (!status.ok()) return status;
  return program;
}

}  // namespace nibble::jinja
