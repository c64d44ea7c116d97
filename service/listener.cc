// Parses an address, binds and listens. No name is resolved: a server listens on addresses.
#include "service/listener.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <cerrno>
#include <cstring>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "engine/status.h"

namespace nibble {
namespace {

struct SocketAddress {
  sockaddr_storage storage = {};
  socklen_t length = 0;
  bool loopback = false;
  sockaddr* get() { return reinterpret_cast<sockaddr*>(&storage); }
};

absl::Status BadAddress(const std::string& flag, const std::string& address) {
  return Error(
      absl::StatusCode::kInvalidArgument, "BAD_ADDRESS",
      absl::StrCat(flag, ": \"", address, "\" is not IPv4:PORT, [IPv6]:PORT or localhost:PORT"));
}

bool SplitHostPort(const std::string& address, std::string* host, uint16_t* port) {
  const size_t colon = address.rfind(':');
  uint32_t number = 0;
  if (colon == std::string::npos || !absl::SimpleAtoi(address.substr(colon + 1), &number) ||
      number > 65535) {
    return false;
  }
  *host = address.substr(0, colon);
  *port = static_cast<uint16_t>(number);
  return true;
}

bool Parse(const std::string& address, SocketAddress* result) {
  std::string host;
  uint16_t port = 0;
  if (!SplitHostPort(address, &host, &port)) return false;
  if (host == "localhost") host = "127.0.0.1";
  if (host.size() >= 2 && host.front() == '[' && host.back() == ']') {
    auto* v6 = reinterpret_cast<sockaddr_in6*>(&result->storage);
    v6->sin6_family = AF_INET6;
    v6->sin6_port = htons(port);
    result->length = sizeof(*v6);
    if (inet_pton(AF_INET6, host.substr(1, host.size() - 2).c_str(), &v6->sin6_addr) != 1) {
      return false;
    }
    result->loopback = IN6_IS_ADDR_LOOPBACK(&v6->sin6_addr);
    return true;
  }
  auto* v4 = reinterpret_cast<sockaddr_in*>(&result->storage);
  v4->sin_family = AF_INET;
  v4->sin_port = htons(port);
  result->length = sizeof(*v4);
  if (inet_pton(AF_INET, host.c_str(), &v4->sin_addr) != 1) return false;
  result->loopback = (ntohl(v4->sin_addr.s_addr) >> 24) == 127;
  return true;
}

absl::Status SocketError(const std::string& flag, const std::string& address, int error) {
  if (error == EADDRINUSE) {
    return Error(absl::StatusCode::kUnavailable, "PORT_IN_USE",
                 absl::StrCat(flag, ": ", address, " is in use by another process"));
  }
  const auto code =
      error == EACCES ? absl::StatusCode::kPermissionDenied : absl::StatusCode::kUnavailable;
  return Error(code, "CANNOT_LISTEN",
               absl::StrCat(flag, ": cannot listen on ", address, ": ", std::strerror(error)));
}

}  // namespace

absl::StatusOr<Listener> Listen(const std::string& flag, const std::string& address) {
  SocketAddress wanted;
  if (!Parse(address, &wanted)) return BadAddress(flag, address);
  const int family = wanted.storage.ss_family;
  Listener listener;
  listener.fd = Fd(socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (!listener.fd) return SocketError(flag, address, errno);
  const int on = 1;
  const int off = 0;
  // REUSEADDR takes over a port in TIME_WAIT; never REUSEPORT, which would share a port in use.
  setsockopt(listener.fd.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
  if (family == AF_INET6) {
    setsockopt(listener.fd.get(), IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof(off));
  }
  if (bind(listener.fd.get(), wanted.get(), wanted.length) != 0 ||
      listen(listener.fd.get(), SOMAXCONN) != 0) {
    return SocketError(flag, address, errno);
  }
  SocketAddress bound;
  bound.length = sizeof(bound.storage);
  if (getsockname(listener.fd.get(), bound.get(), &bound.length) != 0) {
    return SocketError(flag, address, errno);
  }
  listener.port =
      ntohs(family == AF_INET6 ? reinterpret_cast<sockaddr_in6*>(&bound.storage)->sin6_port
                               : reinterpret_cast<sockaddr_in*>(&bound.storage)->sin_port);
  listener.address = absl::StrCat(address.substr(0, address.rfind(':')), ":", listener.port);
  listener.loopback = wanted.loopback;
  return listener;
}

}  // namespace nibble
