#include "service/bench_report.h"

#include <simdjson.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <iterator>

#include "absl/strings/str_cat.h"
#include "service/json_line.h"

namespace nibble {
namespace {

absl::Status ReadFigures(const std::string& path, std::map<std::string, double>* figures) {
  simdjson::padded_string text;
  if (simdjson::padded_string::load(path).get(text) != simdjson::SUCCESS) {
    return absl::NotFoundError(absl::StrCat("--compare: cannot read ", path));
  }
  simdjson::dom::parser parser;
  simdjson::dom::object object;
  if (parser.parse(text).get(object) != simdjson::SUCCESS) {
    return absl::InvalidArgumentError(
        absl::StrCat("--compare: ", path, " is not what --json prints"));
  }
  for (const auto& [key, value] : object) {
    double number = 0;
    if (value.get(number) == simdjson::SUCCESS) (*figures)[std::string(key)] = number;
  }
  return absl::OkStatus();
}

}  // namespace

void BenchReport::Add(std::string name, double value) {
  figures_.emplace_back(std::move(name), value);
}

void BenchReport::AddText(std::string name, std::string value) {
  texts_.emplace_back(std::move(name), std::move(value));
}

std::string BenchReport::ToJson() const {
  JsonLine line;
  for (const auto& [name, value] : texts_) line.Add(name, value);
  for (const auto& [name, value] : figures_) line.Add(name, value);
  return line.Finish();
}

absl::Status BenchReport::Print(bool json, const std::string& compare) const {
  std::map<std::string, double> earlier;
  if (!compare.empty()) {
    if (const absl::Status status = ReadFigures(compare, &earlier); !status.ok()) return status;
  }
  if (json) {
    std::printf("%s\n", ToJson().c_str());
    return absl::OkStatus();
  }
  for (const auto& [name, value] : texts_) std::printf("%-46s %s\n", name.c_str(), value.c_str());
  for (const auto& [name, value] : figures_) {
    std::printf("%-46s %12.4g", name.c_str(), value);
    const auto found = earlier.find(name);
    if (found != earlier.end() && found->second != 0)
      std::printf("   x %.3f", value / found->second);
    std::printf("\n");
  }
  return absl::OkStatus();
}

double Quantile(std::vector<double> values, double q) {
  if (values.empty()) return 0;
  std::sort(values.begin(), values.end());
  const double at = q * static_cast<double>(values.size() - 1);
  return values[static_cast<size_t>(std::lround(at))];
}

double SharedRate(const std::vector<std::vector<absl::Time>>& answers) {
  const auto begins_later = [](const auto& a, const auto& b) { return a.front() < b.front(); };
  const auto& latest = *std::max_element(answers.begin(), answers.end(), begins_later);
  const absl::Time begin = latest.front();
  absl::Time first_end = absl::InfiniteFuture();
  for (const auto& times : answers) first_end = std::min(first_end, times.back());
  absl::Time end = *std::prev(std::upper_bound(latest.begin() + 1, latest.end(), first_end));
  if (end <= begin) end = latest.back();
  int64_t tokens = 0;
  for (const auto& times : answers) {
    tokens += std::count_if(times.begin(), times.end(),
                            [&](absl::Time time) { return begin < time && time <= end; });
  }
  return static_cast<double>(tokens) / absl::ToDoubleSeconds(end - begin);
}

}  // namespace nibble
