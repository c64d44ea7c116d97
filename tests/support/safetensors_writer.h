// Writes small safetensors files for tests. Grammar: engine/loader/safetensors.h.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace nibble::testing {

// A file of this header and data, whatever they are.
inline std::string SafetensorsFile(std::string_view header, std::string_view data) {
  const uint64_t size = header.size();
  std::string file(reinterpret_cast<const char*>(&size), sizeof(size));
  return file + std::string(header) + std::string(data);
}

class SafetensorsWriter {
 public:
  // dtype: "F32", "BF16" … The bytes are the caller's.
  void Add(std::string_view name, std::string_view dtype, const std::vector<int64_t>& shape,
           std::string_view raw) {
    std::string dimensions;
    for (const int64_t dimension : shape) {
      dimensions.append(dimensions.empty() ? "" : ",").append(std::to_string(dimension));
    }
    const std::string begin = std::to_string(data_.size());
    data_ += raw;
    entries_.append(",\"").append(name).append("\":{\"dtype\":\"").append(dtype);
    entries_.append("\",\"shape\":[").append(dimensions).append("],\"data_offsets\":[");
    entries_.append(begin).append(",").append(std::to_string(data_.size())).append("]}");
  }
  std::string Header() const {
    return std::string("{\"__metadata__\":{\"format\":\"pt\"}").append(entries_).append("}");
  }
  std::string File() const { return SafetensorsFile(Header(), data_); }

 private:
  std::string entries_, data_;
};

}  // namespace nibble::testing
