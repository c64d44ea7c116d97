// Hostile templates end quickly, with RESOURCE_EXHAUSTED: whatever they try, steps, bytes and depth
// run out first.
#include "engine/tokenizer/jinja_budget.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <string>
#include <vector>

#include "engine/status.h"
#include "engine/tokenizer/chat_template.h"

namespace nibble {
namespace {

using ::testing::HasSubstr;

std::string Repeat(const std::string& text, int times) {
  std::string result;
  for (int i = 0; i < times; ++i) result += text;
  return result;
}

absl::Status RenderStatus(const std::string& source, const std::vector<ChatMessage>& messages = {},
                          ChatTemplateLimits limits = {}) {
  const auto parsed = ChatTemplate::Parse(source, limits);
  if (!parsed.ok()) return parsed.status();
  return (*parsed)->Render(messages, {}).status();
}

// Generous: under a sanitizer on a busy machine. Without limits they would take for ever.
void ExpectExhausted(const std::string& source, const std::string& what,
                     const std::vector<ChatMessage>& messages = {}) {
  const auto begin = std::chrono::steady_clock::now();
  const absl::Status status = RenderStatus(source, messages);
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - begin;
  const std::string shown = source.substr(0, 100);
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted) << shown << ": " << status;
  EXPECT_EQ(ReasonOf(status), "CHAT_TEMPLATE_LIMIT") << shown;
  EXPECT_THAT(std::string(status.message()), HasSubstr(what)) << shown;
  EXPECT_LT(seconds.count(), 20) << shown;
}

TEST(Budget, EndsEndlessLoops) {
  const std::string range = "range(100000)";
  ExpectExhausted(
      "{% for a in " + range + " %}{% for b in " + range + " %}{% endfor %}{% endfor %}", "steps");
  ExpectExhausted("{% for a in " + range + " %}{% for b in " + range + " if false %}{% endfor %}" +
                      "{% endfor %}",
                  "steps");
  ExpectExhausted("{% for a in " + range + " %}{{ " + range + "|map('string')|join }}{% endfor %}",
                  "steps");
  ExpectExhausted(
      "{% macro f(n) %}{% for i in range(10) %}{{ f(n + 1) if n < 20 }}{% endfor %}"
      "{% endmacro %}{{ f(0) }}",
      "steps");
}

TEST(Budget, EndsRecursionOfMacros) {
  ExpectExhausted("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "depth");
  ExpectExhausted(
      "{% macro f(x) %}{{ g(x) }}{% endmacro %}{% macro g(x) %}{{ f([x, x]) }}"
      "{% endmacro %}{{ f(1) }}",
      "depth");
  ExpectExhausted("{% macro f(x=f()) %}{% endmacro %}{{ f() }}", "depth");
}

TEST(Budget, EndsDeepNestingOfTheSource) {
  for (const auto& [open, close] :
       std::vector<std::pair<std::string, std::string>>{{"(", ")"},
                                                        {"[", "]"},
                                                        {"{1: ", "}"},
                                                        {"not ", ""},
                                                        {"- ", ""},
                                                        {"x[", "]"},
                                                        {"f(", ")"},
                                                        {"1 if 1 else ", ""},
                                                        {"x|default(", ")"},
                                                        {"x is eq(", ")"}}) {
    ExpectExhausted("{{ " + Repeat(open, 5000) + "1" + Repeat(close, 5000) + " }}",
                    "nested deeper");
  }
  for (const auto& [open, close] : std::vector<std::pair<std::string, std::string>>{
           {"{% if 1 %}", "{% endif %}"},
           {"{% for x in y %}", "{% endfor %}"},
           {"{% set x %}", "{% endset %}"},
           {"{% filter trim %}", "{% endfilter %}"},
           {"{% with %}", "{% endwith %}"},
           {"{% generation %}", "{% endgeneration %}"}}) {
    ExpectExhausted(Repeat(open, 5000) + Repeat(close, 5000), "nested deeper");
  }
}

TEST(Budget, RunsLongChainsThatDoNotNest) {
  for (const std::string chain :
       {" + 1", " ~ 1", " * 1", " or 0", " and 1", " == 1", "|int", "|string|int"}) {
    const absl::Status status = RenderStatus("{{ 1" + Repeat(chain, 20'000) + " }}");
    EXPECT_TRUE(status.ok()) << chain << ": " << status;
  }
  const std::string branches = Repeat("{% elif 0 %}x", 20'000);
  EXPECT_TRUE(RenderStatus("{% if 0 %}" + branches + "{% else %}y{% endif %}").ok());
  EXPECT_TRUE(RenderStatus("{{ x is defined" + Repeat(" and x", 20'000) + " }}").ok());
}

TEST(Budget, EndsDeepNestingOfValues) {
  ExpectExhausted(
      "{% set ns = namespace(x=[]) %}{% for i in range(100000) %}{% set ns.x = [ns.x] %}"
      "{% endfor %}",
      "depth");
  ExpectExhausted(
      "{% set ns = namespace(x={}) %}{% for i in range(100000) %}"
      "{% set ns.x = {'a': ns.x} %}{% endfor %}",
      "depth");
  ExpectExhausted(
      "{% set ns = namespace(x=[]) %}{% for i in range(100000) %}{% for j in [ns.x] %}"
      "{% set ns.x = loop %}{% endfor %}{% endfor %}",
      "depth");
}

TEST(Budget, LeaksNothingThroughCyclesOfNamespaces) {
  EXPECT_TRUE(
      RenderStatus("{% set a = namespace() %}{% set b = namespace(a=a, l=[a]) %}"
                   "{% set a.b = b %}{% set a.l = [b.l, a] %}{{ a.b == b }}{{ a }}{{ b.l }}")
          .ok());
}

TEST(Budget, EndsGrowthOfStrings) {
  ExpectExhausted(
      "{% set ns = namespace(s='x') %}{% for i in range(1000) %}"
      "{% set ns.s = ns.s + ns.s %}{% endfor %}",
      "the limit of");
  ExpectExhausted(
      "{% set ns = namespace(s='x') %}{% for i in range(1000) %}"
      "{% set ns.s = [ns.s, ns.s]|join %}{% endfor %}",
      "the limit of");
  ExpectExhausted(
      "{% set ns = namespace(s='x') %}{% for i in range(1000) %}"
      "{% set ns.s %}{{ ns.s }}{{ ns.s }}{% endset %}{% endfor %}",
      "the limit of");
  const std::string big = "{% set s = 'x' * 10000000 %}";
  for (const char* expression :
       {"'x' * 17000000", "'x' * 9223372036854775807", "'abcd' * 4611686018427387904",
        "s.join(['', '', ''])", "[s, s, s]|string", "[s, s]|tojson", "s ~ s", "s + s",
        "'xx'.replace('x', s)", "'xx'.replace('', s)", "('a\\n' * 1000)|indent(100000)",
        "'a\\nb\\nc'|indent(s)", "{'a': s, 'b': s}|tojson(indent=16)"}) {
    ExpectExhausted(big + "{{ " + expression + " }}", "output bytes");
  }
  ExpectExhausted(big + "{{ s }}{{ s }}", "output bytes");
}

TEST(Budget, EndsGrowthOfLists) {
  ExpectExhausted(
      "{% set ns = namespace(l=[1]) %}{% for i in range(1000) %}"
      "{% set ns.l = ns.l + ns.l %}{% endfor %}",
      "steps");
  for (const char* expression :
       {"[1] * 9223372036854775807", "('x' * 10000000)|list", "('x' * 10000000).split('x')",
        "('x ' * 5000000).split()", "('\\n' * 10000000).splitlines()", "([1] * 400000) * 2",
        "range(100000)|list + range(100000)|list + ([0] * 600000)",
        "(range(100000)|list)|unique|list", "('ab' * 5000000)[::-1]"}) {
    ExpectExhausted("{{ (" + std::string(expression) + ")|length }}", "steps");
  }
}

TEST(Budget, EndsHugeRanges) {
  for (const char* range : {"range(100001)", "range(9223372036854775807)",
                            "range(-9223372036854775807, 9223372036854775807)",
                            "range(9223372036854775807, -9223372036854775807, -1)"}) {
    ExpectExhausted("{% for i in " + std::string(range) + " %}{% endfor %}", "range");
  }
  EXPECT_TRUE(RenderStatus("{% for i in range(-9223372036854775807, 9223372036854775807, "
                           "9223372036854775807) %}{{ i }}{% endfor %}")
                  .ok());
}

TEST(Budget, EndsSearchesThatWouldBeQuadratic) {
  const std::string text = "{% set t = 'a' * 4000000 %}{% set w = 'a' * 2000000 ~ 'b' %}";
  EXPECT_TRUE(RenderStatus(text + "{{ w in t }}{{ t.find(w) }}{{ t.count(w) }}").ok());
  ExpectExhausted(text + "{% for i in range(100000) %}{{ w in t }}{% endfor %}", "steps");
  ExpectExhausted("{% set ns = namespace() %}" + Repeat("{% set d = {1:1,2:2,3:3,4:4} %}", 10) +
                      "{% for i in range(100000) %}{% for j in range(9) %}{{ 9 in d }}{% endfor %}"
                      "{% endfor %}",
                  "steps");
}

TEST(Budget, ChargesContentToo) {
  const std::vector<ChatMessage> messages = {{"user", std::string(4 << 20, 'x')}};
  EXPECT_TRUE(RenderStatus("{{ '<' + messages[0].content|trim + '>' }}", messages).ok());
  ExpectExhausted("{% for c in messages[0].content %}{{ c }}{% endfor %}", "steps", messages);
  ExpectExhausted("{{ messages[0].content.split('x')|length }}", "steps", messages);
}

TEST(Budget, RefusesASourceThatIsTooLong) {
  const absl::Status status = RenderStatus(std::string((1 << 20) + 1, 'x'));
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(status.message(), "chat template: 1048577 bytes, at most 1048576");
  EXPECT_TRUE(RenderStatus(std::string(1 << 20, 'x')).ok());
}

TEST(Budget, ObeysTheLimitsItIsGiven) {
  EXPECT_TRUE(RenderStatus("{{ 1 }}", {}, {.max_steps = 10}).ok());
  EXPECT_EQ(RenderStatus("{{ 1 + 1 + 1 + 1 + 1 + 1 }}", {}, {.max_steps = 5}).code(),
            absl::StatusCode::kResourceExhausted);
  EXPECT_TRUE(RenderStatus("abcd", {}, {.max_output_bytes = 4}).ok());
  EXPECT_EQ(RenderStatus("abcde", {}, {.max_output_bytes = 4}).code(),
            absl::StatusCode::kResourceExhausted);
  EXPECT_TRUE(RenderStatus("{{ ((1)) }}", {}, {.max_depth = 5}).ok());
  EXPECT_EQ(RenderStatus("{{ ((((((1)))))) }}", {}, {.max_depth = 5}).code(),
            absl::StatusCode::kResourceExhausted);
}

TEST(Budget, RefusesIntegersThatLeave64Bits) {
  for (const char* expression :
       {"9223372036854775807 + 1", "-9223372036854775807 - 2", "4611686018427387904 * 2", "2 ** 64",
        "-(-9223372036854775807 - 1)", "(-9223372036854775807 - 1) // -1", "3 ** 1000000000",
        "(-9223372036854775807 - 1)|abs"}) {
    EXPECT_EQ(RenderStatus("{{ " + std::string(expression) + " }}").code(),
              absl::StatusCode::kInvalidArgument)
        << expression;
  }
  EXPECT_EQ(RenderStatus("{{ 99999999999999999999 }}").code(), absl::StatusCode::kInvalidArgument);
  EXPECT_TRUE(
      RenderStatus("{{ (-9223372036854775807 - 1) % -1 }}{{ 1 ** 9223372036854775807 }}").ok());
}

}  // namespace
}  // namespace nibble
