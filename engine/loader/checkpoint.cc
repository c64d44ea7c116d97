// Opens a path as the layout that it is, and checks what the layout's reader found.
#include "engine/loader/checkpoint.h"

#include <sys/stat.h>

#include <cerrno>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/loader/checkpoint_parts.h"
#include "engine/loader/errors.h"
#include "engine/loader/expected_tensors.h"
#include "engine/loader/gguf.h"

namespace nibble {
namespace {

// A file is GGUF by its name or, as in caches that name files by their hash, by its first bytes.
absl::StatusOr<CheckpointParts> ReadFileModel(const std::string& path) {
  if (!path.ends_with(".gguf")) {
    const absl::StatusOr<std::unique_ptr<MappedFile>> file = MappedFile::Open(path);
    if (!file.ok()) return file.status();
    if (!HasGgufMagic((*file)->bytes())) {
      return NotAModel(BaseName(path),
                       "is not a GGUF file; wanted one, or a directory in Hugging Face layout");
    }
  }
  return ReadGgufModel(path);
}

absl::StatusOr<CheckpointParts> ReadParts(const std::string& path) {
  struct stat info = {};
  if (stat(path.c_str(), &info) != 0) return SystemError(BaseName(path), errno);
  return S_ISDIR(info.st_mode) ? ReadHuggingFaceModel(path) : ReadFileModel(path);
}

}  // namespace

Checkpoint::Checkpoint(std::string path, CheckpointParts parts)
    : bos_token(std::move(parts.bos_token)),
      eos_token(std::move(parts.eos_token)),
      path_(std::move(path)),
      config_source_(std::move(parts.config_source)),
      config_(std::move(parts.config)),
      tensors_(std::move(parts.tensors)),
      others_(std::move(parts.others)),
      gguf_tokenizer_(std::move(parts.gguf_tokenizer)),
      hf_tokenizer_(std::move(parts.hf_tokenizer)),
      chat_template_(std::move(parts.chat_template)),
      files_(std::move(parts.files)) {}

Checkpoint::~Checkpoint() = default;

absl::StatusOr<std::unique_ptr<Checkpoint>> Checkpoint::Open(const std::string& path) {
  absl::StatusOr<CheckpointParts> parts = ReadParts(path);
  if (!parts.ok()) return parts.status();
  std::unique_ptr<Checkpoint> checkpoint(new Checkpoint(path, *std::move(parts)));
  if (absl::Status status = checkpoint->IndexTensors(); !status.ok()) return status;
  if (absl::Status status = CheckTensors(*checkpoint); !status.ok()) return status;
  if (absl::Status status = checkpoint->CheckUnchanged(); !status.ok()) return status;
  return checkpoint;
}

absl::Status Checkpoint::IndexTensors() {
  for (size_t i = 0; i < tensors_.size(); ++i) index_.emplace(tensors_[i].name, i);
  std::set<std::string_view> names;
  for (const std::vector<TensorRef>* tensors : {&tensors_, &others_}) {
    for (const TensorRef& tensor : *tensors) {
      if (names.insert(tensor.name).second) continue;
      return CorruptFile(tensor.file,
                         absl::StrCat("tensor ", Quoted(tensor.name), " is there twice"));
    }
  }
  return absl::OkStatus();
}

const TensorRef* Checkpoint::Find(std::string_view name) const {
  const auto found = index_.find(name);
  return found == index_.end() ? nullptr : &tensors_[found->second];
}

std::vector<std::string> Checkpoint::FileStamps() const {
  std::vector<std::string> stamps;
  for (const auto& file : files_) stamps.push_back(file->Stamp());
  return stamps;
}

absl::Status Checkpoint::CheckUnchanged() const {
  for (const std::unique_ptr<MappedFile>& file : files_) {
    if (absl::Status status = file->CheckUnchanged(); !status.ok()) return status;
  }
  return absl::OkStatus();
}

}  // namespace nibble
