// Mutated templates never crash, hang or break the rules: they render, or fail with one of the
// three codes. Reproducible: the seed is fixed.
#include <gtest/gtest.h>

#include <fstream>
#include <iterator>
#include <random>
#include <string>
#include <vector>

#include "engine/tokenizer/chat_template.h"
#include "simdjson.h"

namespace nibble {
namespace {

std::string ReadGolden(const std::string& name) {
  std::ifstream file(std::string(NIBBLE_SOURCE_DIR "/tests/golden/chat/") + name, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

std::vector<std::string> Corpus() {
  std::vector<std::string> corpus;
  simdjson::dom::parser parser;
  const simdjson::padded_string json(ReadGolden("cases.json"));
  simdjson::dom::element root = parser.parse(json);
  for (simdjson::dom::element test : root["cases"]) {
    std::string_view source;
    if (test["template"].get(source) == simdjson::SUCCESS) corpus.emplace_back(source);
  }
  for (const char* name : {"smollm2.jinja", "qwen3.jinja", "mistral-nemo.jinja"}) {
    corpus.push_back(ReadGolden(name));
  }
  return corpus;
}

class Mutator {
 public:
  explicit Mutator(std::vector<std::string> corpus) : corpus_(std::move(corpus)) {}

  std::string Next() {
    std::string source = Pick();
    for (size_t edits = 1 + random_() % 4; edits > 0; --edits) Edit(&source);
    return source;
  }

 private:
  const std::string& Pick() { return corpus_[random_() % corpus_.size()]; }
  size_t Position(const std::string& text) { return random_() % (text.size() + 1); }

  void Edit(std::string* source) {
    static const std::vector<std::string> kTokens = {"{{",
                                                     "}}",
                                                     "{%",
                                                     "%}",
                                                     "{#",
                                                     "#}",
                                                     "-",
                                                     "+",
                                                     "(",
                                                     ")",
                                                     "[",
                                                     "]",
                                                     "{",
                                                     "}",
                                                     "|",
                                                     ".",
                                                     ",",
                                                     "'",
                                                     "\"",
                                                     "\\",
                                                     "~",
                                                     "**",
                                                     "%",
                                                     "if ",
                                                     "else ",
                                                     "for ",
                                                     " in ",
                                                     "is ",
                                                     "not ",
                                                     "endfor",
                                                     "endif",
                                                     "set ",
                                                     "macro ",
                                                     "loop",
                                                     "messages",
                                                     "range(9999)",
                                                     "namespace()",
                                                     "none",
                                                     "[::-1]",
                                                     "|tojson",
                                                     "|map('upper')",
                                                     "|list",
                                                     ".split()",
                                                     "1e308",
                                                     "9223372036854775807",
                                                     "\xff",
                                                     "\xe2\x80",
                                                     "\n"};
    const size_t at = Position(*source);
    switch (random_() % 5) {
      case 0:
        source->insert(at, kTokens[random_() % kTokens.size()]);
        break;
      case 1:
        source->erase(at, 1 + random_() % 8);
        break;
      case 2:
        if (at < source->size()) (*source)[at] = static_cast<char>(random_());
        break;
      case 3: {  // a piece of another template
        const std::string& other = Pick();
        source->insert(at, other, Position(other), random_() % 40);
        break;
      }
      default: {  // a piece of its own, again
        const std::string piece = source->substr(Position(*source), random_() % 40);
        source->insert(at, piece);
      }
    }
  }

  const std::vector<std::string> corpus_;
  std::mt19937 random_{20240726};
};

bool IsAllowed(const absl::Status& status) {
  return status.ok() || status.code() == absl::StatusCode::kInvalidArgument ||
         status.code() == absl::StatusCode::kUnimplemented ||
         status.code() == absl::StatusCode::kResourceExhausted;
}

TEST(JinjaFuzz, MutatedTemplatesEndWithTextOrAnAllowedCode) {
  const std::vector<ChatMessage> messages = {{"system", "s\xff<|im_end|>"},
                                             {"user", "h\u00e9llo {{ x }}"},
                                             {"assistant", "<think>a</think>b"},
                                             {"user", ""}};
  const ChatTemplateLimits limits = {.max_steps = 20'000, .max_output_bytes = 1 << 16};
  Mutator mutator(Corpus());
  int rendered = 0;
  int parsed_only = 0;
  for (int i = 0; i < 30'000; ++i) {
    const std::string source = mutator.Next();
    const auto parsed = ChatTemplate::Parse(source, limits);
    ASSERT_TRUE(IsAllowed(parsed.status())) << source << "\n" << parsed.status();
    if (!parsed.ok()) continue;
    const auto segments = (*parsed)->Render(messages, {});
    ASSERT_TRUE(IsAllowed(segments.status())) << source << "\n" << segments.status();
    if (!segments.ok()) {
      ++parsed_only;
      continue;
    }
    ++rendered;
    bool content = false;
    size_t bytes = 0;
    for (size_t s = 0; s < segments->size(); ++s) {
      const TextSegment& segment = (*segments)[s];
      ASSERT_FALSE(segment.text.empty()) << source;
      ASSERT_TRUE(s == 0 || segment.is_content != content) << source;  // alternating
      content = segment.is_content;
      bytes += segment.text.size();
    }
    ASSERT_LE(bytes, size_t{1} << 16) << source;
  }
  EXPECT_GT(rendered, 3000);
  EXPECT_GT(parsed_only, 1000);
}

}  // namespace
}  // namespace nibble
