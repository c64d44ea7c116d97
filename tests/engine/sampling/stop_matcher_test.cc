// Stop strings are found wherever the text is cut, and nothing that may begin one is let go.
#include "engine/sampling/stop_matcher.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <string>
#include <vector>

namespace nibble {
namespace {

struct Result {
  std::string text;
  std::optional<std::string> stop;
  bool operator==(const Result&) const = default;
};

Result Feed(const std::vector<std::string>& stop, const std::vector<std::string>& pushes) {
  StopMatcher matcher(stop);
  Result result;
  for (const std::string& push : pushes) {
    result.stop = matcher.Push(push, &result.text);
    if (result.stop.has_value()) return result;
  }
  matcher.Flush(&result.text);
  return result;
}

TEST(StopMatcher, ReleasesEverythingAtOnceWithoutStopStrings) {
  StopMatcher matcher({});
  std::string released;
  EXPECT_EQ(matcher.Push("any text", &released), std::nullopt);
  EXPECT_EQ(released, "any text");
  EXPECT_EQ(matcher.held_bytes(), 0u);
}

TEST(StopMatcher, CutsBeforeTheStopAndDropsWhatFollows) {
  EXPECT_EQ(Feed({"END"}, {"one END two"}), (Result{"one ", "END"}));
}

TEST(StopMatcher, FindsAStopAcrossPushes) {
  EXPECT_EQ(Feed({"</s>"}, {"a<", "/", "s", ">b"}), (Result{"a", "</s>"}));
}

TEST(StopMatcher, HoldsBackExactlyTheLongestBeginning) {
  StopMatcher matcher({"abac"});
  std::string released;
  matcher.Push("xaba", &released);
  EXPECT_EQ(released, "x");
  EXPECT_EQ(matcher.held_bytes(), 3u);
  matcher.Push("b", &released);  // "abab": only "ab" may still begin it
  EXPECT_EQ(released, "xab");
  EXPECT_EQ(matcher.held_bytes(), 2u);
  matcher.Push("x", &released);
  EXPECT_EQ(released, "xababx");
  EXPECT_EQ(matcher.held_bytes(), 0u);
}

TEST(StopMatcher, HoldsForTheStopThatNeedsMost) {
  StopMatcher matcher({"bX", "abY"});
  std::string released;
  matcher.Push("ab", &released);
  EXPECT_EQ(released, "");
  EXPECT_EQ(matcher.Push("X", &released), "bX");
  EXPECT_EQ(released, "a");
}

TEST(StopMatcher, PrefersTheEarliestThenTheLongest) {
  EXPECT_EQ(Feed({"two", "one"}, {"-one two"}), (Result{"-", "one"}));
  EXPECT_EQ(Feed({"ab", "abc"}, {"xabc"}), (Result{"x", "abc"}));
  EXPECT_EQ(Feed({"bc", "abcd"}, {"xabcd"}), (Result{"x", "abcd"}));
  EXPECT_EQ(Feed({"bc", "abcd"}, {"xabc", "d"}), (Result{"xa", "bc"}));  // complete first
}

TEST(StopMatcher, FlushesWhatIsHeldWhenTheAnswerEnds) {
  EXPECT_EQ(Feed({"STOP"}, {"a ST", "O"}), (Result{"a STO", std::nullopt}));
}

TEST(StopMatcher, IgnoresEmptyPushesAndMatchesWholeCharacters) {
  EXPECT_EQ(Feed({"é…"}, {"caf", "", "é", "", "…!"}), (Result{"caf", "é…"}));
}

TEST(StopMatcher, ForgetsBeginningsThatWereFlushed) {
  StopMatcher matcher({"ab"});
  std::string released;
  matcher.Push("a", &released);
  matcher.Flush(&released);
  EXPECT_EQ(matcher.Push("b", &released), std::nullopt);
  EXPECT_EQ(released, "ab");
}

// What the class comment says, word for word, on all the text so far.
class NaiveMatcher {
 public:
  explicit NaiveMatcher(std::vector<std::string> stop) : stop_(std::move(stop)) {}

  std::optional<std::string> Push(const std::string& push, std::string* released) {
    text_ += push;
    std::optional<std::string> best;
    size_t best_begin = 0;
    for (const std::string& stop : stop_) {
      const size_t at = text_.find(stop);
      if (at == std::string::npos) continue;
      if (!best || at < best_begin || (at == best_begin && stop.size() > best->size())) {
        best = stop;
        best_begin = at;
      }
    }
    size_t end = best ? best_begin : text_.size() - Hold();
    released->append(text_, released_, end - released_);
    released_ = end;
    return best;
  }

 private:
  size_t Hold() const {
    size_t hold = 0;
    for (const std::string& stop : stop_) {
      for (size_t n = 1; n < stop.size() && n <= text_.size(); ++n) {
        if (text_.substr(text_.size() - n) == stop.substr(0, n)) hold = std::max(hold, n);
      }
    }
    return hold;
  }

  std::vector<std::string> stop_;
  std::string text_;
  size_t released_ = 0;
};

TEST(StopMatcher, AgreesWithTheNaiveMatcherOnRandomText) {
  std::mt19937 random(7);
  const auto text = [&random](size_t max_size) {
    std::string result(random() % (max_size + 1), 'a');
    for (char& c : result) c = static_cast<char>('a' + random() % 2);
    return result;
  };
  int stops = 0;
  for (int round = 0; round < 4000; ++round) {
    std::vector<std::string> stop;
    for (size_t i = random() % 4; i > 0; --i) stop.push_back("a" + text(7));
    StopMatcher matcher(stop);
    NaiveMatcher naive(stop);
    std::string got;
    std::string want;
    for (int push = 0; push < 12; ++push) {
      const std::string piece = text(4);
      const auto got_stop = matcher.Push(piece, &got);
      ASSERT_EQ(got_stop, naive.Push(piece, &want)) << "round " << round;
      ASSERT_EQ(got, want) << "round " << round;
      stops += got_stop.has_value() ? 1 : 0;
      if (got_stop.has_value()) break;
    }
  }
  EXPECT_GT(stops, 500);
}

TEST(StopMatcher, StaysLinearOnTextThatAlmostMatches) {
  const std::string almost(255, 'a');
  StopMatcher matcher({almost + "b"});
  std::string released;
  for (int i = 0; i < 2'000'000; ++i) ASSERT_EQ(matcher.Push("a", &released), std::nullopt);
  EXPECT_EQ(matcher.held_bytes(), 255u);
  EXPECT_EQ(matcher.Push("b", &released), almost + "b");
  EXPECT_EQ(released.size(), 2'000'000u - 255u);
}

}  // namespace
}  // namespace nibble
