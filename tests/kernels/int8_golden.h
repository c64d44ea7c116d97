// Reads tests/golden/int8/, whose grammar tests/oracle/int8_goldens.py tells.
#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

namespace nibble {

struct QuantizeGolden {
  std::string name;
  int64_t n = 0, k = 0;
  std::vector<float> values;
  std::vector<int8_t> codes;
  std::vector<float> absmax;
  std::vector<float> dequantized;
};

// bitsandbytes called with one row of x at a time.
struct ProductGolden {
  std::string name;
  int64_t m = 0, n = 0, k = 0;
  float threshold = 0;
  bool has_bias = false;
  std::vector<float> x;
  std::vector<int8_t> codes;
  std::vector<float> absmax;
  std::vector<float> bias;
  std::vector<int8_t> x_codes;
  std::vector<float> x_stats;
  std::vector<float> out;
};

struct Int8Goldens {
  std::vector<QuantizeGolden> quantize;
  std::vector<ProductGolden> products;
};

inline Int8Goldens ReadInt8Goldens() {
  const std::string folder = NIBBLE_SOURCE_DIR "/tests/golden/int8/";
  std::ifstream index(folder + "index.txt"), binary(folder + "int8.bin", std::ios::binary);
  const auto take = [&](auto& values, int64_t count) {
    values.resize(static_cast<size_t>(count));
    binary.read(reinterpret_cast<char*>(values.data()),
                static_cast<std::streamsize>(values.size() * sizeof(values[0])));
    EXPECT_TRUE(binary.good()) << "int8.bin is too short";
  };
  Int8Goldens goldens;
  for (std::string line; std::getline(index, line);) {
    if (line.starts_with("#")) continue;
    std::istringstream words(line);
    std::string kind;
    words >> kind;
    if (kind == "quantize") {
      QuantizeGolden& g = goldens.quantize.emplace_back();
      words >> g.name >> g.n >> g.k;
      take(g.values, g.n * g.k);
      take(g.codes, g.n * g.k);
      take(g.absmax, g.n);
      take(g.dequantized, g.n * g.k);
    } else {
      ProductGolden& g = goldens.products.emplace_back();
      words >> g.name >> g.m >> g.n >> g.k >> g.threshold >> g.has_bias;
      take(g.x, g.m * g.k);
      take(g.codes, g.n * g.k);
      take(g.absmax, g.n);
      take(g.bias, g.n);
      take(g.x_codes, g.m * g.k);
      take(g.x_stats, g.m);
      take(g.out, g.m * g.n);
    }
  }
  EXPECT_FALSE(goldens.quantize.empty());
  EXPECT_FALSE(goldens.products.empty());
  EXPECT_EQ(binary.peek(), std::ifstream::traits_type::eof()) << "int8.bin is too long";
  return goldens;
}

}  // namespace nibble
