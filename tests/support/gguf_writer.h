// Writes small GGUF files for tests, right or wrong on purpose. Grammar: engine/loader/gguf.h.
#pragma once

#include <cstdint>
#include <cstring>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace nibble::testing {

template <typename T>
std::string RawBytes(const T& value) {
  return std::string(reinterpret_cast<const char*>(&value), sizeof(T));
}
template <typename T>
std::string RawBytes(const std::vector<T>& values) {
  return std::string(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T));
}
inline std::string GgufString(std::string_view text) {
  return RawBytes<uint64_t>(text.size()) + std::string(text);
}

class GgufWriter {
 public:
  // Claims of the header, where they shall differ from what follows.
  uint32_t version = 3;
  std::optional<uint64_t> claimed_tensors, claimed_fields;
  uint64_t alignment = 32;  // of the data; the field general.alignment is the caller's

  // A field's type and value, as they are.
  void AddField(std::string_view key, uint32_t type, std::string_view raw) {
    fields_ += GgufString(key) + RawBytes(type) + std::string(raw);
    ++num_fields_;
  }
  void AddU32(std::string_view key, uint32_t value) { AddField(key, 4, RawBytes(value)); }
  void AddF32(std::string_view key, float value) { AddField(key, 6, RawBytes(value)); }
  void AddBool(std::string_view key, bool value) { AddField(key, 7, RawBytes(value)); }
  void AddText(std::string_view key, std::string_view value) {
    AddField(key, 8, GgufString(value));
  }
  void AddArray(std::string_view key, uint32_t element_type, uint64_t count, std::string_view raw) {
    AddField(key, 9, RawBytes(element_type) + RawBytes(count) + std::string(raw));
  }
  void AddTexts(std::string_view key, const std::vector<std::string>& values) {
    std::string raw;
    for (const std::string& value : values) raw += GgufString(value);
    AddArray(key, 8, values.size(), raw);
  }
  void AddInts(std::string_view key, const std::vector<int32_t>& values) {
    AddArray(key, 5, values.size(), RawBytes(values));
  }

  // shape: outermost first, as everywhere in Nibble. type: ggml's id (0 F32, 1 F16 …).
  void AddTensor(std::string_view name, const std::vector<int64_t>& shape, uint32_t type,
                 std::string_view raw) {
    Align(data_);
    AddTensorEntry(name, {shape.rbegin(), shape.rend()}, type, data_.size());
    data_ += raw;
  }
  // Only the entry, with any offset; dimensions innermost first, as in the file.
  void AddTensorEntry(std::string_view name, const std::vector<uint64_t>& dimensions, uint32_t type,
                      uint64_t offset) {
    tensors_ += GgufString(name) + RawBytes(static_cast<uint32_t>(dimensions.size())) +
                RawBytes(dimensions) + RawBytes(type) + RawBytes(offset);
    ++num_tensors_;
  }

  // Everything before the data, without the padding that leads to it.
  std::string Header() const {
    return std::string("GGUF") + RawBytes(version) +
           RawBytes(claimed_tensors.value_or(num_tensors_)) +
           RawBytes(claimed_fields.value_or(num_fields_)) + fields_ + tensors_;
  }
  std::string File() const {
    std::string file = Header();
    Align(file);
    return file + data_;
  }

 private:
  void Align(std::string& bytes) const {
    bytes.resize((bytes.size() + alignment - 1) / alignment * alignment);
  }

  std::string fields_, tensors_, data_;
  uint64_t num_fields_ = 0, num_tensors_ = 0;
};

}  // namespace nibble::testing
