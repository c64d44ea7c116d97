// The interpreter's front: source to Program once, messages to marked text each time.
#include "engine/tokenizer/chat_template.h"

#include <utility>

#include "engine/status.h"
#include "engine/tokenizer/jinja_interpreter.h"
#include "engine/tokenizer/jinja_parser.h"

namespace nibble {
namespace {

jinja::Value Content(std::string_view text) {
  return jinja::Value(std::make_shared<const jinja::Text>(Str(text), /*is_content=*/true));
}

// [{"role": …, "content": …}]
jinja::Value MessagesValue(const std::vector<ChatMessage>& messages, jinja::Budget* budget) {
  std::vector<jinja::Value> items;
  items.reserve(messages.size());
  for (const ChatMessage& message : messages) {
    std::vector<std::pair<jinja::Value, jinja::Value>> entries;
    entries.emplace_back(jinja::Value::Of("role"), Content(message.role));
    entries.emplace_back(jinja::Value::Of("content"), Content(message.content));
    items.push_back(budget->Make(std::move(entries)));
  }
  return budget->Make(std::move(items));
}

void AppendSegment(const jinja::Text& text, size_t begin, size_t end, bool is_content,
                   std::vector<TextSegment>* segments) {
  if (begin < end) segments->push_back({text.bytes().substr(begin, end - begin), is_content});
}

std::vector<TextSegment> Segments(const jinja::Text& text) {
  std::vector<TextSegment> segments;
  size_t done = 0;
  for (const jinja::Text::Span& span : text.content()) {
    AppendSegment(text, done, span.begin, false, &segments);
    AppendSegment(text, span.begin, span.end, true, &segments);
    done = span.end;
  }
  AppendSegment(text, done, text.bytes().size(), false, &segments);
  return segments;
}

}  // namespace

struct ChatTemplate::Program {
  jinja::Program program;
  ChatTemplateLimits limits;
};

ChatTemplate::ChatTemplate(std::unique_ptr<Program> program) : program_(std::move(program)) {}
ChatTemplate::~ChatTemplate() = default;

absl::StatusOr<std::unique_ptr<ChatTemplate>> ChatTemplate::Parse(std::string_view source,
                                                                  ChatTemplateLimits limits) {
  if (static_cast<int64_t>(source.size()) > limits.max_source_bytes) {
    return Error(absl::StatusCode::kResourceExhausted, "CHAT_TEMPLATE_LIMIT",
                 absl::StrCat("chat template: ", source.size(), " bytes, at most ",
                              limits.max_source_bytes));
  }
  absl::StatusOr<jinja::Program> program = jinja::ParseProgram(source, limits.max_depth);
  if (!program.ok()) return program.status();
  auto owned = std::make_unique<Program>(Program{*std::move(program), limits});
  return std::unique_ptr<ChatTemplate>(new ChatTemplate(std::move(owned)));
}

absl::StatusOr<std::vector<TextSegment>> ChatTemplate::Render(
    const std::vector<ChatMessage>& messages, const ChatVariables& variables) const {
  const ChatTemplateLimits& limits = program_->limits;
  jinja::Budget budget(limits.max_steps, limits.max_output_bytes, limits.max_depth);
  jinja::Interpreter interpreter(&program_->program, variables.now, &budget);
  interpreter.Define("messages", MessagesValue(messages, &budget));
  interpreter.Define("tools", jinja::Value::None());  // as Hugging Face without any
  interpreter.Define("documents", jinja::Value::None());
  interpreter.Define("add_generation_prompt", jinja::Value(variables.add_generation_prompt));
  if (!variables.bos_token.empty()) {
    interpreter.Define("bos_token", jinja::Value::Of(variables.bos_token));
  }
  if (!variables.eos_token.empty()) {
    interpreter.Define("eos_token", jinja::Value::Of(variables.eos_token));
  }
  const jinja::Text text = interpreter.Run();
  if (!budget.ok()) return budget.status();
  return Segments(text);
}

int64_t ChatTemplate::MemoryBytes() const {
  return static_cast<int64_t>(sizeof(ChatTemplate) + sizeof(Program)) +
         program_->program.memory_bytes;
}

}  // namespace nibble
