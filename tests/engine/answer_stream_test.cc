// What a client sees of tokens, and when.
#include "engine/answer_stream.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/fake_tokenizer.h"

namespace nibble {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

// Tokens by their text; whole words get ids of their own.
class Stream {
 public:
  explicit Stream(std::vector<std::string> stops, bool include_stop = false,
                  std::vector<std::string> words = {})
      : tokenizer_(std::move(words)), stream_(&tokenizer_, stops, include_stop) {}

  int32_t Id(const std::string& token) const { return *tokenizer_.TokenToId(token); }
  // What one token releases.
  GenerateChunk Push(const std::string& token, bool may_stop = true) {
    return PushId(Id(token), may_stop);
  }
  GenerateChunk PushId(int32_t id, bool may_stop = true) {
    GenerateChunk chunk;
    TokenLogprobs logprobs;
    logprobs.token_id = id;
    stop = stream_.Push(id, logprobs, may_stop, &chunk);
    EXPECT_EQ(chunk.logprobs.size(), chunk.token_ids.size());
    return chunk;
  }
  GenerateChunk Finish() {
    GenerateChunk chunk;
    stop = stream_.Finish(&chunk);
    return chunk;
  }

  std::optional<std::string> stop;  // of the last call

 private:
  FakeTokenizer tokenizer_;
  AnswerStream stream_;
};

TEST(AnswerStream, ReleasesPlainTokensAtOnce) {
  Stream stream({});
  const GenerateChunk chunk = stream.Push("a");
  EXPECT_EQ(chunk.text, "a");
  EXPECT_THAT(chunk.token_ids, ElementsAre('a'));
}

TEST(AnswerStream, HoldsBackWhatMayBeginAStopStringTogetherWithItsIds) {
  Stream stream({"END"});
  EXPECT_EQ(stream.Push("x").text, "x");
  for (const char* token : {"E", "N"}) {
    const GenerateChunk held = stream.Push(token);
    EXPECT_EQ(held.text, "");
    EXPECT_THAT(held.token_ids, IsEmpty());
  }
  const GenerateChunk released = stream.Push("t");
  EXPECT_EQ(released.text, "ENt");
  EXPECT_THAT(released.token_ids, ElementsAre('E', 'N', 't'));
  EXPECT_EQ(stream.stop, std::nullopt);
}

TEST(AnswerStream, EndsAtAStopStringAcrossTokensWithoutTheirIds) {
  Stream stream({"END"});
  stream.Push("E");
  stream.Push("N");
  const GenerateChunk chunk = stream.Push("D");
  EXPECT_EQ(stream.stop, "END");
  EXPECT_EQ(chunk.text, "");
  EXPECT_THAT(chunk.token_ids, IsEmpty());
}

TEST(AnswerStream, LeavesOutATokenThatStraddlesTheStopButKeepsItsTextBefore) {
  Stream stream({"END"}, false, {"helloEN"});
  EXPECT_EQ(stream.Push("a").text, "a");
  const GenerateChunk half = stream.Push("helloEN");
  EXPECT_EQ(half.text, "hello");
  EXPECT_THAT(half.token_ids, IsEmpty());
  const GenerateChunk chunk = stream.Push("D");
  EXPECT_EQ(stream.stop, "END");
  EXPECT_EQ(chunk.text, "");
  EXPECT_THAT(chunk.token_ids, IsEmpty());
}

TEST(AnswerStream, IncludesTheStopAndTheTokenThatCompletesItWhenAsked) {
  Stream stream({"END"}, true, {"helloEN", "D and more"});
  EXPECT_EQ(stream.Push("helloEN").text, "hello");
  const GenerateChunk chunk = stream.Push("D and more");
  EXPECT_EQ(stream.stop, "END");
  EXPECT_EQ(chunk.text, "END");
  EXPECT_THAT(chunk.token_ids, ElementsAre(stream.Id("helloEN"), stream.Id("D and more")));
}

TEST(AnswerStream, KeepsTheIdsOfTokensThatEndBeforeTheStop) {
  Stream stream({"a stop"}, false, {"an a", " stop"});
  EXPECT_EQ(stream.Push("x").text, "x");
  EXPECT_EQ(stream.Push("an a").text, "an ");
  const GenerateChunk chunk = stream.Push(" stop");
  EXPECT_EQ(stream.stop, "a stop");
  EXPECT_THAT(chunk.token_ids, IsEmpty());

  Stream other({"stop"}, false, {" stop"});
  EXPECT_THAT(other.Push("y").token_ids, ElementsAre('y'));
  const GenerateChunk end = other.Push(" stop");
  EXPECT_EQ(end.text, " ");
  EXPECT_THAT(end.token_ids, IsEmpty());
}

TEST(AnswerStream, HoldsTheIdsOfHalfACharacter) {
  Stream stream({});
  const GenerateChunk half = stream.PushId(0xC3);
  EXPECT_EQ(half.text, "");
  EXPECT_THAT(half.token_ids, IsEmpty());
  const GenerateChunk whole = stream.PushId(0xA9);
  EXPECT_EQ(whole.text, "é");
  EXPECT_THAT(whole.token_ids, ElementsAre(0xC3, 0xA9));
}

TEST(AnswerStream, LeavesOutEveryTokenOfAStopThatBeginsWithinACharacterOfSeveral) {
  Stream stream({"é"});
  EXPECT_EQ(stream.Push("a").text, "a");
  EXPECT_THAT(stream.PushId(0xC3).token_ids, IsEmpty());
  EXPECT_THAT(stream.PushId(0xA9).token_ids, IsEmpty());
  EXPECT_EQ(stream.stop, "é");
}

TEST(AnswerStream, FlushesHalfACharacterAsAReplacementAndItsIds) {
  Stream stream({});
  stream.PushId(0xC3);
  const GenerateChunk chunk = stream.Finish();
  EXPECT_EQ(chunk.text, "\xEF\xBF\xBD");
  EXPECT_THAT(chunk.token_ids, ElementsAre(0xC3));
}

TEST(AnswerStream, FlushesHeldTextAndItsIdsAtTheEnd) {
  Stream stream({"END"});
  stream.Push("E");
  const GenerateChunk chunk = stream.Finish();
  EXPECT_EQ(chunk.text, "E");
  EXPECT_THAT(chunk.token_ids, ElementsAre('E'));
}

TEST(AnswerStream, FindsAStopThatTheFlushCompletes) {
  Stream stream({"a\xEF\xBF\xBD"});
  stream.Push("a");
  stream.PushId(0xC3);
  const GenerateChunk chunk = stream.Finish();
  EXPECT_EQ(stream.stop, "a\xEF\xBF\xBD");
  EXPECT_EQ(chunk.text, "");
  EXPECT_THAT(chunk.token_ids, IsEmpty());
}

TEST(AnswerStream, MatchesNothingInTheFirstTokens) {
  Stream stream({"ab"});
  EXPECT_EQ(stream.Push("a", false).text, "a");
  EXPECT_EQ(stream.Push("b", false).text, "b");
  EXPECT_EQ(stream.stop, std::nullopt);
  EXPECT_EQ(stream.Push("b", true).text, "b");
  stream.Push("a");
  stream.Push("b");
  EXPECT_EQ(stream.stop, "ab");
}

TEST(AnswerStream, ReleasesASpecialTokensIdWithoutText) {
  Stream stream({});
  const GenerateChunk chunk = stream.PushId(FakeTokenizer::kBegin);
  EXPECT_EQ(chunk.text, "");
  EXPECT_THAT(chunk.token_ids, ElementsAre(FakeTokenizer::kBegin));
}

TEST(AnswerStream, ReleasesIdsAtOnceWithoutATokenizer) {
  AnswerStream stream(nullptr, {"x"}, false);
  GenerateChunk chunk;
  EXPECT_EQ(stream.Push(7, std::nullopt, true, &chunk), std::nullopt);
  EXPECT_THAT(chunk.token_ids, ElementsAre(7));
  EXPECT_EQ(chunk.text, "");
}

}  // namespace
}  // namespace nibble
