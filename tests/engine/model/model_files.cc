// config.json and model.safetensors, byte by byte.
#include "tests/engine/model/model_files.h"

#include <filesystem>
#include <sstream>
#include <utility>
#include <vector>

#include "kernels/half.h"
#include "tests/support/safetensors_writer.h"

namespace nibble::testing {
namespace {

struct FileTensor {
  std::string name;
  std::vector<int64_t> shape;
  std::string dtype;
};

int64_t NumValues(const FileTensor& tensor) {
  int64_t count = 1;
  for (const int64_t dimension : tensor.shape) count *= dimension;
  return count;
}

int64_t NumBytes(const FileTensor& tensor) {
  return NumValues(tensor) * (tensor.dtype == "F32" ? 4 : 2);
}

std::string ConfigJson(const LlamaShape& shape) {
  std::ostringstream json;
  json << R"({"architectures":["LlamaForCausalLM"],"model_type":"llama","hidden_act":"silu",)"
       << R"("rms_norm_eps":1e-5,"rope_theta":10000.0,"hidden_size":)" << shape.hidden
       << R"(,"intermediate_size":)" << shape.ffn << R"(,"num_hidden_layers":)" << shape.layers
       << R"(,"num_attention_heads":)" << shape.heads << R"(,"num_key_value_heads":)"
       << shape.kv_heads << R"(,"head_dim":)" << shape.head_dim << R"(,"vocab_size":)"
       << shape.vocab << R"(,"max_position_embeddings":)" << shape.positions
       << R"(,"tie_word_embeddings":)" << (shape.tied ? "true" : "false") << R"(,"torch_dtype":")"
       << (shape.dtype == "BF16"  ? "bfloat16"
           : shape.dtype == "F16" ? "float16"
                                  : "float32")
       << "\"}";
  return json.str();
}

// The file's JSON, padded to 8 bytes.
std::string Header(const std::vector<FileTensor>& tensors) {
  std::ostringstream json;
  int64_t at = 0;
  for (const FileTensor& tensor : tensors) {
    json << (at == 0 ? "{" : ",") << "\"" << tensor.name << R"(":{"dtype":")" << tensor.dtype
         << R"(","shape":[)";
    for (size_t i = 0; i < tensor.shape.size(); ++i) json << (i ? "," : "") << tensor.shape[i];
    json << R"(],"data_offsets":[)" << at << "," << at + NumBytes(tensor) << "]}";
    at += NumBytes(tensor);
  }
  json << "}";
  std::string text = json.str();
  text.resize((text.size() + 7) / 8 * 8, ' ');
  return text;
}

std::string Values(const FileTensor& tensor, const ModelFolder::Value& value) {
  std::string bytes;
  for (int64_t i = 0; i < NumValues(tensor); ++i) {
    const float number = value(tensor.name, i);
    if (tensor.dtype == "F32") {
      bytes.append(reinterpret_cast<const char*>(&number), 4);
    } else {
      const uint16_t half = F32ToHalf(tensor.dtype == "F16" ? DType::kF16 : DType::kBF16, number);
      bytes.append(reinterpret_cast<const char*>(&half), 2);
    }
  }
  return bytes;
}

std::vector<FileTensor> LlamaTensors(const LlamaShape& shape) {
  std::vector<FileTensor> tensors;
  const auto add = [&](const std::string& name, std::vector<int64_t> dimensions) {
    tensors.push_back({name + ".weight", std::move(dimensions), shape.dtype});
  };
  add("model.embed_tokens", {shape.vocab, shape.hidden});
  for (int64_t layer = 0; layer < shape.layers; ++layer) {
    const std::string at = "model.layers." + std::to_string(layer) + ".";
    add(at + "input_layernorm", {shape.hidden});
    add(at + "self_attn.q_proj", {shape.heads * shape.head_dim, shape.hidden});
    add(at + "self_attn.k_proj", {shape.kv_heads * shape.head_dim, shape.hidden});
    add(at + "self_attn.v_proj", {shape.kv_heads * shape.head_dim, shape.hidden});
    add(at + "self_attn.o_proj", {shape.hidden, shape.heads * shape.head_dim});
    add(at + "post_attention_layernorm", {shape.hidden});
    add(at + "mlp.gate_proj", {shape.ffn, shape.hidden});
    add(at + "mlp.up_proj", {shape.ffn, shape.hidden});
    add(at + "mlp.down_proj", {shape.hidden, shape.ffn});
  }
  add("model.norm", {shape.hidden});
  if (!shape.tied) add("lm_head", {shape.vocab, shape.hidden});
  return tensors;
}

}  // namespace

ModelFolder::ModelFolder(const LlamaShape& shape, const Value& value) {
  folder_.Write("config.json", ConfigJson(shape));
  const std::vector<FileTensor> tensors = LlamaTensors(shape);
  const std::string header = Header(tensors);
  std::string data;
  int64_t data_bytes = 0;
  for (const FileTensor& tensor : tensors) {
    data_bytes += NumBytes(tensor);
    if (value != nullptr) data += Values(tensor, value);
  }
  const std::string path = folder_.Write("model.safetensors", SafetensorsFile(header, data));
  std::filesystem::resize_file(path, 8 + header.size() + static_cast<uintmax_t>(data_bytes));
}

}  // namespace nibble::testing
