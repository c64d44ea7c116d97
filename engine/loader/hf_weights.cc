// See hf_weights.h.
#include "engine/loader/hf_weights.h"

#include <map>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/loader/errors.h"
#include "engine/loader/json.h"
#include "engine/loader/safetensors.h"
#include "engine/loader/value.h"
#include "engine/status.h"

namespace nibble {
namespace {

constexpr char kSingle[] = "model.safetensors";
constexpr char kIndex[] = "model.safetensors.index.json";
constexpr int64_t kMaxIndexBytes = 64 << 20;

std::string PathIn(const std::string& directory, std::string_view file) {
  return absl::StrCat(directory, "/", Str(file));
}

std::string LlamaName(std::string_view name) {
  for (const std::string_view bare : {"embed_tokens.", "layers.", "norm."}) {
    if (name.starts_with(bare)) return absl::StrCat("model.", Str(name));
  }
  return Str(name);
}

std::string BertName(std::string_view name) {
  constexpr std::string_view kGamma = "LayerNorm.gamma";
  constexpr std::string_view kBeta = "LayerNorm.beta";
  if (name.ends_with(kGamma)) {
    return absl::StrCat(Str(name.substr(0, name.size() - kGamma.size())), "LayerNorm.weight");
  }
  if (name.ends_with(kBeta)) {
    return absl::StrCat(Str(name.substr(0, name.size() - kBeta.size())), "LayerNorm.bias");
  }
  return Str(name);
}

absl::StatusOr<TensorRef> MakeTensor(const std::string& file, std::string name,
                                     SafetensorsEntry entry) {
  TensorRef tensor;
  if (entry.dtype == "F32") {
    tensor.type = TensorType::kF32;
  } else if (entry.dtype == "F16") {
    tensor.type = TensorType::kF16;
  } else if (entry.dtype == "BF16") {
    tensor.type = TensorType::kBF16;
  } else {
    return UnsupportedModel(file, absl::StrCat("tensor ", Quoted(entry.name), " has dtype ",
                                               entry.dtype, "; supported: F32, F16, BF16"));
  }
  tensor.name = std::move(name);
  tensor.shape = std::move(entry.shape);
  tensor.data = entry.data.data();
  tensor.bytes = static_cast<int64_t>(entry.data.size());
  tensor.file = file;
  return tensor;
}

// Which tensors to take from which file; all of them where the set is empty.
using FileTensors = std::map<std::string, std::set<std::string, std::less<>>>;

// Adds a file's tensors to `out`. Every one of `wanted` must be there.
absl::Status ReadFile(const std::string& directory, const std::string& file,
                      const std::set<std::string, std::less<>>& wanted, const ModelConfig& config,
                      HfWeights& out) {
  absl::StatusOr<std::unique_ptr<MappedFile>> mapped = MappedFile::Open(PathIn(directory, file));
  if (!mapped.ok()) return mapped.status();
  absl::StatusOr<std::vector<SafetensorsEntry>> entries =
      ParseSafetensors(file, (*mapped)->bytes());
  if (!entries.ok()) return entries.status();
  size_t found = 0;
  for (SafetensorsEntry& entry : *entries) {
    if (!wanted.empty() && !wanted.contains(entry.name)) continue;
    ++found;
    std::optional<std::string> name = CanonicalName(config, entry.name);
    if (!name.has_value()) continue;
    absl::StatusOr<TensorRef> tensor = MakeTensor(file, *std::move(name), std::move(entry));
    if (!tensor.ok()) return tensor.status();
    out.tensors.push_back(*std::move(tensor));
  }
  if (found < wanted.size()) {
    return CorruptFile(file, absl::StrCat("has ", found, " of the ", wanted.size(),
                                          " tensors that ", kIndex, " says it has"));
  }
  out.files.push_back(*std::move(mapped));
  return absl::OkStatus();
}

// A file's name alone: nothing that could lead out of the directory.
bool IsPlainFile(std::string_view name) {
  return name.ends_with(".safetensors") && name.find('/') == std::string_view::npos &&
         name.find('\0') == std::string_view::npos && !name.starts_with('.');
}

absl::StatusOr<FileTensors> ReadIndex(const std::string& directory) {
  const absl::StatusOr<std::string> text = ReadTextFile(PathIn(directory, kIndex), kMaxIndexBytes);
  if (!text.ok()) return text.status();
  const absl::StatusOr<Value> index = ParseJsonObject(kIndex, *text);
  if (!index.ok()) return index.status();
  const Value* map = index->Find("weight_map");
  if (map == nullptr || map->AsObject() == nullptr || map->AsObject()->empty()) {
    return CorruptFile(kIndex, "has no \"weight_map\" of tensors");
  }
  FileTensors files;
  for (const Value::Member& member : *map->AsObject()) {
    const std::string* file = member.value.AsText();
    if (file == nullptr || !IsPlainFile(*file)) {
      return CorruptFile(kIndex,
                         absl::StrCat("puts ", Quoted(member.key), " in ", member.value.Describe(),
                                      ", wanted a .safetensors file's plain name"));
    }
    files[*file].insert(member.key);
  }
  return files;
}

// No safetensors: says what there is instead.
absl::Status RefuseOtherWeights(const std::string& directory) {
  for (const char* pickle : {"pytorch_model.bin", "pytorch_model.bin.index.json"}) {
    if (!PathExists(PathIn(directory, pickle))) continue;
    return UnsupportedModel(pickle,
                            "pickled weights are never read, they can run code; convert "
                            "the model to safetensors");
  }
  for (const char* other : {"consolidated.safetensors", "tf_model.h5", "flax_model.msgpack"}) {
    if (!PathExists(PathIn(directory, other))) continue;
    return UnsupportedModel(other, absl::StrCat("weights in this form are not supported; "
                                                "supported: ",
                                                kSingle,
                                                " with transformers' "
                                                "names, one file or sharded"));
  }
  return NotAModel(BaseName(directory),
                   absl::StrCat("has no weights: neither ", kSingle, " nor ", kIndex, " is there"));
}

}  // namespace

std::optional<std::string> CanonicalName(const ModelConfig& config, std::string_view name) {
  if (config.architecture == Architecture::kLlama) {
    if (name.ends_with(".rotary_emb.inv_freq")) return std::nullopt;  // computed, not learned
    if (config.tied_head && name == "lm_head.weight") return std::nullopt;
    return LlamaName(name);
  }
  if (name.starts_with("bert.")) name.remove_prefix(5);
  if (name.starts_with("pooler.") || name.starts_with("cls.")) return std::nullopt;
  if (name == "embeddings.position_ids") return std::nullopt;
  return BertName(name);
}

absl::StatusOr<HfWeights> ReadHfWeights(const std::string& directory, const ModelConfig& config) {
  FileTensors files;
  if (PathExists(PathIn(directory, kIndex))) {
    absl::StatusOr<FileTensors> index = ReadIndex(directory);
    if (!index.ok()) return index.status();
    files = *std::move(index);
  } else if (PathExists(PathIn(directory, kSingle))) {
    files[kSingle];
  } else {
    return RefuseOtherWeights(directory);
  }
  HfWeights out;
  for (const auto& [file, wanted] : files) {
    absl::Status read = ReadFile(directory, file, wanted, config, out);
    if (!read.ok()) return read;
  }
  return out;
}

}  // namespace nibble
