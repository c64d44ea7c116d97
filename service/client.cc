#include "service/client.h"

#include <google/rpc/error_details.pb.h>
#include <google/rpc/status.pb.h>

#include <cstdio>
#include <fstream>
#include <sstream>

#include "absl/strings/str_cat.h"

namespace nibble {
namespace {

absl::StatusOr<std::string> ReadFile(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) return absl::NotFoundError(absl::StrCat("cannot read ", path));
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

// The stable reason that our server attaches, " (REASON)", or nothing.
std::string Reason(const grpc::Status& status) {
  google::rpc::Status details;
  if (!details.ParseFromString(status.error_details())) return "";
  for (const auto& detail : details.details()) {
    google::rpc::ErrorInfo info;
    if (detail.UnpackTo(&info)) return absl::StrCat(" (", info.reason(), ")");
  }
  return "";
}

}  // namespace

void AddClientFlags(Flags* flags, ClientOptions* options) {
  flags->Group("Server");
  flags->Add("target", &options->target, "HOST:PORT", "Where the server listens.");
  flags->Add("tls-ca", &options->tls_ca, "FILE",
             "Certificates (PEM) that the server's must descend from; plaintext without it.");
  flags->Add("token-file", &options->token_file, "FILE",
             "File whose first line is the bearer token to send.");
  flags->Add("timeout", &options->timeout, "Give up after this long.");
}

absl::StatusOr<std::shared_ptr<grpc::Channel>> Connect(const ClientOptions& options) {
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(-1);
  if (options.tls_ca.empty()) {
    return grpc::CreateCustomChannel(options.target, grpc::InsecureChannelCredentials(), arguments);
  }
  absl::StatusOr<std::string> roots = ReadFile(options.tls_ca);
  if (!roots.ok()) return roots.status();
  return grpc::CreateCustomChannel(options.target, grpc::SslCredentials({.pem_root_certs = *roots}),
                                   arguments);
}

absl::Status Prepare(const ClientOptions& options, grpc::ClientContext* context) {
  if (options.timeout != absl::InfiniteDuration()) {
    context->set_deadline(absl::ToChronoTime(absl::Now() + options.timeout));
  }
  if (options.token_file.empty()) return absl::OkStatus();
  absl::StatusOr<std::string> token = ReadFile(options.token_file);
  if (!token.ok()) return token.status();
  context->AddMetadata("authorization",
                       absl::StrCat("Bearer ", token->substr(0, token->find('\n'))));
  return absl::OkStatus();
}

int ReportFailure(const char* command, const absl::Status& status) {
  std::fprintf(stderr, "nibble %s: %s\n", command, status.ToString().c_str());
  return 1;
}

int ReportFailure(const char* command, const grpc::Status& status) {
  const absl::Status same(static_cast<absl::StatusCode>(status.error_code()),
                          absl::StrCat(status.error_message(), Reason(status)));
  return ReportFailure(command, same);
}

bool ParseOrExplain(const char* command, Flags* flags, const std::vector<std::string>& args,
                    int* exit_code) {
  const absl::Status parsed = flags->Parse(args);
  if (flags->help_wanted()) {
    std::fputs(flags->Help().c_str(), stdout);
    *exit_code = 0;
    return false;
  }
  if (parsed.ok()) return true;
  std::fprintf(stderr, "nibble %s: %s\n(nibble %s --help tells the flags)\n", command,
               std::string(parsed.message()).c_str(), command);
  *exit_code = 2;
  return false;
}

}  // namespace nibble
