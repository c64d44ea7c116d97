// What a bench measured, as lines of JSON: one object a line, written as soon as it is known, so
// that a bench that is cut short leaves what it had. tests/gpu/report.py reads them.
#pragma once

#include <cstdio>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace nibble::bench {

// One object of one level.
class Line {
 public:
  // kind: "figure" (a goal's ratio), "row" (a measurement behind it), "fact", "missing".
  Line(std::string_view kind, std::string_view name);
  Line& Add(std::string_view key, double value);
  Line& Add(std::string_view key, std::string_view value);
  const std::string& text() const { return text_; }

 private:
  std::string text_;
};

// Thread rule: one thread.
class Figures {
 public:
  // To standard output without a path. Aborts if the file cannot be made.
  explicit Figures(const std::string& path);
  Figures(const Figures&) = delete;
  Figures& operator=(const Figures&) = delete;
  ~Figures();

  void Write(const Line& line);
  // What could not be measured here, and why.
  void Missing(std::string_view name, std::string_view why);

 private:
  std::FILE* file_;
};

// Of an odd or even number of samples, at least one.
double Median(std::vector<double> samples);
double GeometricMean(const std::vector<double>& values);

}  // namespace nibble::bench
