// Our half of bitsandbytes_exhaustive.py: quantizes and dequantizes what comes in on stdin.
//
//   request := dtype i32, format i32, group_size i32, nested i32, n i64, k i64, offset f32, 0 i32,
//              values[n · k] of the type (DType's and WeightFormat's numbers)
//   reply   := codes u8[(n · k + 1) / 2],
//              plain: absmax f32[G]; nested: our own offset f32, absmax_codes u8[G],
//              nested_absmax f32[ceil(G / 256)] around the given offset,
//              dequantized[n · k] of the type
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "kernels/four_bit.h"
#include "kernels/half.h"

namespace nibble {
namespace {

struct Request {
  int32_t dtype, format, group_size, nested;
  int64_t n, k;
  float offset;
  int32_t unused;
};

[[noreturn]] void Fail(const char* what) {
  std::fprintf(stderr, "bitsandbytes_exhaustive: %s\n", what);
  std::exit(1);
}

template <typename T>
void Write(const std::vector<T>& values) {
  if (std::fwrite(values.data(), sizeof(T), values.size(), stdout) != values.size()) Fail("write");
}

template <typename T>
FourBitMatrix Quantize(const Request& request, const std::vector<T>& values, bool double_quant) {
  FourBitQuantizer quantizer(request.n, request.k,
                             {.format = static_cast<WeightFormat>(request.format),
                              .group_size = request.group_size,
                              .double_quant = double_quant});
  absl::Status added;
  if constexpr (sizeof(T) == sizeof(float)) {
    added = quantizer.Add(0, values);
  } else {
    added = quantizer.Add(0, static_cast<DType>(request.dtype), values);
  }
  if (!added.ok()) Fail("a value is not finite");
  return quantizer.Finish();
}

template <typename T>
void Answer(const Request& request) {
  std::vector<T> values(static_cast<size_t>(request.n * request.k));
  if (std::fread(values.data(), sizeof(T), values.size(), stdin) != values.size()) Fail("read");
  FourBitMatrix matrix = Quantize(request, values, false);
  Write(matrix.codes);
  if (request.nested != 0) {
    Write(std::vector<float>{Quantize(request, values, true).nested_offset});
    NestScales(request.offset, &matrix);
    Write(matrix.absmax_codes);
    Write(matrix.nested_absmax);
  } else {
    Write(matrix.absmax);
  }
  std::vector<float> dequantized(values.size());
  DequantizeFourBit(matrix, 0, dequantized);
  if constexpr (sizeof(T) == sizeof(float)) {
    Write(dequantized);
  } else {
    const auto dtype = static_cast<DType>(request.dtype);
    for (size_t i = 0; i < values.size(); ++i) values[i] = F32ToHalf(dtype, dequantized[i]);
    Write(values);
  }
  std::fflush(stdout);
}

}  // namespace
}  // namespace nibble

int main() {
  nibble::Request request;
  while (std::fread(&request, sizeof(request), 1, stdin) == 1) {
    if (request.dtype == static_cast<int32_t>(nibble::DType::kF32)) {
      nibble::Answer<float>(request);
    } else {
      nibble::Answer<uint16_t>(request);
    }
  }
  return 0;
}
