// Command-line flags: one table gives parsing, --help and the config file, so none of them can lag
// behind. Knows no flag by name.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"

namespace nibble {

// Not copyable: it points into the variables that it fills. Values given later win; the variables'
// values at Add are the defaults that --help shows.
class Flags {
 public:
  // usage: "nibble serve [flags]"; summary: one or two sentences.
  Flags(std::string usage, std::string summary);
  Flags(const Flags&) = delete;
  Flags& operator=(const Flags&) = delete;

  // Flags added from here on are listed under this title.
  void Group(std::string title);

  // help ends in a sentence; value names the kind of value ("HOST:PORT"). A bool takes no value:
  // --name, --no-name.
  void Add(std::string name, bool* target, std::string help);
  void Add(std::string name, std::optional<bool>* target, std::string help);
  void Add(std::string name, std::string* target, std::string value, std::string help);
  void Add(std::string name, int32_t* target, std::string value, std::string help);
  void Add(std::string name, int64_t* target, std::string value, std::string help);
  void Add(std::string name, double* target, std::string value, std::string help);
  // "250ms", "25s", "2m".
  void Add(std::string name, absl::Duration* target, std::string help);
  // A number of bytes, with K, M, G (powers of 1000) or Ki, Mi, Gi after it if wished.
  void AddBytes(std::string name, int64_t* target, std::string help);
  // May be given several times.
  void AddList(std::string name, std::vector<std::string>* target, std::string value,
               std::string help);
  // One of a closed set.
  void AddChoice(std::string name, std::string* target, std::vector<std::string> choices,
                 std::string help);
  // Accepts one more argument that is no flag; they are filled in order.
  void AddPositional(std::string* target);

  // args: what follows the command's name. Errors: INVALID_ARGUMENT naming the flag, with the
  // nearest known one.
  absl::Status Parse(const std::vector<std::string>& args);
  // "name = value" lines; # begins a comment; lists may repeat. Errors: NOT_FOUND, INVALID_ARGUMENT
  // with the line.
  absl::Status ReadFile(const std::string& path);

  bool help_wanted() const { return help_wanted_; }
  std::string Help() const;
  std::vector<std::string> names() const;

 private:
  struct Flag {
    std::string group, value, help, default_text;
    bool is_bool = false;
    std::function<absl::Status(std::string_view)> set;
  };
  void Insert(std::string name, Flag flag);
  absl::Status Set(const std::string& name, std::string_view value);
  absl::Status Unknown(std::string_view name) const;

  std::string usage_, summary_, group_;
  std::map<std::string, Flag> flags_;
  std::vector<std::string> order_;
  std::vector<std::string*> positionals_;
  bool help_wanted_ = false;
};

// "1.5Gi", "500M", "4096" to bytes. Errors: INVALID_ARGUMENT.
absl::Status ParseBytes(std::string_view text, int64_t* bytes);
// 111463416 -> "111.5 MB".
std::string FormatBytes(int64_t bytes);

}  // namespace nibble
