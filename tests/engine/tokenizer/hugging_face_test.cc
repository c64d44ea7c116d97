// tokenizer.json as untrusted input: what is broken, what we do not have, and thousands of files
// that are both.
#include "engine/tokenizer/hugging_face.h"

#include <gmock/gmock.h>

#include <random>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "engine/status.h"
#include "tests/engine/tokenizer/golden.h"

namespace nibble {
namespace {

using testing::HasSubstr;

// A byte-level BPE of three tokens; each part can be replaced by name.
struct Document {
  std::string normalizer = "null";
  std::string pre_tokenizer = R"({"type":"ByteLevel","add_prefix_space":false})";
  std::string post_processor = "null";
  std::string decoder = R"({"type":"ByteLevel"})";
  std::string vocab = R"({"a":0,"b":1,"ab":2})";
  std::string merges = R"(["a b"])";
  std::string options;
  std::string added_tokens = "[]";
  std::string model;  // in place of the BPE

  std::string Text() const {
    const std::string bpe = absl::StrCat(R"({"type":"BPE",)", options, R"("vocab":)", vocab,
                                         R"(,"merges":)", merges, "}");
    return absl::StrCat(R"({"version":"1.0","added_tokens":)", added_tokens, R"(,"normalizer":)",
                        normalizer, R"(,"pre_tokenizer":)", pre_tokenizer, R"(,"post_processor":)",
                        post_processor, R"(,"decoder":)", decoder, R"(,"model":)",
                        model.empty() ? bpe : model, "}");
  }
};

absl::Status Load(const std::string& json, const std::string& config = "") {
  return Tokenizer::Make(HuggingFaceTokenizer{json, config}).status();
}
std::string Refusal(const Document& document, absl::StatusCode code) {
  const absl::Status status = Load(document.Text());
  EXPECT_EQ(status.code(), code) << status << "\n" << document.Text();
  return std::string(status.message());
}
std::string Broken(const Document& document) {
  return Refusal(document, absl::StatusCode::kDataLoss);
}
std::string Missing(const Document& document) {
  return Refusal(document, absl::StatusCode::kUnimplemented);
}

std::string Added(const std::string& content, int64_t id) {
  return absl::StrCat(R"([{"id":)", id, R"(,"content":")", content,
                      R"(","single_word":false,"lstrip":false,"rstrip":false,)",
                      R"("normalized":false,"special":true}])");
}

TEST(HuggingFace, ReadsTheSmallestDocument) {
  EXPECT_EQ(Load(Document{}.Text()), absl::OkStatus());
}

TEST(HuggingFace, NamesTheComponentItDoesNotHave) {
  EXPECT_THAT(Missing({.normalizer = R"({"type":"Prepend","prepend":"_"})"}),
              HasSubstr("normalizer \"Prepend\""));
  EXPECT_THAT(Missing({.normalizer = R"({"type":"Sequence","normalizers":[{"type":"NFC"},
                                         {"type":"Lowercase"}]})"}),
              HasSubstr("normalizer of more than one step"));
  EXPECT_THAT(Missing({.pre_tokenizer = R"({"type":"Metaspace"})"}),
              HasSubstr("pre_tokenizer \"Metaspace\""));
  EXPECT_THAT(Missing({.pre_tokenizer = R"({"type":"Split","pattern":{"Regex":"x+"},
                                            "behavior":"Isolated","invert":false})"}),
              HasSubstr("Split by the regex \"x+\""));
  EXPECT_THAT(Missing({.pre_tokenizer = R"({"type":"Split","pattern":{"String":" "},
                                            "behavior":"Isolated","invert":false})"}),
              HasSubstr("Split at the string \" \""));
  EXPECT_THAT(Missing({.pre_tokenizer = R"({"type":"Split","pattern":{"Regex":"\\p{N}"},
                                            "behavior":"MergedWithNext","invert":false})"}),
              HasSubstr("behavior \"MergedWithNext\""));
  EXPECT_THAT(Missing({.pre_tokenizer = R"({"type":"Sequence","pretokenizers":[
                         {"type":"ByteLevel","add_prefix_space":false},
                         {"type":"Digits","individual_digits":true}]})"}),
              HasSubstr("a step after ByteLevel"));
  EXPECT_THAT(Missing({.pre_tokenizer = "null"}), HasSubstr("ByteLevel"));
  EXPECT_THAT(Missing({.post_processor = R"({"type":"Nonesuch"})"}),
              HasSubstr("post_processor \"Nonesuch\""));
  EXPECT_THAT(Missing({.decoder = R"({"type":"Metaspace"})"}), HasSubstr("decoder \"Metaspace\""));
  EXPECT_THAT(Missing({.decoder = "null"}), HasSubstr("ByteLevel decoder"));
  EXPECT_THAT(Missing({.options = R"("byte_fallback":true,)"}),
              HasSubstr("BPE with byte_fallback"));
  EXPECT_THAT(Missing({.options = R"("dropout":0.1,)"}), HasSubstr("BPE with dropout"));
  EXPECT_THAT(Missing({.options = R"("end_of_word_suffix":"</w>",)"}),
              HasSubstr("end_of_word_suffix"));
  EXPECT_THAT(Missing({.options = R"("continuing_subword_prefix":"##",)"}),
              HasSubstr("continuing_subword_prefix"));
  EXPECT_THAT(Missing({.model = R"({"type":"Unigram","vocab":[]})"}),
              HasSubstr("model \"Unigram\""));
  EXPECT_THAT(Missing({.post_processor = R"({"type":"TemplateProcessing","special_tokens":{},
                         "single":[{"Sequence":{"id":"B"}}]})"}),
              HasSubstr("more than the sequence A"));
}

TEST(HuggingFace, SaysWhatIsBrokenAndWhere) {
  EXPECT_THAT(Broken({.vocab = R"({"a":0,"b":0})"}), HasSubstr("both have id 0"));
  EXPECT_THAT(Broken({.vocab = R"({"a":0,"a":1})"}), HasSubstr("has two ids"));
  EXPECT_THAT(Broken({.vocab = R"({"a":2147483648})"}), HasSubstr("has id 2147483648"));
  EXPECT_THAT(Broken({.vocab = R"({"a":-1})"}), HasSubstr("has id -1"));
  EXPECT_THAT(Broken({.vocab = R"({"a":1.5})"}), HasSubstr("the id of \"a\""));
  EXPECT_THAT(Broken({.vocab = R"({"a":99999999999999999999})"}), HasSubstr("JSON"));
  EXPECT_THAT(Broken({.vocab = "[]"}), HasSubstr("model.vocab is no object"));
  EXPECT_THAT(Broken({.vocab = "null"}), HasSubstr("model.vocab is missing"));
  EXPECT_THAT(Broken({.merges = R"(["a c"])"}), HasSubstr("\"c\" is not in the vocabulary"));
  EXPECT_THAT(Broken({.merges = R"(["b a"])"}), HasSubstr("\"ba\" is not in the vocabulary"));
  EXPECT_THAT(Broken({.merges = R"([["a","b"],["a"]])"}), HasSubstr("merge 1 is neither"));
  EXPECT_THAT(Broken({.merges = R"(["ab"])"}), HasSubstr("not two tokens"));
  EXPECT_THAT(Broken({.merges = "{}"}), HasSubstr("model.merges is no array"));
  EXPECT_THAT(Broken({.options = R"("unk_token":"<unk>",)"}), HasSubstr("\"<unk>\" is not in"));
  EXPECT_THAT(Broken({.options = R"("ignore_merges":1,)"}), HasSubstr("neither true nor false"));
  EXPECT_THAT(Broken({.normalizer = R"("NFC")"}), HasSubstr("normalizer is no object"));
  EXPECT_THAT(Broken({.pre_tokenizer = R"({"type":"ByteLevel"})"}),
              HasSubstr("add_prefix_space is missing"));
  EXPECT_THAT(
      Broken({.post_processor = R"({"type":"BertProcessing","cls":["a",9],"sep":["b",1]})"}),
      HasSubstr("has id 9, wanted 0…2"));
  EXPECT_THAT(Broken({.post_processor = R"({"type":"BertProcessing","cls":["a"],"sep":["b",1]})"}),
              HasSubstr("post_processor.cls"));
  EXPECT_THAT(Broken({.post_processor = R"({"type":"TemplateProcessing","special_tokens":{},
                         "single":[{"SpecialToken":{"id":"x"}},{"Sequence":{"id":"A"}}]})"}),
              HasSubstr("special_tokens.x is missing"));
  EXPECT_THAT(Broken({.pre_tokenizer = "null",
                      .decoder = "null",
                      .model = R"({"type":"WordPiece","vocab":{"a":0},"unk_token":"[UNK]",
                         "continuing_subword_prefix":"##","max_input_chars_per_word":100})"}),
              HasSubstr("\"[UNK]\" is not in"));
}

TEST(HuggingFace, AddedTokensMustAgreeWithTheVocabulary) {
  EXPECT_EQ(Load(Document{.added_tokens = Added("ab", 2)}.Text()), absl::OkStatus());
  EXPECT_EQ(Load(Document{.added_tokens = Added("<x>", 3)}.Text()), absl::OkStatus());
  EXPECT_THAT(Broken({.added_tokens = Added("ab", 1)}), HasSubstr("by the vocabulary it has 2"));
  EXPECT_THAT(Broken({.added_tokens = Added("<x>", 7)}), HasSubstr("by the vocabulary it has 3"));
  EXPECT_THAT(Broken({.added_tokens = Added("", 3)}),
              HasSubstr("added_tokens[0].content has 0 bytes"));
  EXPECT_THAT(Broken({.added_tokens = Added(std::string(4097, 'x'), 3)}), HasSubstr("4097 bytes"));
  EXPECT_THAT(Broken({.added_tokens = "[3]"}), HasSubstr("added_tokens[0] is no object"));
  EXPECT_THAT(Broken({.added_tokens = "{}"}), HasSubstr("added_tokens is no array"));
}

TEST(HuggingFace, RefusesWhatIsNoDocument) {
  for (const char* text : {"", " ", "{", "[]", "3", "null", "{}", R"({"model":null})", "{}x"}) {
    EXPECT_EQ(Load(text).code(), absl::StatusCode::kDataLoss) << text;
  }
  EXPECT_EQ(Load(absl::StrReplaceAll(Document{}.Text(), {{"1.0", "2.0"}})).code(),
            absl::StatusCode::kUnimplemented);
  EXPECT_EQ(Load(absl::StrReplaceAll(Document{}.Text(), {{"\"ab\"", "\"\xFF\""}})).code(),
            absl::StatusCode::kDataLoss);
  EXPECT_EQ(Load(Document{}.Text(), "{").code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(Load(Document{}.Text(), R"({"bos_token":[]})").code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(Load(Document{}.Text(), R"({"eos_token":{"content":1}})").code(),
            absl::StatusCode::kDataLoss);
}

TEST(HuggingFace, SequencesInSequencesEnd) {
  const auto nested = [](int depth) {
    std::string text = R"({"type":"ByteLevel","add_prefix_space":false})";
    for (int i = 0; i < depth; ++i) {
      text = absl::StrCat(R"({"type":"Sequence","pretokenizers":[)", text, "]}");
    }
    return text;
  };
  EXPECT_EQ(Load(Document{.pre_tokenizer = nested(8)}.Text()), absl::OkStatus());
  EXPECT_THAT(Missing({.pre_tokenizer = nested(9)}), HasSubstr("nested deeper"));
  EXPECT_EQ(Load(Document{.pre_tokenizer = nested(1500)}.Text()).code(),
            absl::StatusCode::kDataLoss);  // simdjson's own limit
}

// Whatever loads must also work.
void TryFile(const std::string& json) {
  const auto tokenizer = Tokenizer::Make(HuggingFaceTokenizer{json, ""});
  if (!tokenizer.ok()) {
    const absl::StatusCode code = tokenizer.status().code();
    EXPECT_TRUE(code == absl::StatusCode::kDataLoss || code == absl::StatusCode::kUnimplemented)
        << tokenizer.status();
    EXPECT_FALSE(tokenizer.status().message().empty());
    return;
  }
  const auto encoding =
      (*tokenizer)->Encode("Thé <lr> server's\n\n 12 cafe\u0301 <|im_end|>x日本", true, true);
  ASSERT_TRUE(encoding.ok()) << encoding.status();
  EXPECT_EQ(encoding->ids.size(), encoding->offsets.size());
  EXPECT_TRUE((*tokenizer)->Decode(encoding->ids, true).ok());
}

TEST(HuggingFace, SurvivesThousandsOfDamagedFiles) {
  for (const char* name : {"unknown", "added", "bert_added"}) {
    const std::string good = golden::TinyFiles(name).tokenizer_json;
    std::mt19937 random(11);
    for (int i = 0; i < 1500; ++i) {
      std::string bad = good;
      // Half of the damage goes to the head, where the components stand.
      const size_t range = i % 2 == 0 ? bad.size() : std::min<size_t>(bad.size(), 3000);
      for (auto edits = 1 + random() % 3; edits > 0; --edits) {
        const size_t at = random() % range;
        switch (random() % 4) {
          case 0:
            bad[at] = static_cast<char>(bad[at] ^ 1 << random() % 8);
            break;
          case 1:
            bad[at] = static_cast<char>(random() % 256);
            break;
          case 2:
            bad[at] = "0123456789{}[]\",:"[random() % 17];
            break;
          default:
            bad.erase(at, 1 + random() % 4);
            break;
        }
      }
      ASSERT_NO_FATAL_FAILURE(TryFile(bad)) << name << " " << i;
    }
  }
}

TEST(HuggingFace, RefusesEveryTruncation) {
  std::string text = golden::TinyFiles("bert").tokenizer_json;
  while (text.back() != '}') text.pop_back();
  for (size_t length = 0; length < text.size(); length += length < 2000 ? 1 : 7) {
    ASSERT_EQ(Load(text.substr(0, length)).code(), absl::StatusCode::kDataLoss) << length;
  }
}

}  // namespace
}  // namespace nibble
