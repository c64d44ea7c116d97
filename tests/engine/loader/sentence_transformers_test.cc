#include "engine/loader/sentence_transformers.h"

#include <gtest/gtest.h>

#include <string>

#include "tests/support/status_matchers.h"
#include "tests/support/temp_dir.h"

namespace nibble {
namespace {

using ::nibble::testing::IsOk;
using ::nibble::testing::StatusIs;
using ::nibble::testing::TempDir;
using ::testing::HasSubstr;

constexpr char kModules[] = R"([
  {"idx":0,"name":"0","path":"","type":"sentence_transformers.models.Transformer"},
  {"idx":1,"name":"1","path":"1_Pooling","type":"sentence_transformers.models.Pooling"},
  {"idx":2,"name":"2","path":"2_Normalize","type":"sentence_transformers.models.Normalize"}])";
constexpr char kMeanPooling[] = R"({"word_embedding_dimension":8,"pooling_mode_cls_token":false,
  "pooling_mode_mean_tokens":true,"pooling_mode_max_tokens":false})";

struct SentenceDir : TempDir {
  SentenceDir() {
    Write("modules.json", kModules);
    Write("1_Pooling/config.json", kMeanPooling);
  }
  absl::StatusOr<SentenceModules> Read() const { return ReadSentenceTransformers(path()); }
};

auto Unsupported(const std::string& part) {
  return StatusIs(absl::StatusCode::kUnimplemented, HasSubstr(part));
}
auto Lost(const std::string& part) {
  return StatusIs(absl::StatusCode::kDataLoss, HasSubstr(part));
}

TEST(SentenceTransformers, AreAbsentWithoutModules) {
  const TempDir dir;
  const auto modules = ReadSentenceTransformers(dir.path());
  ASSERT_THAT(modules, IsOk());
  EXPECT_FALSE(modules->embedding.present);
}

TEST(SentenceTransformers, ReadsPoolingNormalizeLimitAndPrompts) {
  const SentenceDir dir;
  dir.Write("sentence_bert_config.json", R"({"max_seq_length":256,"do_lower_case":false})");
  dir.Write("config_sentence_transformers.json",
            R"({"prompts":{"query":"q: ","document":""},"default_prompt_name":"query"})");
  const auto modules = dir.Read();
  ASSERT_THAT(modules, IsOk());
  EXPECT_TRUE(modules->embedding.present);
  EXPECT_EQ(modules->embedding.pooling, Pooling::kMean);
  EXPECT_TRUE(modules->embedding.normalize);
  EXPECT_EQ(modules->embedding.max_seq_length, 256);
  EXPECT_EQ(modules->embedding.prompts.at("query"), "q: ");
  EXPECT_EQ(modules->embedding.prompts.at("document"), "");
  EXPECT_EQ(modules->embedding.default_prompt_name, "query");
  EXPECT_EQ(modules->pooled_width, 8);
  EXPECT_FALSE(modules->lower_cases);
  EXPECT_EQ(modules->transformer_path, "");
}

TEST(SentenceTransformers, NeedsNeitherNormalizeNorOptionalFiles) {
  const SentenceDir dir;
  dir.Write("modules.json", R"([{"path":"0_Transformer","type":"x.Transformer"},
                                {"path":"1_Pooling","type":"x.y.Pooling"}])");
  dir.Write("0_Transformer/sentence_bert_config.json", R"({"max_seq_length":null})");
  const auto modules = dir.Read();
  ASSERT_THAT(modules, IsOk());
  EXPECT_FALSE(modules->embedding.normalize);
  EXPECT_EQ(modules->embedding.max_seq_length, 0);
  EXPECT_EQ(modules->transformer_path, "0_Transformer");
}

TEST(SentenceTransformers, ReadsThePoolingModesThatWeHave) {
  const SentenceDir dir;
  const auto pooling = [&](const char* config) {
    dir.Write("1_Pooling/config.json", config);
    return dir.Read();
  };
  EXPECT_EQ(pooling(R"({"pooling_mode_cls_token":true})")->embedding.pooling, Pooling::kCls);
  EXPECT_EQ(pooling(R"({"pooling_mode_lasttoken":true})")->embedding.pooling, Pooling::kLast);
  EXPECT_EQ(pooling(R"({"pooling_mode":"cls","embedding_dimension":8})")->embedding.pooling,
            Pooling::kCls);
}

TEST(SentenceTransformers, RefusesOtherPoolingByName) {
  const SentenceDir dir;
  const auto pooling = [&](const char* config) {
    dir.Write("1_Pooling/config.json", config);
    return dir.Read();
  };
  EXPECT_THAT(pooling(R"({"pooling_mode_max_tokens":true})"),
              Unsupported("1_Pooling/config.json: pooling \"max\" is not supported"));
  EXPECT_THAT(pooling(R"({"pooling_mode_mean_tokens":true,"pooling_mode_cls_token":true})"),
              Unsupported("pooling \"mean+cls\""));
  EXPECT_THAT(pooling(R"({"pooling_mode_weightedmean_tokens":true})"), Unsupported("weightedmean"));
  EXPECT_THAT(pooling(R"({})"), Unsupported("pooling \"none\""));
  EXPECT_THAT(pooling(R"({"pooling_mode":"attention"})"), Unsupported("pooling \"attention\""));
  EXPECT_THAT(pooling(R"({"pooling_mode_mean_tokens":true,"include_prompt":false})"),
              Unsupported("include_prompt"));
}

TEST(SentenceTransformers, RefusesOtherModulesByName) {
  const SentenceDir dir;
  dir.Write("modules.json", R"([{"path":"","type":"m.Transformer"},{"path":"1_Pooling",
      "type":"m.Pooling"},{"path":"2_Dense","type":"sentence_transformers.models.Dense"}])");
  EXPECT_THAT(dir.Read(), Unsupported("modules.json: module 2: module \"Dense\" in this place"));
  dir.Write("modules.json", R"([{"path":"","type":"m.StaticEmbedding"}])");
  EXPECT_THAT(dir.Read(), Unsupported("StaticEmbedding"));
  dir.Write("modules.json", R"([{"path":"","type":"m.Transformer"}])");
  EXPECT_THAT(dir.Read(), Unsupported("has no Pooling module"));
  dir.Write("modules.json", "[]");
  EXPECT_THAT(dir.Read(), Unsupported("has no Pooling module"));
}

TEST(SentenceTransformers, StaysInsideTheModelsFolder) {
  const SentenceDir dir;
  for (const char* path : {"..", "../x", "/etc", "a/b", "."}) {
    dir.Write("modules.json",
              std::string("[{\"path\":\"") + path + "\",\"type\":\"m.Transformer\"}]");
    EXPECT_THAT(dir.Read(), Lost("wanted a folder's plain name")) << path;
  }
}

TEST(SentenceTransformers, RefusesBrokenFiles) {
  const auto with = [](const char* file, const char* text) {
    const SentenceDir dir;
    dir.Write(file, text);
    return dir.Read().status();
  };
  EXPECT_THAT(with("modules.json", "{}"), Lost("modules.json: is an object, wanted an array"));
  EXPECT_THAT(with("modules.json", "["), Lost("modules.json: is not valid JSON"));
  EXPECT_THAT(with("modules.json", "[3]"), Lost("module 0: \"type\" is missing"));
  EXPECT_THAT(with("1_Pooling/config.json", "[]"), Lost("1_Pooling/config.json: is an array"));
  EXPECT_THAT(with("sentence_bert_config.json", R"({"max_seq_length":0})"), Lost("max_seq_length"));
  EXPECT_THAT(with("config_sentence_transformers.json", R"({"prompts":{"q":1}})"),
              Lost("wanted a string"));
  EXPECT_THAT(with("config_sentence_transformers.json", R"({"default_prompt_name":"x"})"),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       HasSubstr("default_prompt_name is \"x\", which is not among the prompts")));
}

TEST(SentenceTransformers, NeedsThePoolingConfigItNames) {
  const TempDir dir;
  dir.Write("modules.json", kModules);
  EXPECT_THAT(ReadSentenceTransformers(dir.path()),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("config.json: ")));
}

}  // namespace
}  // namespace nibble
