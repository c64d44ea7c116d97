// Checks certificates with OpenSSL, then lets gRPC watch the files.
#include "service/tls.h"

#include <grpcpp/security/tls_certificate_provider.h>
#include <grpcpp/security/tls_credentials_options.h>
#include <openssl/bio.h>
#include <openssl/pem.h>
#include <openssl/x509.h>

#include <string>

#include "absl/strings/str_cat.h"
#include "engine/status.h"
#include "service/small_file.h"

namespace nibble {
namespace {

constexpr int64_t kMaxPemBytes = 4 << 20;
constexpr unsigned kRefreshSeconds = 10;

using Bio = std::unique_ptr<BIO, decltype(&BIO_free)>;
using Certificate = std::unique_ptr<X509, decltype(&X509_free)>;
using PrivateKey = std::unique_ptr<EVP_PKEY, decltype(&EVP_PKEY_free)>;

absl::Status Invalid(const std::string& message) {
  return Error(absl::StatusCode::kInvalidArgument, "BAD_TLS_FILE", message);
}

// The first certificate of a PEM file.
absl::StatusOr<Certificate> ReadCertificate(const std::string& flag, const std::string& path) {
  const absl::StatusOr<std::string> pem = ReadSmallFile(flag, path, kMaxPemBytes);
  if (!pem.ok()) return pem.status();
  const Bio bio(BIO_new_mem_buf(pem->data(), static_cast<int>(pem->size())), BIO_free);
  Certificate certificate(PEM_read_bio_X509(bio.get(), nullptr, nullptr, nullptr), X509_free);
  if (certificate == nullptr)
    return Invalid(absl::StrCat(flag, ": ", path, " has no PEM certificate"));
  if (X509_cmp_current_time(X509_get0_notAfter(certificate.get())) < 0) {
    return Invalid(absl::StrCat(flag, ": the certificate in ", path, " has expired"));
  }
  return certificate;
}

absl::StatusOr<PrivateKey> ReadKey(const std::string& path) {
  const absl::StatusOr<std::string> pem = ReadSmallFile("--tls-key", path, kMaxPemBytes);
  if (!pem.ok()) return pem.status();
  const Bio bio(BIO_new_mem_buf(pem->data(), static_cast<int>(pem->size())), BIO_free);
  // An empty pass phrase, so that OpenSSL never asks the terminal for one.
  PrivateKey key(PEM_read_bio_PrivateKey(bio.get(), nullptr, nullptr, const_cast<char*>("")),
                 EVP_PKEY_free);
  if (key == nullptr) {
    return Invalid(
        absl::StrCat("--tls-key: ", path, " has no PEM private key without pass phrase"));
  }
  return key;
}

absl::Status Check(const TlsFiles& files) {
  const absl::StatusOr<Certificate> certificate = ReadCertificate("--tls-cert", files.cert);
  if (!certificate.ok()) return certificate.status();
  const absl::StatusOr<PrivateKey> key = ReadKey(files.key);
  if (!key.ok()) return key.status();
  if (X509_check_private_key(certificate->get(), key->get()) != 1) {
    return Invalid(absl::StrCat("--tls-key: ", files.key, " is not the key of the certificate in ",
                                files.cert));
  }
  if (files.client_ca.empty()) return absl::OkStatus();
  return ReadCertificate("--tls-client-ca", files.client_ca).status();
}

}  // namespace

absl::StatusOr<std::shared_ptr<grpc::ServerCredentials>> MakeCredentials(const TlsFiles& files) {
  if (files.cert.empty() && files.key.empty() && files.client_ca.empty()) {
    return grpc::InsecureServerCredentials();
  }
  if (files.cert.empty() || files.key.empty()) {
    return Invalid("TLS wants both --tls-cert and --tls-key");
  }
  if (absl::Status status = Check(files); !status.ok()) return status;
  grpc::experimental::TlsServerCredentialsOptions options(
      std::make_shared<grpc::experimental::FileWatcherCertificateProvider>(
          files.key, files.cert, files.client_ca, kRefreshSeconds));
  options.watch_identity_key_cert_pairs();
  options.set_check_call_host(false);
  if (!files.client_ca.empty()) {
    options.watch_root_certs();
    options.set_cert_request_type(GRPC_SSL_REQUEST_AND_REQUIRE_CLIENT_CERTIFICATE_AND_VERIFY);
  }
  return grpc::experimental::TlsServerCredentials(options);
}

}  // namespace nibble
