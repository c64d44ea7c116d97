// Every kind of product that the CPU has, and how fast it is beside this machine's peaks. Knows how
// each is measured, not how it is told.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "service/bench_machine.h"

namespace nibble {

struct ProductCase {
  std::string name;  // "nf4+dq 4096x4096"
  Product product;
  bool any_mode = false;  // its arithmetic is the same in every mode
};
// small: matrices that take no time.
std::vector<ProductCase> AllProducts(bool small);
// NF4 with and without double quantization, from memory.
std::vector<ProductCase> ProductsOfShape(int64_t n, int64_t k, const std::vector<int64_t>& rows);
// What a machine must be ready for.
ProductLimits LimitsOf(const std::vector<ProductCase>& cases);

struct ProductLine {
  std::string name;  // "nf4+dq 4096x4096, bf16, M=8"
  double seconds = 0;
  double bytes_per_second = 0;       // of the matrix
  double operations_per_second = 0;  // 0: nothing is multiplied
  Spread of_read;
  std::optional<Spread> of_peak;  // absent: the row has no unit of its own
  std::string unit;
};

// Those whose name contains `only`; all of them if it is empty.
std::vector<ProductLine> MeasureProducts(BenchMachine* machine,
                                         const std::vector<ProductCase>& cases,
                                         const std::string& only);

// fp32 rows into INT8, as loading does: bytes of fp32 read.
inline constexpr char kInt8Quantization[] = "quantize fp32 to int8";
ProductLine MeasureInt8Quantization(BenchMachine* machine);

// A peak of the machine: reads in bytes, units in operations a second.
struct PeakLine {
  std::string name;  // "vnni_512 (vpdpbusd, 512 bits), 2 threads"
  Spread per_second;
};
std::vector<PeakLine> MeasurePeaks(BenchMachine* machine);

}  // namespace nibble
