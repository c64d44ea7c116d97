// See the header.
#include "engine/quantize/model_files.h"

#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <filesystem>
#include <system_error>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/loader/errors.h"
#include "engine/loader/json.h"
#include "engine/loader/mapped_file.h"
#include "engine/quantize/hugging_face_files.h"
#include "engine/quantize/output.h"

namespace nibble {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kMaxFileBytes = 64 << 20;
constexpr char kConfig[] = "config.json";

// Texts that go with a model; weights in any form and what indexes them do not.
bool IsModelText(const fs::path& path) {
  const std::string name = path.filename();
  if (name.starts_with('.') || name == kConfig || name.ends_with(".index.json")) return false;
  constexpr std::array kExtensions = {".json", ".txt", ".model", ".jinja", ".md", ".tiktoken"};
  const std::string extension = path.extension();
  return name == "LICENSE" ||
         std::find(kExtensions.begin(), kExtensions.end(), extension) != kExtensions.end();
}

absl::Status Copy(const fs::path& from, const std::string& to) {
  const absl::StatusOr<std::string> text = ReadTextFile(from.string(), kMaxFileBytes);
  return text.ok() ? WriteTextFile(to, *text) : text.status();
}

std::vector<fs::path> Sorted(const fs::path& directory) {
  std::vector<fs::path> paths;
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator(directory, ignored)) {
    paths.push_back(entry.path());
  }
  std::sort(paths.begin(), paths.end());
  return paths;
}

// Files of the folder, and the configs of folders in it (sentence-transformers' modules).
absl::Status CopyTexts(const std::string& source, const std::string& directory) {
  std::error_code ignored;
  for (const fs::path& path : Sorted(source)) {
    const std::string target = absl::StrCat(directory, "/", path.filename().string());
    if (fs::is_regular_file(path, ignored)) {
      if (!IsModelText(path)) continue;
      if (absl::Status status = Copy(path, target); !status.ok()) return status;
      continue;
    }
    if (!fs::is_regular_file(path / kConfig, ignored)) continue;
    if (mkdir(target.c_str(), 0777) != 0 && errno != EEXIST) return WriteFailed(target, errno);
    absl::Status status = Copy(path / kConfig, absl::StrCat(target, "/", kConfig));
    if (!status.ok()) return status;
  }
  return absl::OkStatus();
}

// "key": "value" becomes "key": "wanted"; a text without it stays as it is.
void ReplaceText(const std::string& key, const std::string& wanted, std::string* text) {
  const size_t at = text->find(absl::StrCat("\"", key, "\""));
  if (at == std::string::npos) return;
  const size_t colon = text->find(':', at);
  const size_t begin = text->find('"', colon);
  const size_t end = begin == std::string::npos ? begin : text->find('"', begin + 1);
  if (end != std::string::npos) text->replace(begin + 1, end - begin - 1, wanted);
}

}  // namespace

absl::StatusOr<std::string> WithQuantizationConfig(std::string_view config,
                                                   const QuantizationText& quantization) {
  const absl::StatusOr<Value> parsed = ParseJsonObject(kConfig, config);
  if (!parsed.ok()) return parsed.status();
  std::string text(config);
  if (parsed->Find("quantization_config") != nullptr) {
    ReplaceText("bnb_4bit_quant_storage", "uint8", &text);
    return text;
  }
  text.erase(text.rfind('}'));
  text.erase(text.find_last_not_of(" \t\r\n") + 1);
  return absl::StrCat(text, text.ends_with('{') ? "" : ",",
                      "\n  \"quantization_config\": ", QuantizationConfigText(quantization),
                      "\n}\n");
}

absl::Status WriteModelFiles(const Checkpoint& checkpoint, const QuantizationText& quantization,
                             const std::string& directory) {
  std::error_code ignored;
  std::string config;
  if (fs::is_directory(checkpoint.path(), ignored)) {
    if (absl::Status s = CopyTexts(checkpoint.path(), directory); !s.ok()) return s;
    absl::StatusOr<std::string> text =
        ReadTextFile(absl::StrCat(checkpoint.path(), "/", kConfig), kMaxFileBytes);
    if (!text.ok()) return text.status();
    config = *std::move(text);
  } else {
    const absl::StatusOr<std::vector<TextFile>> files = HuggingFaceTokenizerFiles(checkpoint);
    if (!files.ok()) return files.status();
    for (const TextFile& file : *files) {
      absl::Status status = WriteTextFile(absl::StrCat(directory, "/", file.name), file.text);
      if (!status.ok()) return status;
    }
    absl::StatusOr<std::string> text = HuggingFaceConfig(checkpoint, quantization.compute);
    if (!text.ok()) return text.status();
    config = *std::move(text);
  }
  absl::StatusOr<std::string> with = WithQuantizationConfig(config, quantization);
  if (!with.ok()) return with.status();
  return WriteTextFile(absl::StrCat(directory, "/", kConfig), *with);
}

}  // namespace nibble
