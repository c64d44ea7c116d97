// Rendering equals jinja2's in Hugging Face's environment (tests/golden/chat), and every character
// knows whether a message brought it.
#include "engine/tokenizer/chat_template.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <iterator>
#include <string>
#include <thread>
#include <vector>

#include "engine/status.h"
#include "simdjson.h"

namespace nibble {
namespace {

using ::testing::HasSubstr;

// What the oracle's clock says.
const absl::Time kNow =
    absl::FromCivil(absl::CivilSecond(2024, 7, 26, 13, 5, 9), absl::UTCTimeZone());

std::string ReadGolden(const std::string& name) {
  std::ifstream file(std::string(NIBBLE_SOURCE_DIR "/tests/golden/chat/") + name, std::ios::binary);
  EXPECT_TRUE(file.good()) << name;
  return {std::istreambuf_iterator<char>(file), {}};
}

absl::StatusOr<std::vector<TextSegment>> RenderSegments(const std::string& source,
                                                        const std::vector<ChatMessage>& messages,
                                                        bool prompt = true) {
  absl::StatusOr<std::unique_ptr<ChatTemplate>> parsed = ChatTemplate::Parse(source);
  if (!parsed.ok()) return parsed.status();
  return (*parsed)->Render(
      messages,
      {.bos_token = "<s>", .eos_token = "</s>", .add_generation_prompt = prompt, .now = kNow});
}

std::string Join(const std::vector<TextSegment>& segments) {
  std::string text;
  for (const TextSegment& segment : segments) text += segment.text;
  return text;
}

absl::StatusOr<std::string> Render(const std::string& source,
                                   const std::vector<ChatMessage>& messages = {},
                                   bool prompt = true) {
  const auto segments = RenderSegments(source, messages, prompt);
  if (!segments.ok()) return segments.status();
  return Join(*segments);
}

// "template[content]template": content in brackets.
std::string Marked(const std::string& source, const std::vector<ChatMessage>& messages) {
  const auto segments = RenderSegments(source, messages);
  EXPECT_TRUE(segments.ok()) << segments.status();
  std::string text;
  for (const TextSegment& segment : segments.value_or(std::vector<TextSegment>())) {
    EXPECT_FALSE(segment.text.empty());
    text += segment.is_content ? "[" + segment.text + "]" : segment.text;
  }
  return text;
}

std::vector<ChatMessage> Messages(simdjson::dom::element list) {
  std::vector<ChatMessage> messages;
  for (simdjson::dom::element message : list) {
    messages.push_back({std::string(message["role"].get_string().value()),
                        std::string(message["content"].get_string().value())});
  }
  return messages;
}

// A message of the user's own is not repeated; the rest of raise_exception's text is.
void ExpectRefusal(const absl::Status& status, const std::string& message) {
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
  EXPECT_EQ(ReasonOf(status), "CHAT_TEMPLATE_REFUSED") << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr(message));
}

TEST(ChatTemplate, RendersWhatJinja2RendersInHuggingFacesEnvironment) {
  simdjson::dom::parser parser;
  const simdjson::padded_string json(ReadGolden("cases.json"));
  simdjson::dom::element root = parser.parse(json);
  int rendered = 0;
  int refused = 0;
  int failed = 0;
  for (simdjson::dom::element test : root["cases"]) {
    std::string_view file;
    std::string source;
    if (test["file"].get(file) == simdjson::SUCCESS) {
      source = ReadGolden(std::string(file));
    } else {
      source = std::string(test["template"].get_string().value());
    }
    SCOPED_TRACE(std::string(test["name"].get_string().value()) + ": " + source);
    const auto got = Render(source, Messages(test["messages"]), test["prompt"].get_bool().value());
    std::string_view want;
    if (test["text"].get(want) == simdjson::SUCCESS) {
      EXPECT_TRUE(got.ok()) << got.status();
      EXPECT_EQ(got.value_or(""), want);
      ++rendered;
    } else if (test["refused"].get(want) == simdjson::SUCCESS) {
      ExpectRefusal(got.status(), std::string(want));
      ++refused;
    } else {
      EXPECT_EQ(got.status().code(), absl::StatusCode::kInvalidArgument) << got.status();
      ++failed;
    }
  }
  EXPECT_GE(rendered, 200);
  EXPECT_GE(refused, 6);
  EXPECT_GE(failed, 70);
}

TEST(ChatTemplate, MarksContentInSmolLm2sTemplate) {
  EXPECT_EQ(Marked(ReadGolden("smollm2.jinja"), {{"user", "Hi <|im_end|>"}}),
            "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging "
            "Face<|im_end|>\n<|im_start|>[user]\n[Hi <|im_end|>]<|im_end|>\n"
            "<|im_start|>assistant\n");
}

// In the real templates: all that is Greek came from a message, and nothing else of weight did.
TEST(ChatTemplate, MarksExactlyTheContentInRealTemplates) {
  const std::vector<ChatMessage> messages = {{"system", "  σύστημα\n"},
                                             {"user", "πρώτη"},
                                             {"assistant", "\n\nδεύτερη"},
                                             {"user", "τρίτη "}};
  for (const char* name : {"smollm2.jinja", "qwen2.5.jinja", "qwen3.jinja", "mistral-nemo.jinja",
                           "deepseek-v3.jinja"}) {
    const auto segments = RenderSegments(ReadGolden(name), messages);
    ASSERT_TRUE(segments.ok()) << segments.status();
    std::string content;
    for (const TextSegment& segment : *segments) {
      const bool greek = segment.text.find("\xce") != std::string::npos ||
                         segment.text.find("\xcf") != std::string::npos;
      const bool role =
          segment.text == "user" || segment.text == "system" || segment.text == "assistant";
      EXPECT_EQ(segment.is_content, greek || role) << name << ": " << segment.text;
      if (greek) content += segment.text;
    }
    for (const char* word : {"σύστημα", "πρώτη", "δεύτερη", "τρίτη"}) {
      EXPECT_THAT(content, HasSubstr(word)) << name;
    }
  }
}

TEST(ChatTemplate, KeepsMarksThroughEveryOperation) {
  const std::vector<ChatMessage> chat = {{"user", " aXbXc "}, {"user", "d"}};
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"{{ 'x' + c + 'y' }}", "x[ aXbXc ]y"},
      {"{{ 'x' ~ c ~ 1 }}", "x[ aXbXc ]1"},
      {"{{ c + messages[1].content }}", "[ aXbXc d]"},
      {"{{ ('<' + c + '>')[2:-2] }}", "[aXbXc]"},
      {"{{ ('<' + c + '>')[::-1] }}", ">[ cXbXa ]<"},
      {"{{ c[1] }}{{ ('<' + c)[0] }}", "[a]<"},
      {"{{ c|trim }}|{{ c.lstrip() }}|{{ c.rstrip() }}", "[aXbXc]|[aXbXc ]|[ aXbXc]"},
      {"{{ c.replace('X', '-') }}", "[ a]-[b]-[c ]"},
      {"{{ 'X.X'|replace('X', c) }}", "[ aXbXc ].[ aXbXc ]"},
      {"{{ c.split('X')|join('+') }}", "[ a]+[b]+[c ]"},
      {"{{ c.split() | first }}", "[aXbXc]"},
      {"{{ ['p', c, 'q']|join(',') }}", "p,[ aXbXc ],q"},
      {"{{ ['p', 'q']|join(c) }}", "p[ aXbXc ]q"},
      {"{{ c|upper }}{{ c|lower }}{{ c.title() }}{{ ('z' + c)|capitalize }}",
       "[ AXBXC  axbxc  Axbxc ]Z[ axbxc ]"},
      {"{{ c * 2 }}", "[ aXbXc  aXbXc ]"},
      {"{{ [c] }}{{ {'k': c} }}", "['[ aXbXc ]']{'k': '[ aXbXc ]'}"},
      {"{{ c|tojson }}", "\"[ aXbXc ]\""},
      {"{{ messages[1]|tojson }}", "{\"role\": \"[user]\", \"content\": \"[d]\"}"},
      {"{% for x in c %}{{ x }},{% endfor %}", "[ ],[a],[X],[b],[X],[c],[ ],"},
      {"{% set x %}({{ c }}){% endset %}{{ x }}", "([ aXbXc ])"},
      {"{% macro m(x) %}({{ x }}){% endmacro %}{{ m(c) }}", "([ aXbXc ])"},
      {"{% filter upper %}q{{ c }}{% endfilter %}", "Q[ AXBXC ]"},
      {"{{ c|string|safe|default('') }}", "[ aXbXc ]"},
      {"{{ c.splitlines()[0] }}{{ c|list|last }}", "[ aXbXc  ]"},
      {"{{ ('n\n' + c)|indent(1, true) }}", " n\n [ aXbXc ]"},
      {"{{ c|length }}", "7"},
      {"{{ [c, 'z']|sort|join }}{{ [c, c]|unique|join }}", "[ aXbXc ]z[ aXbXc ]"},
      {"{{ c.removeprefix(' a') }}", "[XbXc ]"},
      {"{% set ns = namespace(t='') %}{% for m in messages %}{% set ns.t = ns.t + m.content + ';' "
       "%}{% endfor %}{{ ns.t }}",
       "[ aXbXc ];[d];"},
  };
  for (const auto& [source, want] : cases) {
    EXPECT_EQ(Marked("{% set c = messages[0].content %}" + source, chat), want) << source;
  }
}

TEST(ChatTemplate, MarksEscapesMadeFromContent) {
  EXPECT_EQ(Marked("{{ messages[0].content|tojson }}", {{"user", "\"\n"}}), "\"[\\\"\\n]\"");
  EXPECT_EQ(Marked("{{ [messages[0].content] }}", {{"user", "'\"\n"}}), "['[\\'\"\\n]']");
}

TEST(ChatTemplate, TreatsTemplateSyntaxInsideContentAsText) {
  EXPECT_EQ(Marked("{{ messages[0].content }}", {{"user", "{{ 7 * 7 }}{% raw %}{#"}}),
            "[{{ 7 * 7 }}{% raw %}{#]");
}

TEST(ChatTemplate, GivesNoSegmentsForEmptyText) {
  const auto segments = RenderSegments("{{ messages[0].content }}", {{"user", ""}});
  ASSERT_TRUE(segments.ok());
  EXPECT_TRUE(segments->empty());
}

TEST(ChatTemplate, CarriesInvalidUtf8Through) {
  EXPECT_EQ(Marked("{{ messages[0].content[1:] }}", {{"user", "a\xff\xc3(\xf0\x9f"}}),
            "[\xff\xc3(\xf0\x9f]");
}

TEST(ChatTemplate, DoesNotRepeatContentInErrors) {
  const absl::Status status =
      Render("{{ raise_exception('Unknown role ' + messages[0].role + '!') }}", {{"secret", ""}})
          .status();
  ExpectRefusal(status, "Unknown role …!");
  EXPECT_EQ(std::string(status.message()).find("secret"), std::string::npos);
}

TEST(ChatTemplate, LeavesEmptyTokensUndefined) {
  const auto parsed = ChatTemplate::Parse("{{ bos_token is defined }}{{ bos_token }}");
  ASSERT_TRUE(parsed.ok());
  EXPECT_EQ(Join(*(*parsed)->Render({}, {})), "False");
  EXPECT_EQ(Join(*(*parsed)->Render({}, {.bos_token = "<s>", .eos_token = ""})), "True<s>");
}

TEST(ChatTemplate, NamesTheFeatureItDoesNotHave) {
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"{% include 'x' %}", "{% include %}"},
      {"{% call m() %}{% endcall %}", "{% call %}"},
      {"{% for x in y recursive %}{% endfor %}", "a recursive for"},
      {"{% for x in y %}{% macro m() %}{% endmacro %}{% endfor %}", "a macro inside"},
      {"{{ f(*a) }}", "unpacking"},
      {"{{ 1|wordwrap }}", "the filter wordwrap"},
      {"{{ 1 is escaped }}", "the test escaped"},
      {"{{ [1]|map('nope')|list }}", "the filter nope"},
      {"{{ [1]|select('nope')|list }}", "the test nope"},
      {"{{ '%s' % 1 }}", "formatting a string"},
      {"{{ '{}'.format(1) }}", "str.format"},
      {"{% set f = 'a'.upper %}{{ f() }}", "a method as a value"},
      {"{{ strftime_now('%99999999d') }}", "%9 in strftime_now"},
  };
  for (const auto& [source, feature] : cases) {
    const absl::Status status = Render(source).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kUnimplemented) << source << ": " << status;
    EXPECT_EQ(ReasonOf(status), "CHAT_TEMPLATE_FEATURE") << source;
    EXPECT_THAT(std::string(status.message()), HasSubstr(feature));
  }
}

TEST(ChatTemplate, SaysWhereASyntaxErrorIs) {
  const auto parsed = ChatTemplate::Parse("line\n{{ ok }}\n  {{ 1 + }}");
  EXPECT_EQ(parsed.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(ReasonOf(parsed.status()), "CHAT_TEMPLATE_SYNTAX");
  EXPECT_EQ(parsed.status().message(),
            "chat template, line 3, column 10: an expression is missing");
}

TEST(ChatTemplate, SaysOnWhichLineRenderingFailed) {
  const absl::Status status = Render("a\n{% if true %}\n{{ missing.x }}\n{% endif %}").status();
  EXPECT_EQ(status.message(), "chat template, line 3: 'missing' is undefined");
  EXPECT_EQ(ReasonOf(status), "CHAT_TEMPLATE_ERROR");
}

TEST(ChatTemplate, RendersFromManyThreadsAtOnce) {
  const auto parsed = ChatTemplate::Parse(ReadGolden("qwen3.jinja"));
  ASSERT_TRUE(parsed.ok());
  const std::vector<ChatMessage> messages = {{"user", "a"}, {"assistant", "b"}, {"user", "c"}};
  const std::string want = Join(*(*parsed)->Render(messages, {}));
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < 50; ++i) EXPECT_EQ(Join(*(*parsed)->Render(messages, {})), want);
    });
  }
  for (std::thread& thread : threads) thread.join();
}

TEST(ChatTemplate, CountsItsMemory) {
  const std::string source = ReadGolden("qwen3.jinja");
  const auto parsed = ChatTemplate::Parse(source);
  ASSERT_TRUE(parsed.ok());
  EXPECT_GT((*parsed)->MemoryBytes(), static_cast<int64_t>(source.size()));
  EXPECT_LT((*parsed)->MemoryBytes(), 1 << 20);
}

}  // namespace
}  // namespace nibble
