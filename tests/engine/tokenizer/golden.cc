// See golden.h; the grammar of a golden stands in the script.
#include "tests/engine/tokenizer/golden.h"

#include <gtest/gtest.h>
#include <simdjson.h>

#include <fstream>
#include <memory>
#include <sstream>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "engine/loader/value.h"
#include "engine/tokenizer/stream_decoder.h"

namespace nibble::golden {
namespace {

std::string HashText(std::string_view text) { return absl::StrCat(absl::Hex(Fnv(text) >> 32)); }

std::string IdText(const std::vector<int32_t>& ids) {
  std::string text;
  for (const int32_t id : ids) absl::StrAppend(&text, id, " ");
  return text;
}

std::string OffsetText(const std::vector<TokenOffset>& offsets) {
  std::string text;
  for (const TokenOffset& offset : offsets) {
    absl::StrAppend(&text, offset.begin, ",", offset.end, " ");
  }
  return text;
}

std::string Stream(const Tokenizer& tokenizer, const std::vector<int32_t>& ids, bool skip) {
  StreamDecoder decoder(&tokenizer, skip);
  std::string text;
  for (const int32_t id : ids) text += decoder.Push(id);
  return text + decoder.Flush();
}

std::string DecodedHash(const Tokenizer& tokenizer, const std::vector<int32_t>& ids, bool skip) {
  const absl::StatusOr<std::string> text = tokenizer.Decode(ids, skip);
  if (!text.ok()) return text.status().ToString();
  EXPECT_EQ(Stream(tokenizer, ids, skip), *text);
  return HashText(*text);
}

void ExpectEncodes(const Tokenizer& tokenizer, const std::string& text, const std::string& line) {
  const std::vector<std::string> fields = absl::StrSplit(line, '|');
  ASSERT_EQ(fields.size(), 5u);
  const auto traced = tokenizer.Encode(text, true, true);
  const auto encoded = tokenizer.Encode(text, true);
  const auto plain = tokenizer.Encode(text, false);
  ASSERT_TRUE(traced.ok() && encoded.ok() && plain.ok()) << traced.status();
  const std::string ids = IdText(encoded->ids);
  EXPECT_EQ(
      fields[0].starts_with('#') ? absl::StrCat("#", encoded->ids.size(), ":", HashText(ids)) : ids,
      fields[0])
      << "ids " << ids;
  EXPECT_EQ(traced->ids, encoded->ids);
  EXPECT_TRUE(encoded->offsets.empty());
  EXPECT_EQ(HashText(IdText(plain->ids)), fields[1]) << "plain ids " << IdText(plain->ids);
  EXPECT_EQ(HashText(OffsetText(traced->offsets)), fields[2])
      << "offsets " << OffsetText(traced->offsets);
  EXPECT_EQ(DecodedHash(tokenizer, encoded->ids, false), fields[3]);
  EXPECT_EQ(DecodedHash(tokenizer, encoded->ids, true), fields[4]);
}

void ExpectDecodes(const Tokenizer& tokenizer, const std::string& line) {
  const std::vector<std::string> fields = absl::StrSplit(line, '|');
  ASSERT_EQ(fields.size(), 3u);
  std::vector<int32_t> ids;
  for (const auto& id : absl::StrSplit(fields[0], ' ', absl::SkipEmpty())) {
    ids.push_back(std::stoi(std::string(id)));
  }
  EXPECT_EQ(DecodedHash(tokenizer, ids, false), fields[1]);
  EXPECT_EQ(DecodedHash(tokenizer, ids, true), fields[2]);
}

simdjson::dom::element ParseFile(const std::string& path, simdjson::dom::parser* parser) {
  return parser->load(path).value();
}

}  // namespace

uint64_t Fnv(std::string_view text) {
  uint64_t hash = 0xCBF29CE484222325;
  for (const char byte : text) hash = (hash ^ static_cast<uint8_t>(byte)) * 0x100000001B3;
  return hash;
}

std::string ReadFile(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

const std::vector<std::string>& Corpus() {
  static const std::vector<std::string> corpus = [] {
    std::vector<std::string> texts;
    simdjson::dom::parser parser;
    for (const auto text : ParseFile(kFolder + "corpus.json", &parser)["texts"]) {
      texts.emplace_back(text.get_string().value());
    }
    return texts;
  }();
  return corpus;
}

HuggingFaceTokenizer TinyFiles(std::string_view name) {
  return {ReadFile(kFolder + "tiny/" + std::string(name) + ".json"), ""};
}

std::unique_ptr<Tokenizer> LoadTiny(std::string_view name) {
  auto tokenizer = Tokenizer::Make(TinyFiles(name));
  EXPECT_TRUE(tokenizer.ok()) << name << ": " << tokenizer.status();
  return tokenizer.ok() ? *std::move(tokenizer) : nullptr;
}

GgufTokenizer TinyAsGguf(std::string_view name, std::string_view pre) {
  GgufTokenizer fields;
  fields.model = "gpt2";
  fields.pre = pre;
  simdjson::dom::parser parser;
  const auto root = ParseFile(kFolder + "tiny/" + std::string(name) + ".json", &parser);
  const simdjson::dom::object vocab = root["model"]["vocab"].get_object().value();
  fields.tokens.resize(vocab.size());
  fields.token_types.assign(vocab.size(), 1);
  for (const auto& [text, id] : vocab) fields.tokens[id.get_uint64().value()] = std::string(text);
  for (const auto token : root["added_tokens"]) {
    fields.token_types[token["id"].get_uint64().value()] = 3;
  }
  for (const auto merge : root["model"]["merges"]) {
    if (merge.is_string()) {
      fields.merges.emplace_back(merge.get_string().value());
    } else {
      fields.merges.push_back(absl::StrCat(std::string(merge.at(0).get_string().value()), " ",
                                           std::string(merge.at(1).get_string().value())));
    }
  }
  return fields;
}

void ExpectEqualsGolden(const Tokenizer& tokenizer, const std::string& golden) {
  std::vector<std::string> lines = absl::StrSplit(golden, '\n', absl::SkipEmpty());
  ASSERT_FALSE(lines.empty()) << "no golden";
  ASSERT_TRUE(lines[0].starts_with("# tokenizers ")) << lines[0];
  lines.erase(lines.begin());
  size_t texts = 0;
  for (const std::string& line : lines) {
    if (line.starts_with("d ")) {
      SCOPED_TRACE(absl::StrCat("decoding ", line));
      ExpectDecodes(tokenizer, line.substr(2));
      continue;
    }
    ASSERT_LT(texts, Corpus().size());
    const std::string& text = Corpus()[texts++];
    SCOPED_TRACE(absl::StrCat("text ", texts - 1, ": \"", absl::CHexEscape(text), "\""));
    ExpectEncodes(tokenizer, text, line);
    if (testing::Test::HasFatalFailure()) return;
  }
  EXPECT_EQ(texts, Corpus().size());
  EXPECT_GT(lines.size(), texts) << "no sequences to decode";
}

}  // namespace nibble::golden
