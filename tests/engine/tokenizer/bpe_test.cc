// Against the definition of BPE, written down without cleverness: merge the leftmost pair of the
// lowest rank until none is left.
#include "engine/tokenizer/bpe.h"

#include <gmock/gmock.h>

#include <chrono>
#include <map>
#include <optional>
#include <random>

#include "absl/strings/str_cat.h"

namespace nibble {
namespace {

using Texts = std::vector<std::string>;

struct Fixture {
  std::unique_ptr<Vocabulary> vocabulary;
  std::map<std::pair<std::string, std::string>, uint32_t> ranks;
  std::unique_ptr<BpeModel> model;
};

// Letters a…h and `num_merges` random merges of tokens so far.
Fixture MakeRandom(int num_merges, uint32_t seed, bool ignore_merges) {
  std::mt19937 random(seed);
  Fixture fixture;
  Texts tokens;
  for (char c = 'a'; c <= 'h'; ++c) tokens.push_back(std::string(1, c));
  std::vector<std::array<std::string, 2>> merges;
  for (int i = 0; i < 50 * num_merges && static_cast<int>(merges.size()) < num_merges; ++i) {
    const std::string left = tokens[random() % tokens.size()];
    const std::string right = tokens[random() % tokens.size()];
    if (left.size() + right.size() > 12) continue;
    const auto rank = static_cast<uint32_t>(merges.size());
    if (!fixture.ranks.emplace(std::pair(left, right), rank).second) continue;
    merges.push_back({left, right});
    const std::string joined = left + right;
    if (std::find(tokens.begin(), tokens.end(), joined) == tokens.end()) tokens.push_back(joined);
  }
  std::vector<Vocabulary::Entry> entries;
  for (const std::string& token : tokens) {
    entries.push_back({token, static_cast<int64_t>(entries.size())});
  }
  auto vocabulary = Vocabulary::Make("test", entries, true, 0);
  EXPECT_TRUE(vocabulary.ok()) << vocabulary.status();
  fixture.vocabulary = std::make_unique<Vocabulary>(*std::move(vocabulary));
  MergeTable table(merges.size());
  for (uint32_t rank = 0; rank < merges.size(); ++rank) {
    const auto& [left, right] = merges[rank];
    table.Set(fixture.vocabulary->FindSpelled(left), fixture.vocabulary->FindSpelled(right),
              {rank, fixture.vocabulary->FindSpelled(left + right)});
  }
  fixture.model = std::make_unique<BpeModel>(fixture.vocabulary.get(), std::move(table),
                                             BpeOptions{.ignore_merges = ignore_merges});
  return fixture;
}

Texts ByDefinition(const Fixture& fixture, const std::string& piece) {
  Texts symbols;
  for (const char c : piece) symbols.push_back(std::string(1, c));
  while (true) {
    std::optional<std::pair<uint32_t, size_t>> best;
    for (size_t i = 0; i + 1 < symbols.size(); ++i) {
      const auto rank = fixture.ranks.find({symbols[i], symbols[i + 1]});
      if (rank == fixture.ranks.end()) continue;
      if (!best.has_value() || rank->second < best->first) best = {rank->second, i};
    }
    if (!best.has_value()) return symbols;
    symbols[best->second] += symbols[best->second + 1];
    symbols.erase(symbols.begin() + static_cast<std::ptrdiff_t>(best->second) + 1);
  }
}

Texts Tokenize(const Fixture& fixture, const std::string& piece) {
  BpeModel::Scratch scratch;
  std::vector<TokenSpan> spans;
  fixture.model->Tokenize(piece, &scratch, &spans);
  Texts texts;
  uint32_t end = 0;
  for (const TokenSpan& span : spans) {
    EXPECT_EQ(span.begin, end);
    end = span.end;
    texts.emplace_back(fixture.vocabulary->Text(span.id));
    EXPECT_EQ(piece.substr(span.begin, span.end - span.begin), texts.back());
  }
  EXPECT_EQ(end, piece.size());
  return texts;
}

TEST(Bpe, MergesAsTheDefinitionDoesForShortAndLongPieces) {
  std::mt19937 random(1);
  for (uint32_t seed = 0; seed < 20; ++seed) {
    const Fixture fixture = MakeRandom(60, seed, false);
    for (const size_t length : {1, 2, 3, 5, 9, 17, 31, 32, 33, 34, 64, 200}) {
      for (int i = 0; i < 20; ++i) {
        std::string piece;
        const uint32_t letters = 1 + random() % 8;
        while (piece.size() < length) piece.push_back(static_cast<char>('a' + random() % letters));
        ASSERT_EQ(Tokenize(fixture, piece), ByDefinition(fixture, piece)) << piece;
      }
    }
  }
}

TEST(Bpe, IgnoreMergesTakesAWholeTokenThatMergingWouldNotReach) {
  const Texts tokens = {"a", "b", "c", "ab", "abc"};
  std::vector<Vocabulary::Entry> entries;
  for (const std::string& token : tokens) {
    entries.push_back({token, static_cast<int64_t>(entries.size())});
  }
  const auto vocabulary = Vocabulary::Make("test", entries, true, 0);
  ASSERT_TRUE(vocabulary.ok());
  for (const bool ignore : {false, true}) {
    MergeTable merges(1);
    merges.Set(0, 1, {0, 3});  // nothing makes "abc"
    const BpeModel model(&*vocabulary, std::move(merges), {.ignore_merges = ignore});
    BpeModel::Scratch scratch;
    std::vector<TokenSpan> spans;
    model.Tokenize("abc", &scratch, &spans);
    EXPECT_EQ(spans.size(), ignore ? 1u : 2u);
    EXPECT_EQ(spans[0].id, ignore ? 4 : 3);
  }
}

TEST(Bpe, AMergeListedTwiceHasItsLastRank) {
  MergeTable merges(2);
  merges.Set(1, 2, {0, 7});
  merges.Set(1, 2, {5, 7});
  EXPECT_EQ(merges.Find(1, 2).rank, 5u);
  EXPECT_EQ(merges.Find(2, 1).result, -1);
}

// Work is counted by the clock of the thread, and the bound leaves a factor of ten over n log n; a
// quadratic merge of the longer piece would take hours.
TEST(Bpe, TakesNearlyLinearTimeForALongPieceWithoutSpaces) {
  const Fixture fixture = MakeRandom(60, 3, false);
  const auto seconds = [&](size_t length) {
    const std::string piece(length, 'a');
    BpeModel::Scratch scratch;
    std::vector<TokenSpan> spans;
    const std::clock_t begin = std::clock();
    fixture.model->Tokenize(piece, &scratch, &spans);
    EXPECT_FALSE(spans.empty());
    return static_cast<double>(std::clock() - begin) / CLOCKS_PER_SEC;
  };
  const double small = seconds(1 << 14) + 1e-3;
  EXPECT_LT(seconds(1 << 20), 64 * 10 * small);
}

}  // namespace
}  // namespace nibble
