// Lines of JSON. Strings are our own names, a device's name and error texts: quotes, backslashes
// and control characters are escaped.
#include "tests/bench/cuda/figures.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace nibble::bench {
namespace {

std::string Quoted(std::string_view text) {
  std::string quoted = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') {
      absl::StrAppend(&quoted, "\\", std::string(1, c));
    } else if (static_cast<unsigned char>(c) < 32) {
      absl::StrAppendFormat(&quoted, "\\u%04x", c);
    } else {
      quoted += c;
    }
  }
  return quoted + "\"";
}

}  // namespace

Line::Line(std::string_view kind, std::string_view name) {
  text_ = absl::StrCat("{\"kind\": ", Quoted(kind), ", \"name\": ", Quoted(name));
}

Line& Line::Add(std::string_view key, double value) {
  // JSON has no NaN and no infinity.
  const std::string number = std::isfinite(value) ? absl::StrFormat("%.6g", value) : "null";
  absl::StrAppend(&text_, ", ", Quoted(key), ": ", number);
  return *this;
}

Line& Line::Add(std::string_view key, std::string_view value) {
  absl::StrAppend(&text_, ", ", Quoted(key), ": ", Quoted(value));
  return *this;
}

Figures::Figures(const std::string& path)
    : file_(path.empty() ? stdout : std::fopen(path.c_str(), "w")) {
  if (file_ == nullptr) {
    std::perror(path.c_str());
    std::exit(2);
  }
}

Figures::~Figures() {
  if (file_ != stdout) std::fclose(file_);
}

void Figures::Write(const Line& line) {
  std::fprintf(file_, "%s}\n", line.text().c_str());
  std::fflush(file_);
}

void Figures::Missing(std::string_view name, std::string_view why) {
  Write(Line("missing", name).Add("why", why));
}

double Median(std::vector<double> samples) {
  std::sort(samples.begin(), samples.end());
  const size_t half = samples.size() / 2;
  return samples.size() % 2 == 1 ? samples[half] : (samples[half - 1] + samples[half]) / 2;
}

double GeometricMean(const std::vector<double>& values) {
  double sum = 0;
  for (const double value : values) sum += std::log(value);
  return std::exp(sum / static_cast<double>(values.size()));
}

}  // namespace nibble::bench
