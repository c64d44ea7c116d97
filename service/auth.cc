// Tokens are kept and compared as digests, in constant time.
#include "service/auth.h"

#include <openssl/crypto.h>
#include <openssl/sha.h>

#include <algorithm>
#include <cctype>
#include <optional>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "engine/status.h"
#include "service/small_file.h"

namespace nibble {
namespace {

constexpr size_t kMinTokenBytes = 16;
constexpr size_t kMaxTokenBytes = 512;
constexpr int64_t kMaxFileBytes = 1 << 20;

std::optional<Role> ParseRole(const std::string& name) {
  if (name == "inference") return Role::kInference;
  if (name == "admin") return Role::kAdmin;
  if (name == "observe") return Role::kObserve;
  return std::nullopt;
}

bool IsPrintable(const std::string& token) {
  return std::all_of(token.begin(), token.end(), [](char c) { return c > ' ' && c <= '~'; });
}

absl::Status Invalid(const std::string& message) {
  return Error(absl::StatusCode::kInvalidArgument, "BAD_TOKEN_FILE", message);
}

}  // namespace

absl::StatusOr<Authorizer> Authorizer::FromFile(const std::string& path) {
  const absl::StatusOr<std::string> text = ReadSmallFile("--auth-token-file", path, kMaxFileBytes);
  if (!text.ok()) return text.status();
  return Parse(*text);
}

absl::StatusOr<Authorizer> Authorizer::Parse(std::string_view text) {
  Authorizer result;
  int number = 0;
  for (const std::string& line : std::vector<std::string>(
           absl::StrSplit(absl::string_view(text.data(), text.size()), '\n'))) {
    ++number;
    if (line.find_first_not_of(" \t\r") == std::string::npos || line.front() == '#') continue;
    const absl::StatusOr<Token> token = ParseLine(line);
    if (!token.ok()) {
      return Invalid(
          absl::StrCat("--auth-token-file: line ", number, ": ", token.status().message()));
    }
    result.tokens_.push_back(*token);
  }
  if (result.tokens_.empty()) return Invalid("--auth-token-file: the file holds no token");
  return result;
}

absl::StatusOr<Authorizer::Token> Authorizer::ParseLine(std::string_view line) {
  const std::vector<std::string> words = absl::StrSplit(
      absl::string_view(line.data(), line.size()), absl::ByAnyChar(" \t\r"), absl::SkipEmpty());
  if (words.size() > 2) return Invalid("more than a token and a role");
  const std::string& token = words[0];
  if (token.size() < kMinTokenBytes || token.size() > kMaxTokenBytes || !IsPrintable(token)) {
    return Invalid(absl::StrCat("a token is ", kMinTokenBytes, " to ", kMaxTokenBytes,
                                " printable ASCII characters, this one has ", token.size()));
  }
  const std::optional<Role> role = words.size() == 2 ? ParseRole(words[1]) : Role::kInference;
  if (!role.has_value()) {
    return Invalid(absl::StrCat("role \"", words[1], "\" is not inference, admin or observe"));
  }
  return Token{DigestOf(token), *role};
}

absl::Status Authorizer::Check(std::string_view header, Role needed) const {
  if (!enabled()) return absl::OkStatus();
  constexpr size_t kSchemeBytes = 7;  // "Bearer "
  if (!absl::StartsWithIgnoreCase(absl::string_view(header.data(), header.size()), "bearer ")) {
    return Error(absl::StatusCode::kUnauthenticated, "TOKEN_MISSING",
                 "this server wants metadata \"authorization: Bearer TOKEN\"");
  }
  const Digest given = DigestOf(header.substr(kSchemeBytes));
  std::optional<Role> role;
  for (const Token& token : tokens_) {
    if (CRYPTO_memcmp(token.digest.data(), given.data(), given.size()) == 0) role = token.role;
  }
  if (!role.has_value()) {
    return Error(absl::StatusCode::kUnauthenticated, "TOKEN_UNKNOWN", "unknown bearer token");
  }
  if (*role < needed) {
    return Error(absl::StatusCode::kPermissionDenied, "ROLE_TOO_LOW",
                 absl::StrCat("this method needs a token of role ",
                              needed == Role::kAdmin ? "admin" : "inference or admin"));
  }
  return absl::OkStatus();
}

Authorizer::Digest Authorizer::DigestOf(std::string_view token) {
  Digest digest;
  SHA256(reinterpret_cast<const unsigned char*>(token.data()), token.size(), digest.data());
  return digest;
}

}  // namespace nibble
