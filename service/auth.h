// Who may call what: bearer tokens with roles, from a file. Knows no gRPC.
//
// The file: one token per line, then optionally its role, separated by spaces; blank lines and
// lines that begin with # are skipped.
//   line = token [ SP role ]
//   token = 16 to 512 printable ASCII characters without spaces
//   role = "inference" (the default) | "admin" | "observe"
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace nibble {

// What a method needs. An admin token serves for everything, an inference token for all but
// kAdmin, an observe token for kObserve only.
enum class Role : uint8_t { kObserve, kInference, kAdmin };

// Immutable after construction; thread-safe.
class Authorizer {
 public:
  Authorizer() = default;  // no tokens: everyone may do everything
  // Errors: NOT_FOUND, PERMISSION_DENIED (cannot read), INVALID_ARGUMENT (a bad line, by number; no
  // token at all). No message holds a token.
  static absl::StatusOr<Authorizer> FromFile(const std::string& path);
  static absl::StatusOr<Authorizer> Parse(std::string_view text);

  bool enabled() const { return !tokens_.empty(); }
  // header: the value of `authorization`, "" when absent.
  // Errors: UNAUTHENTICATED (no or unknown token), PERMISSION_DENIED (its role is too low).
  absl::Status Check(std::string_view header, Role needed) const;

 private:
  using Digest = std::array<uint8_t, 32>;  // SHA-256
  struct Token {
    Digest digest;
    Role role;
  };
  static absl::StatusOr<Token> ParseLine(std::string_view line);
  static Digest DigestOf(std::string_view token);

  std::vector<Token> tokens_;
};

}  // namespace nibble
