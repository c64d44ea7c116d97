// See hf_weights.h.
#include "engine/loader/hf_weights.h"

#include <algorithm>
#include <map>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/loader/bitsandbytes.h"
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

// A dtype that holds no plain values. In a model of bitsandbytes' the companions are missing.
absl::Status RefuseDtype(const ModelConfig& config, const StoredTensor& stored) {
  const SafetensorsEntry& entry = stored.entry;
  const std::string what = absl::StrCat("tensor ", Quoted(entry.name), " has dtype ", entry.dtype);
  const bool codes = entry.dtype == "U8" || entry.dtype == "I8";
  if (config.quantization.has_value() && codes) {
    return CorruptFile(stored.file,
                       absl::StrCat(what, " but no ", entry.dtype == "U8" ? "quant_state" : "SCB",
                                    " beside it, which bitsandbytes' matrices have"));
  }
  return UnsupportedModel(
      stored.file, absl::StrCat(what,
                                entry.dtype == "U8"   ? " and no quant_state"
                                : entry.dtype == "I8" ? " and no SCB"
                                                      : "",
                                "; supported: F32, F16, BF16, and bitsandbytes' 4-bit and 8-bit "
                                "matrices"));
}

absl::StatusOr<TensorRef> MakeTensor(const ModelConfig& config, std::string name,
                                     const StoredTensor& stored) {
  const SafetensorsEntry& entry = stored.entry;
  TensorRef tensor;
  if (entry.dtype == "F32") {
    tensor.type = TensorType::kF32;
  } else if (entry.dtype == "F16") {
    tensor.type = TensorType::kF16;
  } else if (entry.dtype == "BF16") {
    tensor.type = TensorType::kBF16;
  } else {
    return RefuseDtype(config, stored);
  }
  tensor.name = std::move(name);
  tensor.shape = entry.shape;
  tensor.data = entry.data.data();
  tensor.bytes = static_cast<int64_t>(entry.data.size());
  tensor.file = stored.file;
  return tensor;
}

// Which tensors to take from which file; all of them where the set is empty.
using FileTensors = std::map<std::string, std::set<std::string, std::less<>>>;

// Adds a file's tensors to `tensors` and the file to `files`. Every one of `wanted` must be there.
absl::Status ReadFile(const std::string& directory, const std::string& file,
                      const std::set<std::string, std::less<>>& wanted,
                      std::vector<StoredTensor>& tensors,
                      std::vector<std::unique_ptr<MappedFile>>& files) {
  absl::StatusOr<std::unique_ptr<MappedFile>> mapped = MappedFile::Open(PathIn(directory, file));
  if (!mapped.ok()) return mapped.status();
  absl::StatusOr<std::vector<SafetensorsEntry>> entries =
      ParseSafetensors(file, (*mapped)->bytes());
  if (!entries.ok()) return entries.status();
  size_t found = 0;
  for (SafetensorsEntry& entry : *entries) {
    if (!wanted.empty() && !wanted.contains(entry.name)) continue;
    ++found;
    tensors.push_back({file, std::move(entry)});
  }
  if (found < wanted.size()) {
    return CorruptFile(file, absl::StrCat("has ", found, " of the ", wanted.size(),
                                          " tensors that ", kIndex, " says it has"));
  }
  files.push_back(*std::move(mapped));
  return absl::OkStatus();
}

// Quantized matrices, by the names they have in the files, and what is stored beside each.
using Quantized = std::map<std::string, Companions, std::less<>>;

// A key that bitsandbytes does not know is a companion only beside others that it does.
Quantized FindCompanions(const std::vector<StoredTensor>& tensors) {
  Quantized found;
  for (const bool known : {true, false}) {
    for (const StoredTensor& tensor : tensors) {
      const std::optional<CompanionName> name = SplitCompanionName(tensor.entry.name);
      if (!name.has_value() || name->known != known) continue;
      if (!known && !found.contains(name->matrix)) continue;
      found[name->matrix].emplace(name->key, &tensor);
    }
  }
  return found;
}

// Names of the tensors that are companions; each has its matrix.
absl::StatusOr<std::set<const StoredTensor*>> CheckCompanions(
    const std::vector<StoredTensor>& tensors, const Quantized& quantized) {
  std::set<std::string_view> names;
  for (const StoredTensor& tensor : tensors) names.insert(tensor.entry.name);
  std::set<const StoredTensor*> companions;
  for (const auto& [matrix, parts] : quantized) {
    for (const auto& [key, tensor] : parts) companions.insert(tensor);
    if (names.contains(matrix)) continue;
    const StoredTensor& orphan = *parts.begin()->second;
    return CorruptFile(orphan.file, absl::StrCat("tensor ", Quoted(orphan.entry.name),
                                                 " is there without ", Quoted(matrix)));
  }
  return companions;
}

// The name of a tensor that goes with the model, though it is not computed with.
std::optional<std::string> OtherName(const ModelConfig& config, std::string_view name) {
  if (config.architecture != Architecture::kBert) return std::nullopt;
  if (name.starts_with("bert.")) name.remove_prefix(5);
  const bool printable = std::all_of(name.begin(), name.end(), [](char c) { return c > ' '; });
  if (printable && (name.starts_with("pooler.") || name.starts_with("cls."))) return Str(name);
  return std::nullopt;
}

// Every tensor of the model, a quantized matrix and its companions as one.
absl::Status MakeTensors(const ModelConfig& config, const std::vector<StoredTensor>& stored,
                         HfWeights& out) {
  const Quantized quantized = FindCompanions(stored);
  const absl::StatusOr<std::set<const StoredTensor*>> companions =
      CheckCompanions(stored, quantized);
  if (!companions.ok()) return companions.status();
  for (const StoredTensor& one : stored) {
    if (companions->contains(&one)) continue;
    std::optional<std::string> name = CanonicalName(config, one.entry.name);
    const bool computed = name.has_value();
    if (!computed) name = OtherName(config, one.entry.name);
    if (!name.has_value()) continue;
    const auto parts = quantized.find(one.entry.name);
    absl::StatusOr<TensorRef> tensor =
        parts == quantized.end() ? MakeTensor(config, *std::move(name), one)
                                 : ReadQuantizedMatrix(*std::move(name), one, parts->second);
    if (!tensor.ok() && computed) return tensor.status();
    if (!tensor.ok() || (!computed && tensor->shape.size() > 2)) continue;
    (computed ? out.tensors : out.others).push_back(*std::move(tensor));
  }
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
  std::vector<StoredTensor> stored;
  for (const auto& [file, wanted] : files) {
    absl::Status read = ReadFile(directory, file, wanted, stored, out.files);
    if (!read.ok()) return read;
  }
  if (absl::Status made = MakeTensors(config, stored, out); !made.ok()) return made;
  return out;
}

}  // namespace nibble
