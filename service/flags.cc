#include "service/flags.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <fstream>
#include <limits>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "engine/status.h"

namespace nibble {
namespace {

absl::Status Bad(std::string_view text, std::string_view wanted) {
  return absl::InvalidArgumentError(absl::StrCat("got \"", Str(text), "\", want ", Str(wanted)));
}

absl::Status ParseBool(std::string_view text, bool* target) {
  if (text != "true" && text != "false") return Bad(text, "true or false");
  *target = text == "true";
  return absl::OkStatus();
}

template <typename Number>
absl::Status ParseInteger(std::string_view text, Number* target) {
  Number value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) {
    return Bad(text, absl::StrCat("a whole number up to ", std::numeric_limits<Number>::max()));
  }
  *target = value;
  return absl::OkStatus();
}

// Edits that turn one name into the other: for "did you mean".
size_t Distance(std::string_view a, std::string_view b) {
  std::vector<size_t> row(b.size() + 1);
  for (size_t j = 0; j <= b.size(); ++j) row[j] = j;
  for (size_t i = 1; i <= a.size(); ++i) {
    size_t diagonal = row[0]++;
    for (size_t j = 1; j <= b.size(); ++j) {
      const size_t replaced = diagonal + (a[i - 1] == b[j - 1] ? 0 : 1);
      diagonal = row[j];
      row[j] = std::min({row[j] + 1, row[j - 1] + 1, replaced});
    }
  }
  return row.back();
}

// Breaks text into lines of at most `width` characters, each begun with `indent`.
std::string Wrap(std::string_view text, size_t width, std::string_view indent) {
  std::string out(indent);
  size_t column = 0;
  size_t at = 0;
  while (at < text.size()) {
    size_t end = text.find(' ', at);
    if (end == std::string_view::npos) end = text.size();
    const std::string_view word = text.substr(at, end - at);
    if (column > 0 && column + 1 + word.size() > width) {
      out += "\n";
      out += indent;
      column = 0;
    }
    if (column > 0) {
      out += ' ';
      ++column;
    }
    out += word;
    column += word.size();
    at = end + 1;
  }
  return out;
}

}  // namespace

absl::Status ParseBytes(std::string_view text, int64_t* bytes) {
  static constexpr std::pair<std::string_view, double> kUnits[] = {
      {"Ki", 1024.0}, {"Mi", 1048576.0}, {"Gi", 1073741824.0}, {"Ti", 1099511627776.0},
      {"K", 1e3},     {"M", 1e6},        {"G", 1e9},           {"T", 1e12}};
  std::string_view number = text;
  if (number.ends_with("B")) number.remove_suffix(1);
  double scale = 1;
  for (const auto& [unit, factor] : kUnits) {
    if (number.ends_with(unit)) {
      number.remove_suffix(unit.size());
      scale = factor;
      break;
    }
  }
  double value = 0;
  if (!absl::SimpleAtod(Str(number), &value) || !std::isfinite(value) || value < 0 ||
      value * scale > 9e18) {
    return Bad(text, "bytes, such as 4096, 500M or 1.5Gi");
  }
  *bytes = static_cast<int64_t>(value * scale);
  return absl::OkStatus();
}

std::string FormatBytes(int64_t bytes) {
  const double value = static_cast<double>(bytes);
  if (bytes < 1000) return absl::StrCat(bytes, " B");
  if (bytes < 1'000'000) return absl::StrFormat("%.1f kB", value / 1e3);
  if (bytes < 1'000'000'000) return absl::StrFormat("%.1f MB", value / 1e6);
  return absl::StrFormat("%.2f GB", value / 1e9);
}

Flags::Flags(std::string usage, std::string summary)
    : usage_(std::move(usage)), summary_(std::move(summary)), group_("Flags") {}

void Flags::Group(std::string title) { group_ = std::move(title); }

void Flags::Insert(std::string name, Flag flag) {
  flag.group = group_;
  order_.push_back(name);
  flags_.emplace(std::move(name), std::move(flag));
}

void Flags::Add(std::string name, bool* target, std::string help) {
  Insert(std::move(name),
         {.help = std::move(help),
          .default_text = *target ? "on" : "",
          .is_bool = true,
          .set = [target](std::string_view text) { return ParseBool(text, target); }});
}

void Flags::Add(std::string name, std::optional<bool>* target, std::string help) {
  Insert(std::move(name), {.help = std::move(help),
                           .default_text = "",
                           .is_bool = true,
                           .set = [target](std::string_view text) {
                             bool value = false;
                             const absl::Status status = ParseBool(text, &value);
                             if (status.ok()) *target = value;
                             return status;
                           }});
}

void Flags::Add(std::string name, std::string* target, std::string value, std::string help) {
  Insert(std::move(name), {.value = std::move(value),
                           .help = std::move(help),
                           .default_text = *target,
                           .set = [target](std::string_view text) {
                             *target = Str(text);
                             return absl::OkStatus();
                           }});
}

void Flags::Add(std::string name, int32_t* target, std::string value, std::string help) {
  Insert(std::move(name),
         {.value = std::move(value),
          .help = std::move(help),
          .default_text = absl::StrCat(*target),
          .set = [target](std::string_view text) { return ParseInteger(text, target); }});
}

void Flags::Add(std::string name, int64_t* target, std::string value, std::string help) {
  Insert(std::move(name),
         {.value = std::move(value),
          .help = std::move(help),
          .default_text = absl::StrCat(*target),
          .set = [target](std::string_view text) { return ParseInteger(text, target); }});
}

void Flags::Add(std::string name, double* target, std::string value, std::string help) {
  Insert(std::move(name), {.value = std::move(value),
                           .help = std::move(help),
                           .default_text = absl::StrCat(*target),
                           .set = [target](std::string_view text) {
                             double parsed = 0;
                             if (!absl::SimpleAtod(Str(text), &parsed) || !std::isfinite(parsed)) {
                               return Bad(text, "a number");
                             }
                             *target = parsed;
                             return absl::OkStatus();
                           }});
}

void Flags::Add(std::string name, absl::Duration* target, std::string help) {
  Insert(std::move(name),
         {.value = "DURATION",
          .help = std::move(help),
          .default_text = absl::FormatDuration(*target),
          .set = [target](std::string_view text) {
            absl::Duration parsed;
            if (!absl::ParseDuration(Str(text), &parsed) || parsed < absl::ZeroDuration()) {
              return Bad(text, "a duration, such as 250ms, 25s or 2m");
            }
            *target = parsed;
            return absl::OkStatus();
          }});
}

void Flags::AddBytes(std::string name, int64_t* target, std::string help) {
  Insert(std::move(name),
         {.value = "BYTES",
          .help = std::move(help),
          .default_text = *target == 0 ? "" : FormatBytes(*target),
          .set = [target](std::string_view text) { return ParseBytes(text, target); }});
}

void Flags::AddList(std::string name, std::vector<std::string>* target, std::string value,
                    std::string help) {
  Insert(std::move(name), {.value = std::move(value),
                           .help = absl::StrCat(help, " May be given several times."),
                           .set = [target](std::string_view text) {
                             target->push_back(Str(text));
                             return absl::OkStatus();
                           }});
}

void Flags::AddChoice(std::string name, std::string* target, std::vector<std::string> choices,
                      std::string help) {
  std::string value = absl::StrJoin(choices, "|");
  Insert(std::move(name),
         {.value = value,
          .help = std::move(help),
          .default_text = *target,
          .set = [target, value, known = std::move(choices)](std::string_view text) {
            if (std::find(known.begin(), known.end(), text) == known.end()) {
              return Bad(text, absl::StrCat("one of ", value));
            }
            *target = Str(text);
            return absl::OkStatus();
          }});
}

void Flags::AddPositional(std::string* target) { positionals_.push_back(target); }

absl::Status Flags::Unknown(std::string_view name) const {
  const std::string* nearest = nullptr;
  size_t best = 4;
  for (const auto& [known, flag] : flags_) {
    const size_t distance = Distance(name, known);
    if (distance < best) {
      best = distance;
      nearest = &known;
    }
  }
  std::string message = absl::StrCat("unknown flag --", Str(name));
  if (nearest != nullptr) absl::StrAppend(&message, "; did you mean --", *nearest, "?");
  return absl::InvalidArgumentError(message);
}

absl::Status Flags::Set(const std::string& name, std::string_view value) {
  const auto found = flags_.find(name);
  if (found == flags_.end()) return Unknown(name);
  const absl::Status status = found->second.set(value);
  if (status.ok()) return status;
  return absl::InvalidArgumentError(absl::StrCat("--", name, ": ", status.message()));
}

absl::Status Flags::Parse(const std::vector<std::string>& args) {
  for (size_t i = 0; i < args.size(); ++i) {
    const std::string& arg = args[i];
    if (arg == "--help" || arg == "-h") {
      help_wanted_ = true;
      return absl::OkStatus();
    }
    if (!arg.starts_with("--")) {
      const auto free = std::find_if(positionals_.begin(), positionals_.end(),
                                     [](const std::string* text) { return text->empty(); });
      if (free == positionals_.end()) {
        return absl::InvalidArgumentError(absl::StrCat("unexpected argument \"", arg, "\""));
      }
      **free = arg;
      continue;
    }
    const size_t equals = arg.find('=');
    std::string name = arg.substr(2, equals == std::string::npos ? equals : equals - 2);
    absl::Status status;
    const auto found = flags_.find(name);
    if (equals != std::string::npos) {
      status = Set(name, std::string_view{arg}.substr(equals + 1));
    } else if (found != flags_.end() && found->second.is_bool) {
      status = Set(name, "true");
    } else if (name.starts_with("no-") && flags_.contains(name.substr(3)) &&
               flags_.at(name.substr(3)).is_bool) {
      status = Set(name.substr(3), "false");
    } else if (found == flags_.end()) {
      status = Unknown(name);
    } else if (i + 1 == args.size()) {
      status = absl::InvalidArgumentError(
          absl::StrCat("--", name, " needs a value (", found->second.value, ")"));
    } else {
      status = Set(name, args[++i]);
    }
    if (!status.ok()) return status;
  }
  return absl::OkStatus();
}

absl::Status Flags::ReadFile(const std::string& path) {
  std::ifstream file(path);
  if (!file) return absl::NotFoundError(absl::StrCat("--config: cannot read ", path));
  std::string line;
  for (int number = 1; std::getline(file, line); ++number) {
    const std::string_view stripped(line.data(), std::min(line.find('#'), line.size()));
    const std::string text(absl::StripAsciiWhitespace(Str(stripped)));
    if (text.empty()) continue;
    const size_t equals = text.find('=');
    const std::string key(absl::StripAsciiWhitespace(text.substr(0, equals)));
    const absl::Status status =
        equals == std::string::npos
            ? absl::InvalidArgumentError("want \"name = value\"")
            : Set(key, std::string(absl::StripAsciiWhitespace(text.substr(equals + 1))));
    if (!status.ok()) {
      return absl::InvalidArgumentError(absl::StrCat(path, ":", number, ": ", status.message()));
    }
  }
  return absl::OkStatus();
}

std::string Flags::Help() const {
  std::string out = absl::StrCat("usage: ", usage_, "\n\n", Wrap(summary_, 96, ""), "\n");
  const std::string* group = nullptr;
  for (const std::string& name : order_) {
    const Flag& flag = flags_.at(name);
    if (group == nullptr || *group != flag.group) {
      absl::StrAppend(&out, "\n", flag.group, ":\n");
      group = &flag.group;
    }
    absl::StrAppend(&out, "  --", flag.is_bool && flag.default_text == "on" ? "[no-]" : "", name,
                    flag.value.empty() ? "" : " ", flag.value, "\n");
    std::string help = flag.help;
    if (!flag.default_text.empty() && flag.default_text != "0") {
      absl::StrAppend(&help, " Default: ", flag.default_text, ".");
    }
    absl::StrAppend(&out, Wrap(help, 86, "        "), "\n");
  }
  return out;
}

std::vector<std::string> Flags::names() const { return order_; }

}  // namespace nibble
